package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The measure itself, of a program that builds in a moment: this one.
func TestMeasure(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	f, err := measure(strings.TrimSuffix(parent, "/"), file, false)
	require.NoError(t, err)
	require.Contains(t, f.packages, "os/exec")
	require.NotContains(t, f.packages, "github.com/cockroachdb/pebble/v2")
	require.Greater(t, f.stripped, int64(100_000))
	require.Greater(t, f.size, f.stripped)
	require.Positive(t, f.link)
	require.NoFileExists(t, file)
}

// What the page says of the two programs is what they are made of.
func TestProgramsOfTheTable(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the page has what Linux on amd64 has")
	}
	doc, err := os.ReadFile("../../../docs/dependencies.md")
	require.NoError(t, err)
	var n [2]int
	for i, name := range []string{"plain", "sealed"} {
		list, _, err := goTool(nil, "list", "-deps", parent+name)
		require.NoError(t, err)
		n[i] = others(strings.Fields(list))
	}
	require.Greater(t, n[1], n[0])
	require.Contains(t, string(doc), fmt.Sprintf("| of them not the standard library's | %d | %d | %d |", n[0], n[1], n[1]-n[0]))
}

func TestBeyond(t *testing.T) {
	require.Equal(t, []string{own + "block", "a", "z"}, beyond([]string{"z", own + "block", "b", "a"}, []string{"b"}))
}

func TestGoToolSaysWhatWentWrong(t *testing.T) {
	_, _, err := goTool(nil, "list", parent+"none")
	require.ErrorContains(t, err, "go list")
	require.ErrorContains(t, err, "footprint/none")
}
