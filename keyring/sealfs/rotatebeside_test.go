package sealfs_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// slowRename is a file system whose Rename lasts until a directory is listed.
type slowRename struct {
	vfs.FS
	begun, goOn, done chan struct{}
	once              sync.Once
}

func (s *slowRename) Rename(from, to string) error {
	if strings.HasPrefix(from, "b") {
		close(s.begun)
		<-s.goOn
		defer close(s.done)
	}
	return s.FS.Rename(from, to)
}

func (s *slowRename) List(dir string) ([]string, error) {
	if dir == "b" {
		s.once.Do(func() { close(s.goOn); <-s.done })
	}
	return s.FS.List(dir)
}

// A file that is on its way from one directory to another while a rotation lists them is in the one or the
// other when it ends: a rename that had begun before counts, too.
func TestRotationBesideARename(t *testing.T) {
	g := newRig(t, nil)
	s := &slowRename{FS: vfs.NewMem(), begun: make(chan struct{}), goOn: make(chan struct{}), done: make(chan struct{})}
	require.NoError(t, s.MkdirAll("a", 0o755))
	require.NoError(t, s.MkdirAll("b", 0o755))
	fs := g.over(s)
	write(t, fs, "b/000001.sst", content(1, 1000))
	renamed := async(func() error { return fs.Rename("b/000001.sst", "a/000001.sst") })
	<-s.begun
	dropped, err := fs.RotateEpoch(t.Context(), "a", "b")
	require.NoError(t, err)
	require.Equal(t, []uint32{1}, dropped)
	require.NoError(t, <-renamed)
	require.Equal(t, content(1, 1000), mustRead(t, fs, "a/000001.sst"))
}

// slowCreate is a file system in which the first making of a file lasts.
type slowCreate struct {
	vfs.FS
	begun, goOn chan struct{}
	once        sync.Once
}

func (s *slowCreate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if strings.HasSuffix(name, "2.sst") {
		s.once.Do(func() { close(s.begun); <-s.goOn })
	}
	return s.FS.Create(name, c)
}

func (s *slowCreate) List(dir string) ([]string, error) {
	select {
	case <-s.goOn:
	default:
		return nil, errors.New("it was listed while the record of a DEK was on its way")
	}
	return s.FS.List(dir)
}

// A rotation waits for the file of a DEK that was made before it, which nobody holds the keyring for.
func TestRotationBesideTheMakingOfAFile(t *testing.T) {
	g := newRig(t, nil)
	s := &slowCreate{FS: vfs.NewMem(), begun: make(chan struct{}), goOn: make(chan struct{})}
	require.NoError(t, s.MkdirAll("db", 0o755))
	fs := g.over(s)
	created := async(func() error {
		f, err := fs.Create("db/000002.sst", vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		_, err = f.Write(content(2, 100))
		return errors.Join(err, f.Close())
	})
	<-s.begun
	var dropped []uint32
	rotated := async(func() (err error) {
		dropped, err = fs.RotateEpoch(t.Context(), "db")
		return err
	})
	epoch := func() uint32 { return g.ring.State().Epoch }
	require.Eventually(t, func() bool { return epoch() == 2 }, time.Minute, time.Millisecond)
	require.Empty(t, rotated)
	close(s.goOn)
	require.NoError(t, <-created)
	require.NoError(t, <-rotated)
	require.Equal(t, []uint32{1}, dropped)
	require.Equal(t, content(2, 100), mustRead(t, fs, "db/000002.sst"))
}

// A file that was removed while it is open is read and written until it is closed, also after a rotation
// which does not find it any more.
func TestRotationAndOpenRemovedFiles(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	fs := g.over(mem)
	require.NoError(t, fs.MkdirAll("db", 0o755))
	write(t, fs, "db/000001.sst", content(1, 1000))
	table, err := fs.Open("db/000001.sst")
	require.NoError(t, err)
	log, err := fs.Create("db/000002.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = log.Write(content(2, 1000))
	require.NoError(t, err)
	kept := raw(t, mem, "db/000001.sst")
	require.NoError(t, fs.Remove("db/000001.sst"))
	require.NoError(t, fs.Remove("db/000002.log"))
	dropped, err := fs.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
	require.Equal(t, []uint32{1}, dropped)
	g.deny()
	g.allow()
	b := make([]byte, 1000)
	_, err = table.ReadAt(b, 0)
	require.NoError(t, err)
	require.Equal(t, content(1, 1000), b)
	_, err = log.Write(content(3, 1000))
	require.NoError(t, err)
	require.NoError(t, log.Close())
	// Who kept its bytes does not open them, also while the handle is open.
	putRaw(t, mem, "db/000001.sst", kept)
	_, err = read(fs, "db/000001.sst")
	require.True(t, said(err), "%v", err)
	require.NoError(t, table.Close())
}

// An open file whose record opens no more, because another process dropped its epoch, keeps no rotation
// from ending.
func TestRotationAndOpenFilesThatAreLost(t *testing.T) {
	g := newRig(t, nil)
	fs := g.over(vfs.NewMem())
	require.NoError(t, fs.MkdirAll("db", 0o755))
	write(t, fs, "db/000001.sst", content(1, 100))
	write(t, fs, "lost.sst", content(2, 10000)) // of which a handle keeps the last chunk
	lost, err := fs.Open("lost.sst")
	require.NoError(t, err)
	other, err := sealfs.New(fs.Unwrap(), g.ring, nil)
	require.NoError(t, err)
	_, err = other.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
	dropped, err := fs.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
	require.Equal(t, []uint32{2}, dropped)
	g.deny()
	g.allow()
	_, err = lost.ReadAt(make([]byte, 100), 0)
	require.ErrorIs(t, err, keyring.ErrCorrupt)
	require.NoError(t, lost.Close())
	require.Equal(t, content(1, 100), mustRead(t, fs, "db/000001.sst"))
}

// What is no file and no directory is an error, and is not opened, which for a pipe would never end.
func TestRotationAndPipes(t *testing.T) {
	g := newRig(t, nil)
	fs := g.over(vfs.Default)
	dir := t.TempDir()
	write(t, fs, filepath.Join(dir, "000001.sst"), content(1, 100))
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Skip("this system makes no sockets in directories:", err)
	}
	dropped, err := fs.RotateEpoch(t.Context(), dir)
	require.ErrorContains(t, err, "socket is no file and no directory")
	require.Empty(t, dropped)
	require.NoError(t, l.Close())
	_, err = fs.RotateEpoch(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, content(1, 100), mustRead(t, fs, filepath.Join(dir, "000001.sst")))
}

// swapped is a file system in which somebody does something before a file is opened for writing.
type swapped struct {
	vfs.FS
	do func()
}

func (s *swapped) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	s.do()
	return s.FS.OpenReadWrite(name, c, opts...)
}

// A rotation, and a rename, write into the file whose head they have read, and into none that somebody has
// put in its place.
func TestHeadsOfNoOtherFileAreWritten(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	plain := g.over(mem)
	require.NoError(t, plain.MkdirAll("db", 0o755))
	write(t, plain, "db/000001.sst", content(1, 100))
	was := raw(t, mem, "db/000001.sst")
	notes := content(9, 10000)
	fs := g.over(&swapped{mem, func() { putRaw(t, mem, "db/000001.sst", notes) }})
	for _, op := range []func() error{
		func() error { _, err := fs.RotateEpoch(t.Context(), "db"); return err },
		func() error { return fs.Rename("db/000001.sst", "db/000002.sst") },
	} {
		require.ErrorContains(t, op(), "another file was put in its place")
		require.Equal(t, notes, raw(t, mem, "db/000001.sst"))
		putRaw(t, mem, "db/000001.sst", was)
	}
	_, err := plain.RotateEpoch(t.Context(), "db")
	require.NoError(t, err)
	require.Equal(t, content(1, 100), mustRead(t, plain, "db/000001.sst"))
}

// A rotation follows no symbolic link: one is an error, and nothing is destroyed, unless what it leads to
// is gone through anyway.
func TestRotationAndSymbolicLinks(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	path := func(elem ...string) string { return filepath.Join(append([]string{root}, elem...)...) }
	if err := os.Symlink(path(), path("can")); err != nil {
		t.Skip("this system makes no symbolic links:", err)
	}
	require.NoError(t, os.Remove(path("can")))
	for _, c := range []struct {
		name, to, link string
		also           string // a directory that is named too
		refused        bool
	}{
		{"a file elsewhere", "other/000002.sst", "db/000002.sst", "", true},
		{"a directory elsewhere", "other", "db/other", "", true},
		{"a directory with a longer name", "db2", "db/other", "", true},
		{"to nothing", "nowhere", "db/nowhere", "", true},
		{"to itself", "db/loop", "db/loop", "", true},
		{"a file of no keyring", "notes", "db/notes", "", true},
		{"the end of a name that is removed", "notes", "db/notes.sealfs-new", "", true},
		{"a directory that is named", "other", "db/other", "other", false},
		{"a file in one that is named", "other/000002.sst", "db/000002.sst", "other", false},
		{"back up into the same directory", "db", "db/loop", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			fs := g.over(vfs.Default)
			for _, dir := range []string{"db", "db2", "other"} {
				require.NoError(t, os.RemoveAll(path(dir)))
				require.NoError(t, fs.MkdirAll(path(dir), 0o755))
			}
			write(t, fs, path("db", "000001.sst"), content(1, 100))
			write(t, fs, path("other", "000002.sst"), content(2, 100))
			require.NoError(t, os.WriteFile(path("notes"), []byte("what somebody wrote"), 0o600))
			require.NoError(t, os.Symlink(path(c.to), path(c.link)))
			other := raw(t, vfs.Default, path("other", "000002.sst"))
			dirs := []string{path("db")}
			if c.also != "" {
				dirs = append(dirs, path(c.also))
			}
			dropped, err := fs.RotateEpoch(t.Context(), dirs...)
			if !c.refused {
				require.NoError(t, err)
				require.Equal(t, []uint32{1}, dropped)
			} else {
				require.ErrorContains(t, err, "symbolic link")
				require.ErrorContains(t, err, path(c.link))
				require.Empty(t, dropped)
				require.Equal(t, other, raw(t, vfs.Default, path("other", "000002.sst")), "it was written to")
				require.Equal(t, content(2, 100), mustRead(t, fs, path("other", "000002.sst")))
			}
			require.Equal(t, content(1, 100), mustRead(t, fs, path("db", "000001.sst")))
			_, err = os.Lstat(path(c.link))
			require.NoError(t, err)
			notes, err := os.ReadFile(path("notes"))
			require.NoError(t, err)
			require.Equal(t, "what somebody wrote", string(notes))
		})
	}
	// The directory itself may be one: somebody named it.
	g := newRig(t, nil)
	fs := g.over(vfs.Default)
	require.NoError(t, fs.MkdirAll(path("real"), 0o755))
	write(t, fs, path("real", "000001.sst"), content(1, 100))
	require.NoError(t, os.Symlink(path("real"), path("named")))
	_, err = fs.RotateEpoch(t.Context(), path("named"))
	require.NoError(t, err)
	require.Equal(t, content(1, 100), mustRead(t, fs, path("real", "000001.sst")))
}
