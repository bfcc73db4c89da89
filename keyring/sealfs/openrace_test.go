package sealfs_test

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring/sealfs"
)

// between calls a function behind the first Open of a name.
type between struct {
	vfs.FS
	name string
	do   func()
}

func (s *between) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.Open(name, opts...)
	if name == s.name && s.do != nil && err == nil {
		do := s.do
		s.do = nil
		do()
	}
	return f, err
}

// A file of pages that gets another's place while that one is being opened is written as what it is: with
// its own key, content and size.
func TestOpenBesideARename(t *testing.T) {
	g := newRig(t, nil)
	s := &between{FS: vfs.NewMem(), name: "f"}
	fs := g.over(s)
	for name, b := range map[string][]byte{"f": content(1, 10000), "new": content(2, 20000)} {
		writePages(t, fs, name, sealfs.DefaultPageSize, b)
	}
	s.do = func() { require.NoError(t, fs.Rename("new", "f")) }
	f, err := fs.OpenFile("f", nil)
	require.NoError(t, err)
	require.EqualValues(t, 20000, size(t, f))
	_, err = f.WriteAt(content(3, 8104), 0)
	require.NoError(t, err)
	_, err = f.WriteAt(content(3, 1000), 20000)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	got, err := readPages(g.over(s.FS), "f")
	require.NoError(t, err)
	require.Equal(t, string(content(3, 8104))+string(content(2, 20000)[8104:])+string(content(3, 1000)), string(got))
}

// A file that gets so many other names while it is being opened that its head has the first one no more is
// not there, and not damaged.
func TestOpenBesideManyRenames(t *testing.T) {
	g := newRig(t, nil)
	s := &between{FS: vfs.NewMem(), name: "0.log"}
	fs := g.over(s)
	write(t, fs, "0.log", content(1, 1000))
	s.do = func() {
		for i := range 20 {
			require.NoError(t, fs.Rename(fmt.Sprintf("%d.log", i), fmt.Sprintf("%d.log", i+1)))
		}
	}
	_, err := fs.Open("0.log")
	require.ErrorIs(t, err, iofsNotExist)
	require.Equal(t, content(1, 1000), mustRead(t, fs, "20.log"))
}

// A file that is removed while it is being opened is made anew, or is not there, and nothing is left of it.
func TestOpenBesideARemoval(t *testing.T) {
	g := newRig(t, nil)
	s := &between{FS: vfs.NewMem(), name: "f"}
	fs := g.over(s)
	for _, must := range []bool{true, false} {
		writePages(t, fs, "f", 64, content(1, 1000))
		s.do = func() { require.NoError(t, fs.Remove("f")) }
		f, err := fs.OpenFile("f", &sealfs.FileOptions{MustExist: must})
		if must {
			require.ErrorIs(t, err, iofsNotExist)
			names, err := s.FS.List("")
			require.NoError(t, err)
			require.Empty(t, names)
			continue
		}
		require.NoError(t, err)
		require.Zero(t, size(t, f))
		require.NoError(t, f.Close())
	}
}

// A table opens while a rotation puts a copy in its place, because its head was full, and destroys the
// epochs that its records named.
func TestOpenBesideARotationThatCopies(t *testing.T) {
	g := newRig(t, nil)
	s := &between{FS: vfs.NewMem(), name: "db/000001.sst"}
	require.NoError(t, s.MkdirAll("db", 0o755))
	fs := g.over(s)
	write(t, fs, "db/000001.sst", content(1, 1000))
	rotate := func() {
		_, err := fs.RotateEpoch(t.Context(), "db")
		require.NoError(t, err)
	}
	for range 7 {
		rotate()
	}
	s.do = rotate
	require.Equal(t, content(1, 1000), mustRead(t, fs, "db/000001.sst"))
	for range 20 { // with room and without
		s.do = rotate
		f, err := fs.Open("db/000001.sst")
		require.NoError(t, err)
		rotate()
		g.deny() // the key is opened again by the record that the file has now
		g.allow()
		b := make([]byte, 1000)
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
		require.Equal(t, content(1, 1000), b)
		require.NoError(t, f.Close())
	}
}
