package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

const (
	otherDir  = "BLOCKSEAL_LOCK_DIR"
	otherKind = "BLOCKSEAL_LOCK_KIND"
)

// TestOtherProcess is the second process of the tests here.
func TestOtherProcess(t *testing.T) {
	dir := os.Getenv(otherDir)
	if dir == "" {
		return
	}
	fmt.Println("answer:", answerOf(os.Getenv(otherKind), dir))
}

// answerOf takes a lock, releases it, and says how it went.
func answerOf(kind, dir string) string {
	l, err := takeLock(kind, dir)
	if err == nil {
		err = l.Close()
	}
	if errors.Is(err, ErrLocked) {
		return "locked"
	}
	return fmt.Sprint(err)
}

func takeLock(kind, dir string) (io.Closer, error) {
	switch kind {
	case "pebble": // what a tool takes that opens a directory with Pebble itself
		l, err := vfs.Default.Lock(filepath.Join(dir, "LOCK"))
		if isHeld(err) {
			err = ErrLocked
		}
		return l, err
	}
	return LockDir(dir, vfs.Default, kind == "reader")
}

func inOtherProcess(t *testing.T, kind, dir string) string {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestOtherProcess$", "-test.v")
	c.Env = append(os.Environ(), otherDir+"="+dir, otherKind+"="+kind)
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	_, answer, found := strings.Cut(string(out), "answer: ")
	require.True(t, found, string(out))
	answer, _, _ = strings.Cut(answer, "\n")
	return answer
}

// Who goes beside whom, in this process and in another one.
func TestLockDir(t *testing.T) {
	const yes, no = "<nil>", "locked"
	for _, c := range []struct{ has, wants, answer string }{
		{"writer", "writer", no}, {"writer", "reader", no}, {"writer", "pebble", no},
		{"reader", "writer", no}, {"reader", "reader", yes}, {"reader", "pebble", no},
		{"pebble", "writer", no}, {"pebble", "reader", no},
	} {
		t.Run(c.wants+" beside "+c.has, func(t *testing.T) {
			dir := t.TempDir()
			l, err := takeLock(c.has, dir)
			require.NoError(t, err)
			require.Equal(t, c.answer, inOtherProcess(t, c.wants, dir))
			require.Equal(t, c.answer, answerOf(c.wants, dir))
			if c.has == "writer" && c.wants == "reader" { // Pebble's own was gone with the first descriptor
				_, err := LockDir(dir, vfs.Default, true)
				require.ErrorContains(t, err, "somebody else holds it, to write")
			}
			require.NoError(t, l.Close())
			require.Equal(t, yes, inOtherProcess(t, c.wants, dir))
			require.Equal(t, yes, answerOf(c.wants, dir))
		})
	}
}

// What else the process does with the file leaves the lock where it is.
func TestLockBelongsToItsFile(t *testing.T) {
	dir := t.TempDir()
	l, err := LockDir(dir, vfs.Default, false)
	require.NoError(t, err)
	for _, kind := range []string{"writer", "reader"} {
		_, err := os.ReadFile(filepath.Join(dir, "LOCK"))
		require.NoError(t, err)
		require.Equal(t, "locked", answerOf(kind, dir))
		require.Equal(t, "locked", answerOf(kind, dir+"/."))
		require.Equal(t, "locked", inOtherProcess(t, kind, dir))
	}
	require.NoError(t, l.Close())
}

// The file is the same one, with what is in it, whoever opens it and however it goes.
func TestLockLeavesItsFileAlone(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "LOCK")
	require.NoError(t, os.WriteFile(name, []byte("a note"), 0o600))
	before, err := os.Stat(name)
	require.NoError(t, err)
	for _, shared := range []bool{false, true} {
		l, err := LockDir(dir, vfs.Default, shared)
		require.NoError(t, err)
		_, err = LockDir(dir, vfs.Default, false)
		require.ErrorIs(t, err, ErrLocked)
		require.NoError(t, l.Close())
	}
	after, err := os.Stat(name)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after))
	require.Equal(t, before.ModTime(), after.ModTime())
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "a note", string(b))
}

// embedding is a wrapper as one writes it: with the methods of what it wraps, Unwrap too.
type embedding struct {
	vfs.FS
	failLock, failOpen error
	locks              *int
}

func (e embedding) Lock(name string) (io.Closer, error) {
	if e.locks != nil {
		*e.locks++
	}
	if e.failLock != nil {
		return nil, e.failLock
	}
	return e.FS.Lock(name)
}

func (e embedding) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if e.failOpen != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: e.failOpen}
	}
	return e.FS.OpenReadWrite(name, c, o...)
}

// hiding keeps the descriptors of its files to itself.
type hiding struct{ vfs.FS }

type hidden struct{ vfs.File }

func (hidden) Fd() uintptr { return vfs.InvalidFd }

func (h hiding) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := h.FS.Open(name, o...)
	return hidden{f}, err
}

func (h hiding) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := h.FS.OpenReadWrite(name, c, o...)
	return hidden{f}, err
}

// elsewhere has its files beneath a directory that is not in their names, and locks of
// its own.
type elsewhere struct {
	vfs.FS
	root  string
	locks vfs.FS
}

func (e elsewhere) Stat(name string) (vfs.FileInfo, error) { return e.FS.Stat(e.root + name) }
func (e elsewhere) Lock(name string) (io.Closer, error)    { return e.locks.Lock("LOCK") }
func (e elsewhere) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return e.FS.OpenReadWrite(e.root+name, c, o...)
}

// The lock is the same one through every file system that has its files on the operating
// system's.
func TestLockThroughWrappers(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "store")
	require.NoError(t, os.Mkdir(dir, 0o700))
	never := errorfs.InjectorFunc(func(errorfs.Op) error { return nil })
	type access struct {
		fs  vfs.FS
		dir string
	}
	ways := map[string]access{
		"plain":              {vfs.Default, dir},
		"errorfs":            {errorfs.Wrap(vfs.Default, never), dir},
		"embedding":          {embedding{FS: vfs.Default}, dir},
		"twice":              {embedding{FS: errorfs.Wrap(vfs.Default, never)}, dir},
		"without descriptor": {hiding{vfs.Default}, dir},
		"both":               {hiding{embedding{FS: vfs.Default}}, dir},
		"another place":      {elsewhere{vfs.Default, root, vfs.NewMem()}, "/store"},
	}
	for has, a := range ways {
		t.Run(has, func(t *testing.T) {
			l, err := LockDir(a.dir, a.fs, false)
			require.NoError(t, err)
			for wants, b := range ways {
				_, err := LockDir(b.dir, b.fs, false)
				require.ErrorIs(t, err, ErrLocked, wants)
			}
			require.Equal(t, "locked", inOtherProcess(t, "writer", dir))
			require.Equal(t, "locked", inOtherProcess(t, "pebble", dir))
			require.NoError(t, l.Close())
			require.Equal(t, "<nil>", inOtherProcess(t, "pebble", dir))
		})
	}

	t.Run("readers", func(t *testing.T) {
		delete(ways, "another place") // it opens nothing that is only read
		for wants, a := range ways {
			l, err := LockDir(a.dir, a.fs, true)
			require.NoError(t, err, wants)
			defer l.Close()
			_, err = LockDir(a.dir, a.fs, false)
			require.ErrorIs(t, err, ErrLocked, wants)
		}
		require.Equal(t, "<nil>", inOtherProcess(t, "reader", dir))
		require.Equal(t, "locked", inOtherProcess(t, "writer", dir))
	})

	t.Run("its own Lock is called", func(t *testing.T) {
		var n int
		l, err := LockDir(dir, embedding{FS: vfs.Default, locks: &n}, false)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.Equal(t, 1, n)
	})
}

// A file system in memory has its own lock, of one at a time.
func TestLockInMemory(t *testing.T) {
	mem := vfs.NewMem()
	require.NoError(t, mem.MkdirAll("store", 0o700))
	for _, shared := range []bool{false, true} {
		l, err := LockDir("store", mem, shared)
		require.NoError(t, err)
		_, err = LockDir("store", mem, true)
		require.ErrorIs(t, err, ErrLocked)
		_, err = LockDir("store", mem, false)
		require.ErrorIs(t, err, ErrLocked)
		require.NoError(t, l.Close())
	}
}

// A lock that somebody has is ErrLocked. Every other reason is itself, and says what to do.
func TestLockErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		text string
	}{
		{syscall.EROFS, "with ReadOnly"},
		{syscall.ENOSPC, "make room"},
		{syscall.EDQUOT, "make room"},
		{syscall.EMFILE, "raise the limit"},
		{syscall.ENFILE, "raise the limit"},
		{syscall.EACCES, "this user may not write"},
		{syscall.EPERM, "this user may not write"},
		{syscall.ENOLCK, "no locks left"},
		{syscall.EIO, "LOCK"},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			disk, mem := t.TempDir(), vfs.NewMem()
			require.NoError(t, mem.MkdirAll("store", 0o700))
			locked := &fs.PathError{Op: lockOp, Path: "LOCK", Err: c.err}
			for _, a := range []struct {
				dir string
				fs  embedding
			}{
				{"store", embedding{FS: mem, failLock: locked}},
				{disk, embedding{FS: vfs.Default, failLock: locked}},
				{disk, embedding{FS: vfs.Default, failOpen: c.err}},
			} {
				_, err := LockDir(a.dir, a.fs, false)
				require.ErrorIs(t, err, c.err)
				require.NotErrorIs(t, err, ErrLocked)
				require.ErrorContains(t, err, c.text)
				require.Equal(t, "<nil>", answerOf("writer", disk), "and nothing is left locked")
			}
		})
	}
	_, err := LockDir(t.TempDir(), embedding{FS: vfs.Default, failLock: syscall.EAGAIN}, false)
	require.ErrorIs(t, err, ErrLocked)
	_, err = LockDir(filepath.Join(t.TempDir(), "missing"), vfs.Default, false)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, ErrLocked)
	require.Contains(t, remedy(&fs.PathError{Op: lockOp, Err: syscall.ENOSYS}, false), "no locks of open files")
	require.Empty(t, remedy(&fs.PathError{Op: "open", Err: syscall.EINVAL}, false))
	require.Contains(t, remedy(fs.ErrPermission, true), "may not read LOCK")
}

// Where nothing can be written, and LOCK cannot be made, nobody is to be kept out.
func TestLockOnAReadOnlyMedium(t *testing.T) {
	mem := vfs.NewMem()
	require.NoError(t, mem.MkdirAll("store", 0o700))
	for dir, medium := range map[string]embedding{
		"store":     {FS: mem, failLock: syscall.EROFS},
		t.TempDir(): {FS: vfs.Default, failOpen: syscall.EROFS},
	} {
		a, err := LockDir(dir, medium, true)
		require.NoError(t, err)
		b, err := LockDir(dir, medium, true)
		require.NoError(t, err)
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	}
}
