package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// metered counts what is read of a file system. With a gcm it does as well the least that any file system
// does which authenticates: of exactly the bytes that are asked for, and written, AES-256-GCM of the standard
// library under a key that is expanded. It has no heads, no keys to look after, no chunks of which a part
// was not asked for, and stores nothing: that is the bound, but for who reads more at once than he is asked for.
type metered struct {
	vfs.FS
	gcm         cipher.AEAD
	reads, size atomic.Int64
	room        sync.Pool // of *[]byte
}

// boundFS is the one with a gcm, on the disk.
func boundFS(tb testing.TB) *metered {
	block, err := aes.NewCipher(random(32))
	if err != nil {
		tb.Fatal(err)
	}
	m := &metered{FS: vfs.Default}
	if m.gcm, err = cipher.NewGCM(block); err != nil {
		tb.Fatal(err)
	}
	return m
}

// authenticate seals p, which takes as long as to open as many bytes. What comes out is dropped, so that
// one nonce does.
func (m *metered) authenticate(p []byte) {
	if m.gcm == nil {
		return
	}
	b, ok := m.room.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	var nonce [12]byte
	*b = m.gcm.Seal((*b)[:0], nonce[:], p, nil)
	m.room.Put(b)
}

// Open implements vfs.FS.
func (m *metered) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := m.FS.Open(name, opts...)
	return m.file(f, err)
}

// Create implements vfs.FS.
func (m *metered) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.FS.Create(name, category)
	return m.file(f, err)
}

// ReuseForWrite implements vfs.FS.
func (m *metered) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.FS.ReuseForWrite(oldname, newname, category)
	return m.file(f, err)
}

func (m *metered) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &meteredFile{f, m}, nil
}

type meteredFile struct {
	vfs.File
	m *metered
}

// ReadAt implements vfs.File.
func (f *meteredFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.m.reads.Add(1)
	f.m.size.Add(int64(n))
	f.m.authenticate(p[:n])
	return n, err
}

// Write implements vfs.File.
func (f *meteredFile) Write(p []byte) (int, error) {
	f.m.authenticate(p)
	return f.File.Write(p)
}
