package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// snippet is how long the pieces of plaintext are that are looked for.
const snippet = 32

// searchDisk looks for plaintext in every file of the store and the vault: pieces
// of the tree's own files. So that finding nothing means something, it looks for
// them in the files they were taken from as well.
func (d *demo) searchDisk(ctx context.Context) error {
	pieces, err := d.pieces()
	if err != nil {
		return err
	}
	control := 0
	for _, p := range pieces {
		content, err := os.ReadFile(filepath.Join(d.in, p.from))
		if err != nil {
			return err
		}
		control += bytes.Count(content, p.text)
	}
	if len(pieces) == 0 || control < len(pieces) {
		return fmt.Errorf("the search is no good: it found %d of %d pieces in the files that they are from", control, len(pieces))
	}
	files, scanned := 0, int64(0)
	err = filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		scanned += int64(len(content))
		for _, p := range pieces {
			if bytes.Contains(content, p.text) {
				return fmt.Errorf("%s holds plaintext of %s", path, p.from)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.say("searched %d files on disk, %s, for %d pieces of plaintext: none (and all of them in the files they are from)",
		files, size(scanned), len(pieces))
	return nil
}

type piece struct {
	from string
	text []byte
}

// pieces takes a piece out of the middle of some files, evenly spread.
func (d *demo) pieces() (out []piece, err error) {
	const most = 32
	step := max(len(d.files)/most, 1)
	for i := 0; i < len(d.files); i += step {
		f := d.files[i]
		content, err := os.ReadFile(filepath.Join(d.in, f.name))
		if err != nil {
			return nil, err
		}
		mid := len(content) / 2
		if mid+snippet > len(content) || len(bytes.TrimSpace(content[mid:mid+snippet])) < snippet/2 {
			continue // too short, or not distinctive
		}
		out = append(out, piece{f.name, content[mid : mid+snippet]})
	}
	return out, nil
}
