package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/keyring"
)

// words keeps texts in a Pebble, and counts the words in them. One goroutine at a time adds.
type words struct {
	db   *pebble.DB
	keys *keyring.Keyring // nil: the files are plain
	next uint64           // number of the next text, its key
}

// open opens the database in dir. Compression is off, so that the search of the demonstration finds in the
// plain files what is there.
func open(dir string, fs vfs.FS, keys *keyring.Keyring) (*words, error) {
	o := &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}}
	for i := range o.Levels {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, err
	}
	w := &words{db: db, keys: keys}
	it, err := db.NewIter(nil)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if it.Last() {
		w.next = binary.BigEndian.Uint64(it.Key()) + 1
	}
	if err := it.Close(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return w, nil
}

// add keeps a text, durably.
func (w *words) add(text string) error {
	if err := w.db.Set(binary.BigEndian.AppendUint64(nil, w.next), []byte(text), pebble.Sync); err != nil {
		return err
	}
	w.next++
	return nil
}

// get returns how often a word came. Without access to the key the error matches
// keyring.ErrInaccessible: also of what is in Pebble's memory, in clear, because it asks first.
func (w *words) get(word string) (n int, err error) {
	if w.keys != nil {
		hold, err := w.keys.Acquire()
		if err != nil {
			return 0, fmt.Errorf("count of %q: %w", word, err)
		}
		defer func() { hold.Release() }()
	}
	it, err := w.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		text, err := it.ValueAndErr()
		if err != nil {
			return 0, err
		}
		for found := range strings.FieldsSeq(string(text)) {
			if found == word {
				n++
			}
		}
	}
	return n, it.Error()
}

func (w *words) close() error { return w.db.Close() }

// search returns how many files in dir have a text in clear.
func search(dir, text string) (found int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return 0, err
		}
		if strings.Contains(string(b), text) {
			found++
		}
	}
	return found, nil
}

// quiet drops what Pebble reports, but not why it ends the process.
type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Errorf(string, ...any)             {}
func (quiet) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
