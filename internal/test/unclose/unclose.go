// Package unclose is for tests that change the engine's files of a closed store behind its
// back, as somebody does who can write the disk: that one would also make the store's
// identity file say that the store was in use, and not closed with these files.
package unclose

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine/pebble"
)

// Store makes the identity file in dir say that the store is open, with the files that
// are there. A nil fs is the operating system's.
func Store(fs vfs.FS, dir string) error {
	if fs == nil {
		fs = vfs.Default
	}
	path := fs.PathJoin(dir, "BLOCKSEAL")
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(f)
	f.Close()
	if err != nil {
		return err
	}
	log, manifest, err := pebble.Position(dir, fs)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(text)) {
		switch word, _, _ := strings.Cut(line, " "); word {
		case "state":
			line = "state open\n"
		case "path": // of a copy nobody can tell then
			line = "path \"\"\n"
		case "log":
			line = fmt.Sprintf("log %d\n", log)
		case "manifest":
			line = fmt.Sprintf("manifest %d\n", manifest)
		case "sequence", "file", "tag", "sha256":
			continue
		}
		out.WriteString(line)
	}
	fmt.Fprintf(&out, "sha256 %x\n", sha256.Sum256(out.Bytes()))
	w, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err := w.Write(out.Bytes()); err != nil {
		w.Close()
		return err
	}
	if err := w.Sync(); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
