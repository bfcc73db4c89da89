package dirlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// bind makes a directory another name of dir, until the test ends.
func bind(t testing.TB, dir, name string) error { return mount(t, dir, name, "", syscall.MS_BIND, "") }

func mount(t testing.TB, what, where, kind string, flags uintptr, options string) error {
	if err := syscall.Mount(what, where, kind, flags, options); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(where, syscall.MNT_DETACH)) })
	return nil
}

// needMount skips a test where nothing can be mounted, for want of the right.
func needMount(t *testing.T, err error) {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("this user may mount nothing: %v", err)
	}
	require.NoError(t, err)
}

// A store on a read-only medium is read there, with and without its LOCK, and the one who
// would write is told what the medium is.
func TestReadOnlyMedium(t *testing.T) {
	for _, with := range []bool{true, false} {
		t.Run(fmt.Sprintf("LOCK %v", with), func(t *testing.T) {
			ctx := context.Background()
			u := prepare(t)
			require.Equal(t, "ok", u.one("write", u.dir.Store()))
			require.Equal(t, "ok", u.one("put", ""))
			require.Equal(t, "ok", u.one("close", ""))
			if !with {
				require.NoError(t, os.Remove(filepath.Join(u.dir.Store(), "LOCK")))
			}
			medium := t.TempDir()
			needMount(t, bind(t, u.dir.Store(), medium))
			require.NoError(t, syscall.Mount("", medium, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			require.ErrorIs(t, os.WriteFile(filepath.Join(medium, "x"), nil, 0o600), syscall.EROFS, "it is what it should be")

			other := start(t, u.dir)
			for range 2 {
				require.Equal(t, "ok", u.one("read", medium))
				require.Equal(t, "ok", other.one("read", medium))
				require.Equal(t, "ok", u.one("inspect", medium))
				require.Equal(t, "ok", other.one("inspect", medium))
			}
			for _, s := range u.open {
				require.NoError(t, check(ctx, s, 0))
				rep, err := s.Verify(ctx, nil)
				require.NoError(t, err)
				require.EqualValues(t, puts, rep.Blocks)
			}
			_, err := u.openStore(ctx, medium, false)
			require.ErrorIs(t, err, syscall.EROFS)
			require.NotErrorIs(t, err, block.ErrLocked)
			require.ErrorContains(t, err, "can be opened with ReadOnly")
			if with {
				require.Equal(t, "locked", other.one("write", u.dir.Store()), "where the same files can be written")
			}
		})
	}
}

// A disk without inodes.
func TestNoInodes(t *testing.T) {
	ctx := context.Background()
	u := prepare(t)
	disk := t.TempDir()
	needMount(t, mount(t, "tmpfs", disk, "tmpfs", 0, "nr_inodes=64"))
	store := filepath.Join(disk, "store")
	require.NoError(t, os.CopyFS(store, os.DirFS(u.dir.Store())))
	require.NoError(t, os.Remove(filepath.Join(store, "LOCK")))
	var err error
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(disk, fmt.Sprint(i)), nil, 0o600)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	for _, readOnly := range []bool{false, true} {
		_, err := u.openStore(ctx, store, readOnly)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.NotErrorIs(t, err, block.ErrLocked)
		require.ErrorContains(t, err, "make room")
	}
	require.NoError(t, os.Remove(filepath.Join(disk, "0")))
	require.Equal(t, "ok", u.one("read", store))
}

const nobody = 65534

// dropPrivileges makes the process, if it is root's, another user's.
func dropPrivileges() error {
	if os.Getuid() != 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
}

// A user who may read the files and not write them.
func TestNoPermission(t *testing.T) {
	u := prepare(t)
	store := u.dir.Store()
	require.Equal(t, "ok", u.one("write", store))
	require.Equal(t, "ok", u.one("put", ""))
	require.Equal(t, "ok", u.one("close", ""))
	for _, dir := range []string{filepath.Dir(string(u.dir)), string(u.dir)} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	require.NoError(t, os.Chmod(store, 0o555))
	t.Cleanup(func() { require.NoError(t, os.Chmod(store, 0o700)) })
	lock := filepath.Join(store, "LOCK")
	require.NoError(t, os.Chmod(lock, 0o444))
	if os.Getuid() == 0 { // the vault is the other user's
		require.NoError(t, filepath.WalkDir(u.dir.Vault(), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, nobody, nobody))
		}))
	}
	other := start(t, u.dir)
	require.Equal(t, "ok", other.one("drop privileges", ""))
	require.Contains(t, other.one("write", store), "this user may not write there")
	require.Equal(t, "ok", other.one("read", store))
	require.Equal(t, "ok", other.one("inspect", store))
	require.Equal(t, "ok", other.one("close", ""))

	require.NoError(t, os.Chmod(store, 0o700))
	require.NoError(t, os.Remove(lock))
	require.NoError(t, os.Chmod(store, 0o555))
	require.Contains(t, other.one("read", store), "not make it where it is missing")
}
