package sealfs

import (
	"bytes"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// pageReads counts the reads of pages beneath, and fails the next write if it is told to.
type pageReads struct {
	vfs.FS
	reads int
	fail  bool
}

type pageReadsFile struct {
	vfs.File
	on *pageReads
}

var errNoWrite = errors.New("no write")

func (r *pageReads) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := r.FS.Open(name, opts...)
	return &pageReadsFile{f, r}, err
}

func (r *pageReads) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := r.FS.OpenReadWrite(name, c, opts...)
	return &pageReadsFile{f, r}, err
}

func (f *pageReadsFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= headSize {
		f.on.reads++
	}
	return f.File.ReadAt(p, off)
}

func (f *pageReadsFile) WriteAt(p []byte, off int64) (int, error) {
	if off >= headSize && f.on.fail {
		f.on.fail = false
		// What a disk does that failed in the middle.
		n, err := f.File.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, errNoWrite)
	}
	return f.File.WriteAt(p, off)
}

type keptRig struct {
	*testing.T
	vault *vaulttest.Vault
	key   vault.KeyID
	ring  *keyring.Keyring
	under *pageReads
	fs    *FS
}

func newKeptRig(t *testing.T) *keptRig {
	v := vaulttest.New(nil)
	id := v.CreateKey("operator")
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, id.Versionless()), nil)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	under := &pageReads{FS: vfs.NewMem()}
	fs, err := New(under, r, nil)
	require.NoError(t, err)
	return &keptRig{t, v, id, r, under, fs}
}

func (g *keptRig) open(name string) *File {
	f, err := g.fs.OpenFile(name, &FileOptions{PageSize: 64})
	require.NoError(g, err)
	return f
}

// reads is how often pages were read in op.
func (g *keptRig) readsOf(op func()) int {
	was := g.under.reads
	op()
	return g.under.reads - was
}

func (g *keptRig) write(f *File, at int64, b string) {
	n, err := f.WriteAt([]byte(b), at)
	require.NoError(g, err)
	require.Equal(g, len(b), n)
}

func (g *keptRig) requireContent(want string, f *File) {
	got := make([]byte, len(want)+1)
	n, _ := f.ReadAt(got, 0)
	require.Equal(g, want, string(got[:n]))
}

// A file that is appended to in pieces of any size is not read for it, whichever handle appends; what goes on
// elsewhere is, once a page.
func TestAppendsReadNothing(t *testing.T) {
	g := newKeptRig(t)
	f, again := g.open("f"), g.open("f")
	var want []byte
	require.Zero(t, g.readsOf(func() {
		for i := range 100 {
			piece := bytes.Repeat([]byte{byte('a' + i%26)}, 1+i*7%150)
			if i%2 == 0 {
				f, again = again, f
			}
			g.write(f, int64(len(want)), string(piece))
			want = append(want, piece...)
		}
	}))
	g.requireContent(string(want), f)
	require.Equal(t, 1, g.readsOf(func() { g.write(f, 70, "x") }), "in the middle of a page")
	want[70] = 'x'
	require.Zero(t, g.readsOf(func() { g.write(f, 71, "y") }), "where the last one ended")
	want[71] = 'y'
	require.Equal(t, 2, g.readsOf(func() { g.write(f, 10, string(bytes.Repeat([]byte("z"), 200))) }), "its first and its last page")
	copy(want[10:], bytes.Repeat([]byte("z"), 200))
	g.requireContent(string(want), again)
	require.NoError(t, again.Close())
	require.NoError(t, f.Close())
	f = g.open("f")
	g.requireContent(string(want), f)
}

// What is kept is as on disk: after a write that failed, or that made the file shorter, it is not used.
func TestKeptPageIsAsOnDisk(t *testing.T) {
	g := newKeptRig(t)
	f := g.open("f")
	g.write(f, 0, "0123456789")
	require.NotNil(t, f.shared.key.kept.of)
	g.under.fail = true
	_, err := f.WriteAt([]byte("failed"), 4)
	require.ErrorIs(t, err, errNoWrite)
	require.Nil(t, f.shared.key.kept.of)
	// The page was torn by the disk, which the next write of a part of it has to find.
	_, err = f.WriteAt([]byte("b"), 1)
	require.ErrorIs(t, err, keyring.ErrCorrupt)

	f = g.open("shorter")
	g.write(f, 0, "0123456789")
	require.NoError(t, f.Truncate(4))
	require.Nil(t, f.shared.key.kept.of)
	g.write(f, 8, "89")
	g.requireContent("0123\x00\x00\x00\x0089", f)

	// A page in the middle that is written as a whole, by pages, is not the one that was kept.
	f = g.open("over")
	g.write(f, 0, "abc")
	g.write(f, 0, string(bytes.Repeat([]byte("w"), 64)))
	require.Equal(t, 1, g.readsOf(func() { g.write(f, 1, "x") }))
	g.requireContent("wx"+string(bytes.Repeat([]byte("w"), 62)), f)
}

// A copy of a file has its key, and other content from the first write on: neither has the other's page.
func TestKeptPageOfACopy(t *testing.T) {
	g := newKeptRig(t)
	f := g.open("f")
	g.write(f, 0, "original")
	require.NoError(t, f.Sync())
	require.NoError(t, g.under.MkdirAll("copy", 0o700))
	require.NoError(t, vfs.Copy(g.under.FS, "f", "copy/f"))
	other := g.open("copy/f")
	require.Same(t, f.shared.key, other.shared.key)
	require.NotSame(t, f.shared, other.shared)
	g.write(other, 0, "C")
	g.write(f, 8, "!")
	g.write(other, 8, "?")
	g.requireContent("original!", f)
	g.requireContent("Criginal?", other)
}

// The content that is kept is forgotten with the key, which is the end of access, and when a handle is closed.
func TestKeptPageIsForgotten(t *testing.T) {
	g := newKeptRig(t)
	f, other := g.open("f"), g.open("f")
	g.write(f, 0, "content")
	k := f.shared.key
	require.Equal(t, "content", string(k.kept.content[:7]))
	g.vault.SetEnabled(g.key, false)
	require.Error(t, g.ring.Revalidate(t.Context()))
	_, err := f.WriteAt([]byte("more"), 7)
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	g.fs.forgetKeys()
	require.True(t, zero(k.kept.content))
	require.Nil(t, k.kept.of)
	g.vault.SetEnabled(g.key, true)
	require.NoError(t, g.ring.Revalidate(t.Context()))
	require.Positive(t, g.readsOf(func() { g.write(f, 7, "more") }))
	require.Equal(t, "contentmore", string(k.kept.content[:11]))
	require.NoError(t, f.Close())
	require.True(t, zero(k.kept.content))
	g.requireContent("contentmore", other)
	require.NoError(t, other.Close())
}
