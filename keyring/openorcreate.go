package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/kek"
)

// CreatingStorage is a Storage that knows the first document from the ones after it, so that
// of several who find none only one makes one. [FileStorage] returns one. [MemStorage] is none,
// because who embeds one to keep the document elsewhere has a Save of their own, and no Create.
type CreatingStorage interface {
	Storage
	// Create is Save if there is no document. If there is one it leaves that as it is, and
	// returns an error that matches [ErrExists].
	Create(ctx context.Context, document []byte) error
}

// OpenOrCreate is [Open], or [Create] if s has no document: the one call for the first start
// of a program and for every other. Options and errors are those of the two; a document that
// there is but does not open is an error, and nothing is made over it.
//
// Of any number of processes that call it at once on a [CreatingStorage], one makes the
// document and all open that one, so that no DEK is wrapped by a keyring that is gone the next
// moment. On another Storage the last document would take the place of the others, with what
// was wrapped until then: keep two processes out by a lock of your own, as a database has one,
// around OpenOrCreate. For as long as a keyring is open, that is needed with every Storage.
func OpenOrCreate(ctx context.Context, s Storage, k *kek.KEK, opts *Options) (*Keyring, error) {
	r, err := Open(ctx, s, k, opts)
	if !errors.Is(err, ErrNoDocument) || opts != nil && opts.ReadOnly {
		return r, err
	}
	first := s
	if c, ok := s.(CreatingStorage); ok {
		if _, tags := s.(TaggingStorage); !tags { // a database's own, which has a lock
			first = &firstSave{CreatingStorage: c}
		}
	}
	r, createErr := Create(ctx, first, k, opts)
	if !errors.Is(createErr, ErrExists) && !errors.Is(createErr, ErrUnexpected) {
		return r, createErr
	}
	// Somebody else has made it since, and may have told the anchor, too.
	r, err = Open(ctx, s, k, opts)
	if errors.Is(err, ErrNoDocument) {
		return nil, createErr
	}
	return r, err
}

// firstSave is a storage whose first Save replaces nothing. A keyring calls one method at a
// time.
type firstSave struct {
	CreatingStorage
	done bool
}

func (f *firstSave) Save(ctx context.Context, document []byte) error {
	if f.done {
		return f.CreatingStorage.Save(ctx, document)
	}
	err := f.Create(ctx, document)
	f.done = err == nil
	return err
}

// Create implements [CreatingStorage]: a link to a new file is made only where there is no
// name, and the file is whole before. A file system without links has none to make, which is
// an error.
func (f fileStorage) Create(_ context.Context, document []byte) (err error) {
	dir, base := filepath.Split(string(f))
	if dir == "" {
		dir = "."
	}
	tmp, err := os.CreateTemp(dir, base+".new-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(document)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	switch err := os.Link(tmp.Name(), string(f)); {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("keyring: %s: %w", string(f), ErrExists)
	case err != nil:
		return fmt.Errorf("make the first keyring document without replacing one (where there are no links, Create does it under a lock of the program's): %w", err)
	}
	return syncDir(dir)
}
