package project

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// pages are the module's Markdown files.
func pages(t *testing.T) (out []string) {
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "docs/reader/*.md", "examples/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		require.NoError(t, err)
		out = append(out, found...)
	}
	require.Greater(t, len(out), 20)
	return out
}

// Each page is found from the index, and each link from a page to a file of the repository
// leads to one, and to a heading that it has.
func TestLinks(t *testing.T) {
	linked := map[string]bool{}
	for _, page := range pages(t) {
		b, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, heading, _ := strings.Cut(m[1], "#")
			to := page
			if path != "" {
				to = filepath.Join(filepath.Dir(page), path)
				_, err := os.Stat(to)
				require.NoError(t, err, "%s links to %s", page, m[1])
			}
			if filepath.Base(page) == "README.md" && filepath.Dir(page) == filepath.Join("../..", "docs") {
				linked[to] = true
			}
			if heading == "" || filepath.Ext(to) != ".md" {
				continue
			}
			text, err := os.ReadFile(to)
			require.NoError(t, err)
			require.Contains(t, anchors(string(text)), heading, "%s links to %s", page, m[1])
		}
	}
	for _, page := range pages(t) {
		if strings.Contains(page, "docs/") && !strings.HasSuffix(page, "/README.md") && !strings.Contains(page, "/reader/") {
			require.True(t, linked[page], "docs/README.md does not link to %s", page)
		}
	}
}

var (
	headingLine = regexp.MustCompile(`(?m)^#+ (.+)$`)
	anchorTag   = regexp.MustCompile(`<a id="([^"]+)"></a>`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}\-_ ]`)
)

// anchors are the names that GitHub gives to a page's headings, and those that it gives itself.
func anchors(text string) (out []string) {
	for _, m := range anchorTag.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	for _, m := range headingLine.FindAllStringSubmatch(text, -1) {
		out = append(out, strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}
