package project

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What docs/compare.md says of others has a source where it has a figure, every source that is
// named is listed with its address, and none is listed that nothing names.
func TestComparisonsHaveSources(t *testing.T) {
	b, err := os.ReadFile("../../docs/compare.md")
	require.NoError(t, err)
	text, sources, ok := strings.Cut(string(b), "\n## Sources\n")
	require.True(t, ok)
	listed := map[string]bool{}
	for i, m := range regexp.MustCompile(`(?m)^(\d+)\. .*\]\(https://[^)\s]+\)`).FindAllStringSubmatch(sources, -1) {
		require.Equal(t, strconv.Itoa(i+1), m[1], "the sources are numbered in order, each with an address")
		listed[m[1]] = true
	}
	require.Greater(t, len(listed), 15)
	named := map[string]bool{}
	mark := regexp.MustCompile(`\[(\d+)\]`)
	for _, m := range mark.FindAllStringSubmatch(text, -1) {
		require.True(t, listed[m[1]], "there is no source %s", m[0])
		named[m[1]] = true
	}
	require.Len(t, named, len(listed), "a source that nothing names")

	figure := regexp.MustCompile(`\b\d+ (days?|minutes?|hours?|KiB|KB|bytes)\b`)
	rows := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| **blockseal**") {
			continue
		}
		rows++
		for _, cell := range strings.Split(line, "|") {
			require.True(t, !figure.MatchString(cell) || mark.MatchString(cell), "a figure without a source: %s", cell)
		}
	}
	require.Greater(t, rows, 10)
	_, prose, ok := strings.Cut(text, "\n## One by one\n")
	require.True(t, ok)
	prose, _, _ = strings.Cut(prose, "\n## ")
	for _, paragraph := range strings.Split(prose, "\n\n") {
		require.True(t, !figure.MatchString(paragraph) || mark.MatchString(paragraph), "a figure without a source: %s", paragraph)
	}
}
