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

// What a page of docs says of keys it says in words of the glossary, and links the first of each:
// those words that mean nothing else anywhere.
func TestTermsAreLinkedAtFirstUse(t *testing.T) {
	// By the name in the glossary: the forms that the word has in sentences.
	terms := map[string]string{
		"kek": "KEKs?", "dek": "DEKs?", "epoch": "epochs?", "lease": "leases?", "document": "keyring documents?",
		"record": "DEK records?", "meta-record": "meta records?", "tagged": "tagged records?", "kek-version": "KEK versions?",
		"store-secret": "store secret", "sequence": "sequence numbers?", "fingerprint": "fingerprints?", "anchor": "anchors?",
		"status": "Available|Degraded|Inaccessible",
	}
	require.NotEmpty(t, firstUnlinked("The KEK, a [KEK](glossary.md#kek).", "kek", terms["kek"]))
	require.Empty(t, firstUnlinked("# KEK\n\n`KEK` [the KEK](adr) and a [KEK](glossary.md#kek), a KEK.\n", "kek", terms["kek"]))

	found, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	for _, page := range append(found, "../../README.md") {
		if name := filepath.Base(page); name == "glossary.md" || page == "../../docs/README.md" {
			continue
		}
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for term, word := range terms {
			require.Empty(t, firstUnlinked(string(text), term, word), "%s: the first of these is no link to glossary.md#%s", page, term)
		}
	}
}

// firstUnlinked returns the surroundings of a word's first use in a page's sentences, unless it is
// a link to the glossary, or there is none. Headings, code, and links to elsewhere are no sentences.
func firstUnlinked(text, term, word string) string {
	for _, no := range []string{"(?ms)^```.*?^```", `(?m)^\n(?:^(?:    .*)?\n)+`, "(?m)^#+ .*$", "<!--.*?-->", "`[^`\n]*`"} {
		text = regexp.MustCompile(no).ReplaceAllString(text, "")
	}
	text = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`).ReplaceAllStringFunc(text, func(link string) string {
		if strings.Contains(link, "glossary.md#") {
			return link
		}
		return "" // says where it leads to
	})
	// A word of several parts has others in it: a DEK record is no DEK.
	at := regexp.MustCompile(`(?:^|[^\w/#-])(?:` + strings.ReplaceAll(word, " ", `\s+`) + `)(?:[^\w-]|$)`).FindStringIndex(text)
	if at == nil {
		return ""
	}
	around := text[max(0, at[0]-40):min(len(text), at[1]+40)]
	if open := strings.LastIndex(text[:at[0]+1], "["); open >= 0 {
		if end := strings.Index(text[open:], ")"); end >= 0 && open+end >= at[1]-1 && strings.Contains(text[open:open+end], "glossary.md#") {
			return ""
		}
	}
	return around
}
