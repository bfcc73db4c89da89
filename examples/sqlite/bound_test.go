package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"sync"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
	sqlite "github.com/ncruces/go-sqlite3/vfs"
)

// bound is the module's VFS on plain files, and does besides the least that any VFS does which
// authenticates what it gives out: of exactly the bytes that SQLite reads and writes, AES-256-GCM of the
// standard library under a key that is expanded. What comes out is dropped.
type bound struct {
	sqlite.VFS
	gcm  cipher.AEAD
	room sync.Pool // of *[]byte
}

func newBound() (*bound, error) {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	return &bound{VFS: sqlite.Find(""), gcm: gcm}, err
}

// authenticate seals p, which takes as long as to open as many bytes.
func (v *bound) authenticate(p []byte) {
	b, ok := v.room.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	var nonce [12]byte
	*b = v.gcm.Seal((*b)[:0], nonce[:], p, nil)
	v.room.Put(b)
}

// OpenFilename implements vfs.VFSFilename, which is what is called of the VFS beneath too.
func (v *bound) OpenFilename(name *sqlite.Filename, flags sqlite.OpenFlag) (sqlite.File, sqlite.OpenFlag, error) {
	f, flags, err := vfsutil.WrapOpenFilename(v.VFS, name, flags)
	if err != nil {
		return nil, flags, err
	}
	return &boundFile{f, v}, flags, nil
}

type boundFile struct {
	sqlite.File
	v *bound
}

func (f *boundFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.v.authenticate(p[:n])
	return n, err
}

func (f *boundFile) WriteAt(p []byte, off int64) (int, error) {
	f.v.authenticate(p)
	return f.File.WriteAt(p, off)
}

// What a file may offer besides, so that SQLite does what it does on plain files.

func (f *boundFile) SharedMemory() sqlite.SharedMemory { return vfsutil.WrapSharedMemory(f.File) }
func (f *boundFile) LockState() sqlite.LockLevel       { return vfsutil.WrapLockState(f.File) }
func (f *boundFile) PersistWAL() bool                  { return vfsutil.WrapPersistWAL(f.File) }
func (f *boundFile) SetPersistWAL(keep bool)           { vfsutil.WrapSetPersistWAL(f.File, keep) }
func (f *boundFile) PowersafeOverwrite() bool          { return vfsutil.WrapPowersafeOverwrite(f.File) }
func (f *boundFile) SetPowersafeOverwrite(is bool)     { vfsutil.WrapSetPowersafeOverwrite(f.File, is) }
func (f *boundFile) ChunkSize(size int)                { vfsutil.WrapChunkSize(f.File, size) }
func (f *boundFile) SizeHint(size int64) error         { return vfsutil.WrapSizeHint(f.File, size) }
func (f *boundFile) HasMoved() (bool, error)           { return vfsutil.WrapHasMoved(f.File) }
func (f *boundFile) Overwrite() error                  { return vfsutil.WrapOverwrite(f.File) }
func (f *boundFile) SyncSuper(name string) error       { return vfsutil.WrapSyncSuper(f.File, name) }
func (f *boundFile) CommitPhaseTwo() error             { return vfsutil.WrapCommitPhaseTwo(f.File) }
func (f *boundFile) BusyHandler(busy func() bool)      { vfsutil.WrapBusyHandler(f.File, busy) }
