//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package keyring

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is no file of its own is neither read nor replaced, whoever put it there; and nobody
// waits for it while they have the lock.
func TestFileStorageRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, path, other string)
		says string
	}{
		"a symbolic link": {func(t *testing.T, path, other string) { require.NoError(t, os.Symlink(other, path)) }, "it is a link"},
		"a link to nothing": {func(t *testing.T, path, other string) {
			require.NoError(t, os.Symlink(other+".missing", path))
		}, "it is a link"},
		"a hard link": {func(t *testing.T, path, other string) { require.NoError(t, os.Link(other, path)) }, "it has 2 names"},
		"a pipe":      {func(t *testing.T, path, _ string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) }, "not a regular file"},
		"a directory": {func(t *testing.T, path, _ string) { require.NoError(t, os.Mkdir(path, 0o700)) }, "not a regular file"},
		"what does not end": {func(t *testing.T, path, _ string) {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			require.NoError(t, os.Truncate(path, 1<<40))
		}, "more than 2097152 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, other := filepath.Join(dir, "keyring"), filepath.Join(dir, "other")
			was, err := FileStorage(other).Swap(t.Context(), "", []byte("document"))
			require.NoError(t, err)
			c.make(t, path, other)
			_, _, err = FileStorage(path).Load(t.Context())
			require.ErrorContains(t, err, c.says)
			require.NotErrorIs(t, err, ErrNoDocument)
			for _, revision := range []Revision{"", was} {
				_, err = FileStorage(path).Swap(t.Context(), revision, []byte("another"))
				require.ErrorContains(t, err, c.says)
				require.NotErrorIs(t, err, ErrConflict)
			}
			// It was not touched, and when it is gone all is well.
			require.NoError(t, os.Remove(path))
			got, at, err := FileStorage(other).Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, "document", string(got))
			require.Equal(t, was, at)
		})
	}
}

// A lock whose file was removed keeps nobody out, and knows that.
func TestLockWhoseFileIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := lockFile(t.Context(), path)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.still())
	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, l.still(), errGone)
	next, err := lockFile(t.Context(), path)
	require.NoError(t, err)
	defer next.Close()
	require.NoError(t, next.still())
	require.ErrorIs(t, l.still(), errGone)

	link := filepath.Join(t.TempDir(), "lock")
	require.NoError(t, os.Symlink(path+".target", link))
	_, err = lockFile(t.Context(), link)
	require.ErrorContains(t, err, "no lock")
	require.NoFileExists(t, path+".target", "nor is what the link names made")
}

// What is opened is what was looked at: a link or a pipe that comes in the file's place in between is
// not followed, and nobody waits for it.
func TestOnlyAFileIsOpened(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("document"), 0o600))
	f, err := openFile(file)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	for name, put := range map[string]func(path string) error{
		"link":      func(path string) error { return os.Symlink(file, path) },
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"nothing":   func(path string) error { return nil },
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, put(path))
		_, err := openFile(path)
		require.Error(t, err, name)
		require.Equal(t, name == "nothing", errors.Is(err, fs.ErrNotExist), name)
	}
}
