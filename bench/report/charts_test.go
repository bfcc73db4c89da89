package main

import (
	"bytes"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// content says whether an image has a pixel that is not white.
func content(img image.Image) bool {
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			if r, g, b, _ := img.At(x, y).RGBA(); r&g&b != 0xffff {
				return true
			}
		}
	}
	return false
}

func TestEveryChartIsDrawn(t *testing.T) {
	dir := t.TempDir()
	got, missing, err := drawAll(load(t, "testdata/full.txt"), dir)
	require.NoError(t, err)
	require.Empty(t, missing)
	require.Len(t, got, len(charts()))
	for _, c := range got {
		require.Empty(t, c.Missing, c.File)
		onDisk, err := os.ReadFile(filepath.Join(dir, c.File))
		require.NoError(t, err)
		require.Equal(t, c.PNG, onDisk)
		img, err := png.Decode(bytes.NewReader(c.PNG))
		require.NoError(t, err)
		require.Equal(t, image.Pt(1300, 917), img.Bounds().Size(), c.File)
		require.True(t, content(img), c.File)
	}
	f, err := os.Open(filepath.Join(dir, "summary.png"))
	require.NoError(t, err)
	defer f.Close()
	img, err := png.Decode(f)
	require.NoError(t, err)
	require.Equal(t, image.Pt(1200, 630), img.Bounds().Size())
	require.True(t, content(img))
}

func TestChartsWithoutData(t *testing.T) {
	dir := t.TempDir()
	// Of an earlier run, and not to be taken for this one's.
	for _, f := range []string{"put.png", "summary.png"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte("old"), 0o644))
	}
	got, missing, err := drawAll(load(t, "testdata/partial.txt"), dir)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, "seal.png", got[0].File)
	require.Contains(t, got[0].Missing, "SealWrapped/size=512 tink")
	require.Contains(t, got[0].Missing, "Seal/size=4096 blockseal")
	require.NotContains(t, got[0].Missing, "Seal/size=512 blockseal")
	require.Len(t, missing, len(charts())) // one drawn, and the summary not
	require.NoFileExists(t, filepath.Join(dir, "put.png"))
	require.NoFileExists(t, filepath.Join(dir, "summary.png"))

	none, missing, err := drawAll(newResults(), dir)
	require.NoError(t, err)
	require.Empty(t, none)
	require.Len(t, missing, len(charts())+1)
}

func TestColoursAreTheirOwn(t *testing.T) {
	seen := map[any]string{}
	for _, impl := range []string{ours, "pebble", "badger", "tink", "go-kms-wrapping", "sio", "floor", "cipher"} {
		require.Empty(t, seen[colour(impl)], impl)
		seen[colour(impl)] = impl
	}
}
