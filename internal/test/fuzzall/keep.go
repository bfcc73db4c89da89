package main

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// maxKept is the size in bytes of the largest input that is kept: a corpus is read by
// everyone who runs the tests.
const maxKept = 8 << 10

// keepShortest copies files from one corpus to another, the shortest first, until that
// has n.
func keepShortest(from, to string, n int) error {
	have, err := os.ReadDir(to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	found, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing reached new code
	}
	if err != nil {
		return err
	}
	type input struct {
		name string
		b    []byte
	}
	var inputs []input
	for _, e := range found {
		if slices.ContainsFunc(have, func(h fs.DirEntry) bool { return h.Name() == e.Name() }) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if len(b) <= maxKept {
			inputs = append(inputs, input{e.Name(), b})
		}
	}
	slices.SortFunc(inputs, func(a, b input) int {
		return cmp.Or(cmp.Compare(len(a.b), len(b.b)), cmp.Compare(a.name, b.name))
	})
	for _, in := range inputs[:min(len(inputs), max(0, n-len(have)))] {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, in.name), in.b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
