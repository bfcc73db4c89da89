//go:build unix

package pebble

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// A process that is being started has a copy of every descriptor until it runs its
// program: the lock does not stay with that.
func TestLockEndsWhateverIsCopied(t *testing.T) {
	dir := t.TempDir()
	l, err := lockFS{vfs.Default, false}.lockFile(filepath.Join(dir, "LOCK"))
	require.NoError(t, err)
	fd, err := syscall.Dup(int(l.(fileLock).Fd()))
	require.NoError(t, err)
	defer syscall.Close(fd)
	require.Equal(t, "locked", answerOf("writer", dir))
	require.NoError(t, l.Close())
	require.Equal(t, "<nil>", answerOf("writer", dir))
}

// The operating system's own refusal, in a process that may have no more files open.
func TestLockWithoutDescriptors(t *testing.T) {
	if dir := os.Getenv(otherDir); dir != "" {
		var was syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
		none := was
		none.Cur = 0
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none))
		defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was) // which a report of coverage needs
		_, err := LockDir(dir, vfs.Default, false)
		require.ErrorIs(t, err, syscall.EMFILE)
		require.NotErrorIs(t, err, ErrLocked)
		require.ErrorContains(t, err, "raise the limit")
		return
	}
	c := exec.Command(os.Args[0], "-test.run=^TestLockWithoutDescriptors$", "-test.v")
	c.Env = append(os.Environ(), otherDir+"="+t.TempDir())
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestLockWithoutDescriptors")
}
