package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Storage keeps one keyring document. The document needs no secrecy and no
// integrity from its storage, but what Save returned from must survive a crash,
// and a Save that did not return must leave the old document or the new one.
// A keyring calls one method at a time.
type Storage interface {
	// Load returns the document, or an error that matches [ErrNoDocument]. What it
	// returned must survive a crash too, if there is an [Anchor]: it may be of a Save
	// that did not return, and the anchor is advanced to it.
	Load(ctx context.Context) ([]byte, error)
	// Save replaces the document, durably and atomically. It keeps no reference
	// to it.
	Save(ctx context.Context, document []byte) error
}

// TaggingStorage is a Storage that keeps more than the document, for a database on top
// that must not believe what it finds beside it: SaveTagged is called in the place of Save,
// with what the document is, whose Tag can be used until SaveTagged returns. What is saved with
// each document, names its generation and is tagged, nobody can put back alone.
type TaggingStorage interface {
	Storage
	SaveTagged(ctx context.Context, document []byte, is Opened) error
}

// save gives the storage a document with the body b.
func (r *Keyring) save(ctx context.Context, document []byte, b *body) error {
	if t, ok := r.storage.(TaggingStorage); ok {
		h, _, _, err := splitDocument(document)
		if err != nil {
			return err
		}
		return t.SaveTagged(ctx, document, Opened{Tag: b.tag, Generation: h.generation, Instance: b.instance})
	}
	return r.storage.Save(ctx, document)
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
	if err != nil {
		return nil, err
	}
	// A process that was killed in Save may have renamed the file and not synced that.
	if err := syncDir(filepath.Dir(string(f))); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	return b, nil
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
