package project

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each term of the glossary has one line, is used in a page that people read besides the
// glossary, and can be linked to; and each page that uses them links to the glossary.
func TestGlossary(t *testing.T) {
	const name = "../../docs/glossary.md"
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| <a id="([a-z-]+)"></a>(.+?) \| (.+) \|$`).FindAllStringSubmatch(string(b), -1)
	require.Equal(t, strings.Count(string(b), `<a id="`), len(rows), "a line of another form")
	require.Greater(t, len(rows), 40)

	texts := map[string]string{}
	for _, page := range pages(t) {
		if page != name && !strings.Contains(page, "/adr/") && filepath.Base(page) != "CHANGELOG.md" {
			text, err := os.ReadFile(page)
			require.NoError(t, err)
			texts[page] = string(text)
		}
	}
	used := func(term string) bool {
		// "hold" is used as "holds" too, and "wrap" as "wrapped".
		word := regexp.MustCompile(`(?i)\b` + regexp.QuoteMeta(term))
		for _, text := range texts {
			if word.MatchString(text) {
				return true
			}
		}
		return false
	}
	seen := map[string]bool{}
	for _, row := range rows {
		require.False(t, seen[row[1]], "%s has two lines", row[1])
		seen[row[1]] = true
		require.True(t, strings.HasSuffix(row[3], ".") || strings.HasSuffix(row[3], ".)") || strings.HasSuffix(row[3], ")."), "%s: a sentence ends with a full stop", row[2])
		for _, term := range strings.Split(strings.ReplaceAll(row[2], "`", ""), ", ") {
			require.True(t, used(term), "no page uses %q", term)
		}
	}
	for page, text := range texts {
		if !regexp.MustCompile(`\b(KEK|DEK)s?\b`).MatchString(text) || strings.Contains(page, "/reader/") {
			continue
		}
		switch filepath.Base(page) {
		case "CONTRIBUTING.md", "SECURITY.md", "dependencies.md":
			continue // which name them in passing
		}
		require.Contains(t, text, "glossary.md", "%s uses terms and does not link to the glossary", page)
	}
}
