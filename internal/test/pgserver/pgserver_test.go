package pgserver

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A server answers, is gone when it was killed, answers again, and leaves nothing behind.
func TestServerIsKilledAndComesBack(t *testing.T) {
	s, err := Start()
	if errors.Is(err, ErrNone) {
		t.Skip(err)
	}
	require.NoError(t, err)
	answers := func() bool {
		return exec.Command(s.bin+"/pg_isready", "-h", s.dir, "-q").Run() == nil
	}
	require.True(t, answers())
	require.Error(t, s.Restart(), "it is running")
	for _, end := range []func() error{s.Kill, s.Quit, s.Kill} {
		require.NoError(t, end())
		require.False(t, answers())
		require.NoError(t, s.Restart())
		require.True(t, answers())
	}
	require.Contains(t, s.Log(), "ready to accept connections")
	require.NoError(t, s.Stop())
	require.NoDirExists(t, s.dir)
	require.NoError(t, s.Stop(), "again")
}

func TestServerThatCannotStartSaysWhy(t *testing.T) {
	if _, err := Find(); err != nil {
		t.Skip(err)
	}
	_, err := Start("no_such_setting=1")
	require.ErrorContains(t, err, "no_such_setting")
}

// The newest is taken of several.
func TestVersionOfAFolder(t *testing.T) {
	for dir, want := range map[string]int{"/usr/lib/postgresql/15/bin": 15, "/usr/pgsql-17/bin": 17, "/usr/local/pgsql/bin": 0, "": 0, "/opt/9": 9} {
		require.Equal(t, want, version(dir), dir)
	}
	require.False(t, fileThere(os.TempDir()), "a directory is no program")
}

// A temporary directory that the server's user does not come by, or whose path is too long, is not used.
func TestDirectoryOfTheServer(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp")
	require.Equal(t, "/tmp", base())
	t.Setenv("TMPDIR", "/tmp/"+strings.Repeat("x", longest))
	require.Equal(t, "/tmp", base())
	closed, err := os.MkdirTemp("/tmp", "closed") // for this user alone
	require.NoError(t, err)
	defer os.RemoveAll(closed)
	t.Setenv("TMPDIR", closed)
	if os.Geteuid() == 0 {
		require.Equal(t, "/tmp", base())
	} else {
		require.Equal(t, closed, base())
	}
}
