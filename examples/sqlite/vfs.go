package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/ncruces/go-sqlite3"
	sqlite "github.com/ncruces/go-sqlite3/vfs"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// VFS is a file system of SQLite's whose files are sealed: databases, rollback journals, WAL files and
// temporary files, each under a DEK of its own. Register it under a name, and name that in the URI of a
// database (URI).
//
// A database is open in one process at a time, by any number of connections. That is made sure of by a lock
// on PATH.lock, because a file of pages belongs to one sealfs.FS.
//
// In WAL mode connections share an index of the WAL in memory: numbers and checksums of pages, and nothing of
// what is in them. It lies in a directory of its own, in memory where the system has one for that.
type VFS struct {
	fs    *sealfs.FS
	index string

	mu  sync.Mutex
	dbs map[string]*database // that are open, by path
}

// NewVFS returns one on a file system, which stays the caller's. Close it when all databases are closed.
func NewVFS(f *sealfs.FS) (*VFS, error) {
	in := ""
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		in = "/dev/shm"
	}
	index, err := os.MkdirTemp(in, "sqlite-index-")
	if err != nil {
		return nil, err
	}
	return &VFS{fs: f, index: index, dbs: map[string]*database{}}, nil
}

// Close removes the directory of the indexes.
func (v *VFS) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.dbs) > 0 {
		return fmt.Errorf("%d databases are open", len(v.dbs))
	}
	return os.RemoveAll(v.index)
}

// URI names a database on a VFS, and pragmas such as "journal_mode(wal)".
func URI(vfsName, path string, pragmas ...string) string {
	q := url.Values{"vfs": {vfsName}, "_pragma": pragmas}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String()
}

// pageSize is how many bytes of a database are sealed at once: the size of a page that SQLite has by default,
// so that one is written without reading. Larger pages are several. A page that a crash tore is restored from the
// journal or the WAL, as a plain one is, because it is written over as a whole. With smaller ones, which
// would share one, it could not be: to write a part of it the rest is read, which does not open. So those
// are refused (WriteAt).
const pageSize = 4096

// Open implements vfs.VFS. A journal or a WAL has pages of sealfs.DefaultPageSize, which are 4,096 bytes on
// disk at a multiple of that: a disk that writes those whole, or not at all, tears no page that was synced
// when SQLite appends behind it. On another one a torn page of a journal is an error, and not its end.
func (v *VFS) Open(name string, flags sqlite.OpenFlag) (sqlite.File, sqlite.OpenFlag, error) {
	if name == "" {
		name = filepath.Join(v.temporary(), "sqlite-"+rand.Text())
		flags |= sqlite.OPEN_CREATE | sqlite.OPEN_READWRITE | sqlite.OPEN_DELETEONCLOSE
	}
	f := &file{vfs: v, name: name, flags: flags}
	o := &sealfs.FileOptions{ReadOnly: flags&sqlite.OPEN_READWRITE == 0, MustExist: flags&sqlite.OPEN_CREATE == 0}
	if flags&sqlite.OPEN_EXCLUSIVE != 0 {
		if _, err := v.fs.Stat(name); err == nil {
			return nil, flags, sqlite.SystemError(fs.ErrExist, sqlite3.CANTOPEN)
		}
	}
	if flags&sqlite.OPEN_MAIN_DB != 0 {
		o.PageSize = pageSize
		var err error
		if f.db, err = v.open(name); err != nil {
			return nil, flags, sqlite.SystemError(fmt.Errorf("a process has the database open: %w", err), sqlite3.CANTOPEN)
		}
		f.index = sqlite.NewSharedMemory(v.indexOf(name), flags)
	}
	sealed, err := v.fs.OpenFile(name, o)
	if err != nil {
		return nil, flags, sqlite.SystemError(errors.Join(err, f.release()), sqlite3.CANTOPEN)
	}
	f.File = sealed
	return f, flags, nil
}

// temporary is where temporary files go: beside a database that is open, or where the process is.
func (v *VFS) temporary() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	for name := range v.dbs {
		return filepath.Dir(name)
	}
	return "."
}

func (v *VFS) indexOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(v.index, hex.EncodeToString(sum[:16]))
}

// Delete implements vfs.VFS.
func (v *VFS) Delete(name string, syncDir bool) error {
	err := v.fs.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return sqlite.SystemError(err, sqlite3.IOERR_DELETE_NOENT)
	}
	if err != nil || !syncDir {
		return err
	}
	d, err := v.fs.OpenDir(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Access implements vfs.VFS. It asks what is beneath, for which no key is needed.
func (v *VFS) Access(name string, _ sqlite.AccessFlag) (bool, error) {
	_, err := v.fs.Unwrap().Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// FullPathname implements vfs.VFS: one database has one path, by which its locks are known.
func (v *VFS) FullPathname(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(real, filepath.Base(abs))
	}
	if fi, err := os.Lstat(abs); err == nil && fi.Mode()&os.ModeSymlink != 0 {
		return filepath.EvalSymlinks(abs)
	}
	return abs, nil
}

// file is a File of sealfs as one of SQLite's.
type file struct {
	*sealfs.File
	vfs   *VFS
	name  string
	flags sqlite.OpenFlag
	db    *database           // of a database
	lock  sqlite.LockLevel    // that this handle has
	index sqlite.SharedMemory // of a database in WAL mode

	header   []byte // of a frame of a WAL, which is written with the page that follows
	headerAt int64
	read     span // the last that was
}

type span struct {
	at   int64
	size int
}

// frameHeader is how many bytes a WAL has before each page.
const frameHeader = 24

var _ sqlite.FileSharedMemory = (*file)(nil)

// ReadAt implements vfs.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.writeHeader(); err != nil {
		return 0, failed(err, sqlite3.IOERR_READ)
	}
	f.read = span{off, len(p)}
	n, err := f.File.ReadAt(p, off)
	if err == nil || err == io.EOF {
		return n, err
	}
	if f.db != nil && off == 0 && len(p) == 100 && errors.Is(err, keyring.ErrCorrupt) {
		// SQLite reads the first bytes when it opens, before it looks for a journal, which may have what a crash
		// tore of them. It reads the page again behind a lock; if that is damaged still, it is an error.
		return 0, io.EOF
	}
	return n, failed(err, sqlite3.IOERR_READ)
}

// WriteAt implements vfs.File. SQLite writes whole pages to a database, and the first one has their size.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if f.db != nil {
		size := len(p)
		if off == 0 && size >= 18 {
			size = int(binary.BigEndian.Uint16(p[16:])) // 1 is 65,536; VACUUM writes new small pages as old large ones
		}
		if off%pageSize != 0 || len(p)%pageSize != 0 || size > 1 && size < pageSize {
			return 0, sqlite.SystemError(fmt.Errorf("%s: a sealed database has pages of %d bytes or more, and not of %d: set no smaller page_size: %w",
				f.name, pageSize, size, errors.ErrUnsupported), sqlite3.IOERR_WRITE)
		}
	}
	if len(f.header) > 0 && off == f.headerAt+int64(len(f.header)) {
		f.header = append(f.header, p...)
		n, err := f.File.WriteAt(f.header, f.headerAt)
		clear(f.header)
		f.header = f.header[:0]
		return max(0, n-frameHeader), failed(err, sqlite3.IOERR_WRITE)
	}
	if err := f.writeHeader(); err != nil {
		return 0, failed(err, sqlite3.IOERR_WRITE)
	}
	// Where SQLite has just read the whole frame, it writes a checksum anew, and no page follows.
	again := f.read.at == off && f.read.size > frameHeader
	if f.flags&sqlite.OPEN_WAL != 0 && len(p) == frameHeader && !again {
		f.header, f.headerAt = append(f.header, p...), off
		return len(p), nil
	}
	n, err := f.File.WriteAt(p, off)
	return n, failed(err, sqlite3.IOERR_WRITE)
}

// writeHeader writes the header of a frame that waits for its page, in front of whatever else is done with
// the file. SQLite writes the page next, and until it has no connection reads the frame, because the index of
// the WAL does not have it; a WAL that ends in a header, and one that ends before it, are the same after a crash. So
// that a frame is sealed in two pages, and not in three. A header that is written anew does not wait (WriteAt): it
// would, of a frame that was committed, until another connection has begun the WAL anew, and then overwrite a frame
// of that one.
func (f *file) writeHeader() error {
	if len(f.header) == 0 {
		return nil
	}
	_, err := f.File.WriteAt(f.header, f.headerAt)
	f.header = f.header[:0]
	return err
}

// Size implements vfs.File.
func (f *file) Size() (int64, error) {
	if err := f.writeHeader(); err != nil {
		return 0, failed(err, sqlite3.IOERR_FSTAT)
	}
	n, err := f.File.Size()
	return n, failed(err, sqlite3.IOERR_FSTAT)
}

// Sync implements vfs.File.
func (f *file) Sync(sqlite.SyncFlag) error {
	if err := f.writeHeader(); err != nil {
		return failed(err, sqlite3.IOERR_FSYNC)
	}
	return failed(f.File.Sync(), sqlite3.IOERR_FSYNC)
}

// Truncate implements vfs.File.
func (f *file) Truncate(size int64) error {
	if err := f.writeHeader(); err != nil {
		return failed(err, sqlite3.IOERR_TRUNCATE)
	}
	return failed(f.File.Truncate(size), sqlite3.IOERR_TRUNCATE)
}

// failed is an error for SQLite, which keeps the code, and the cause only until it calls the VFS again:
// IOERR_AUTH is a key that is away, and IOERR_DATA damage.
func failed(err error, code sqlite3.ExtendedErrorCode) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrInaccessible), errors.Is(err, keyring.ErrClosed):
		code = sqlite3.IOERR_AUTH
	case errors.Is(err, keyring.ErrCorrupt):
		code = sqlite3.IOERR_DATA
	}
	return sqlite.SystemError(err, code)
}

// Close implements vfs.File.
func (f *file) Close() error {
	if f.index != nil {
		f.index.Close()
	}
	errs := []error{f.writeHeader(), f.Unlock(sqlite.LOCK_NONE), f.File.Close(), f.release()}
	if f.flags&sqlite.OPEN_DELETEONCLOSE != 0 {
		errs = append(errs, f.vfs.fs.Remove(f.name))
	}
	return errors.Join(errs...)
}

// SharedMemory implements vfs.FileSharedMemory.
func (f *file) SharedMemory() sqlite.SharedMemory { return f.index }

// SectorSize implements vfs.File: what is sealed at once, which a crash tears as a whole.
func (f *file) SectorSize() int { return pageSize }

// DeviceCharacteristics implements vfs.File: nothing is promised of what a crash leaves.
func (f *file) DeviceCharacteristics() sqlite.DeviceCharacteristic { return 0 }
