package place

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// FilesDocument is the name of the keyring document of a directory whose engine's files are sealed. It
// lies beside them, in clear as every document; a directory without it has files that are not sealed.
const FilesDocument = "BLOCKSEAL.keyring"

// ErrFileKEK is exported by package block.
var ErrFileKEK = errors.New("the KEK of the engine's files (DBOptions.FileKEK)")

// SealFiles says, before Read, that the engine's files are sealed: everything but the identity file, the
// document and LOCK.
func (p *Place) SealFiles() { p.sealed = true }

// SetFiles sets the file system of the engine's files, where they are sealed.
func (p *Place) SetFiles(files vfs.FS) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = files
}

func (p *Place) engineFS() vfs.FS {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files == nil {
		return p.fs
	}
	return p.files
}

// Beneath is the file system that the files are sealed in: the directory's own, in whose lists there is
// nothing but the engine's files, so that who goes through all sealed files meets no others.
func (p *Place) Beneath() vfs.FS { return engineFiles{p.fs} }

type engineFiles struct{ vfs.FS }

// List implements [vfs.FS].
func (f engineFiles) List(dir string) ([]string, error) {
	names, err := f.FS.List(dir)
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, identityName) }), err
}

// Unwrap implements [vfs.FS].
func (f engineFiles) Unwrap() vfs.FS { return f.FS }

// checkSealed compares what there is in the directory with SealFiles.
func (p *Place) checkSealed(id identity) error {
	names, err := p.fs.List(p.dir)
	if err != nil {
		return err
	}
	sealed, begun := slices.Contains(names, FilesDocument), id.engine.Phase != pebble.Creating
	for _, n := range names {
		begun = begun || strings.HasPrefix(n, "MANIFEST-") // Pebble makes it first
	}
	switch {
	case sealed && !p.sealed:
		return fmt.Errorf("%w: it is not set, and the files are sealed: open the directory with their KEK; or unseal them first, with blockseal's operator: files unseal; nothing was changed", ErrFileKEK)
	case !sealed && p.sealed && begun:
		return fmt.Errorf("%w: it is set, and there is no %s: if the files are not sealed, seal them first, with blockseal's operator: files seal; if they are, put that file back from a checkpoint, without which nothing opens them; nothing was changed", ErrFileKEK, FilesDocument)
	}
	return nil
}

// syncLogs makes durable how sealed logs end, before they are listed: the frame that says so is written
// when they are closed, after the engine has synced them.
func (p *Place) syncLogs(dir string) error {
	if !p.sealed {
		return nil
	}
	names, err := p.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if sealfs.PebbleLayout(name) != sealfs.Log {
			continue
		}
		f, err := p.fs.OpenReadWrite(p.fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// FilesStorage has the keyring document of the engine's files. Until Attach it is in memory, so that a
// vault that refuses leaves nothing behind. The lock of the directory keeps out others who write it; so
// that nobody has a lock for the document alone. It is safe for concurrent use.
type FilesStorage struct {
	fs  vfs.FS
	dir string

	mu      sync.Mutex // held while it reads or writes
	pending bool       // Attach was not called
	memory  []byte
	unsure  bool // a name may not be durable
}

// FilesStorage returns the storage of the document; pending says that there is none yet.
func (p *Place) FilesStorage(pending bool) *FilesStorage {
	return &FilesStorage{fs: p.fs, dir: p.dir, pending: pending, unsure: true}
}

// Load implements [keyring.Storage].
func (s *FilesStorage) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.read()
	if err != nil {
		return nil, "", fmt.Errorf("block: %w", err)
	}
	return b, keyring.ContentRevision(b), nil
}

// maxFilesDocument is more than a keyring document has.
const maxFilesDocument = 4 << 20

func (s *FilesStorage) read() ([]byte, error) {
	if s.pending {
		if s.memory == nil {
			return nil, keyring.ErrNoDocument
		}
		return bytes.Clone(s.memory), nil
	}
	path := s.fs.PathJoin(s.dir, FilesDocument)
	f, err := s.fs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, keyring.ErrNoDocument)
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFilesDocument+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(b) > maxFilesDocument {
		return nil, fmt.Errorf("%s has more than %d bytes: %w", path, maxFilesDocument, keyring.ErrCorrupt)
	}
	// What is returned survives a crash. A process that was killed may have renamed it and not synced that.
	if s.unsure {
		if err := syncDir(s.fs, s.dir); err != nil && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
		s.unsure = false
	}
	return b, nil
}

// Swap implements [keyring.Storage].
func (s *FilesStorage) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := keyring.Revision("")
	switch b, err := s.read(); {
	case err == nil:
		now = keyring.ContentRevision(b)
	case !errors.Is(err, keyring.ErrNoDocument):
		return "", fmt.Errorf("block: %w", err)
	}
	if now != was {
		return "", fmt.Errorf("block: %s: %w", FilesDocument, keyring.ErrConflict)
	}
	if s.pending {
		s.memory = bytes.Clone(document)
	} else if err := s.write(s.dir, document); err != nil {
		return "", fmt.Errorf("block: %w", err)
	}
	return keyring.ContentRevision(document), nil
}

// write replaces the document in a directory, durably.
func (s *FilesStorage) write(dir string, document []byte) error {
	path := s.fs.PathJoin(dir, FilesDocument)
	f, err := s.fs.Create(path+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(document)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	s.unsure = true
	if err := s.fs.Rename(path+".new", path); err != nil {
		return err
	}
	if err := syncDir(s.fs, dir); err != nil {
		return err
	}
	s.unsure = false
	return nil
}

// Attach writes the document that waits in memory, of a directory that is being made.
func (s *FilesStorage) Attach() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write(s.dir, s.memory); err != nil {
		return fmt.Errorf("block: %w", err)
	}
	s.pending, s.memory = false, nil
	return nil
}

// CopyTo writes the document into a copy of the directory, which is not whole yet.
func (s *FilesStorage) CopyTo(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := s.read()
	if err == nil {
		err = s.write(dir, b)
	}
	return err
}
