package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// Storage keeps one keyring document. The document needs no secrecy and no
// integrity from its storage, but what Save returned from must survive a crash,
// and a Save that did not return must leave the old document or the new one.
// A keyring calls one method at a time.
type Storage interface {
	// Load returns the document, or an error that matches [ErrNoDocument].
	Load(ctx context.Context) ([]byte, error)
	// Save replaces the document, durably and atomically. It keeps no reference
	// to it.
	Save(ctx context.Context, document []byte) error
}

// FileStorage returns a Storage in one file. Save writes a new file beside it,
// syncs it, renames it over the old and syncs the directory. It does not lock
// the file: two keyrings must not share it.
func FileStorage(path string) Storage { return fileStorage(path) }

type fileStorage string

func (f fileStorage) Load(context.Context) ([]byte, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keyring: %s: %w", string(f), ErrNoDocument)
	}
	return b, err
}

func (f fileStorage) Save(_ context.Context, document []byte) (err error) {
	dir, base := filepath.Split(string(f))
	if dir == "" {
		dir = "."
	}
	tmp, err := os.CreateTemp(dir, base+".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(document); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), string(f)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // which does not let a directory be synced; its file systems keep a journal
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MemStorage is a Storage in memory, for tests and for programs that keep the
// document with their own metadata. The zero value is empty. It is safe for
// concurrent use.
type MemStorage struct {
	mu       sync.Mutex
	document []byte
}

// Load implements [Storage].
func (m *MemStorage) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.document == nil {
		return nil, fmt.Errorf("keyring: %w", ErrNoDocument)
	}
	return bytes.Clone(m.document), nil
}

// Save implements [Storage].
func (m *MemStorage) Save(_ context.Context, document []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.document = bytes.Clone(document)
	return nil
}
