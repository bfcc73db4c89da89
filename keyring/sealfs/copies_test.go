package sealfs_test

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring/sealfs"
)

// onBoth runs a test on a file system in memory, which knows no inodes, and on the disk.
func onBoth(t *testing.T, test func(t *testing.T, g *rig, under vfs.FS, path func(...string) string)) {
	t.Run("memory", func(t *testing.T) {
		test(t, newRig(t, nil), vfs.NewMem(), func(elem ...string) string { return filepath.Join(elem...) })
	})
	t.Run("disk", func(t *testing.T) {
		dir := t.TempDir()
		test(t, newRig(t, nil), vfs.Default, func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) })
	})
}

// size is that of a file of pages.
func size(t *testing.T, f *sealfs.File) int64 {
	t.Helper()
	n, err := f.Size()
	require.NoError(t, err)
	return n
}

// A copy of a file of pages, byte by byte, is another file, also while the one that it is a copy of is open.
func TestACopyOfPagesIsAnotherFile(t *testing.T) {
	onBoth(t, func(t *testing.T, g *rig, under vfs.FS, path func(...string) string) {
		fs := g.over(under)
		require.NoError(t, fs.MkdirAll(path("db"), 0o755))
		require.NoError(t, fs.MkdirAll(path("backup"), 0o755))
		f, err := fs.OpenFile(path("db", "f"), nil)
		require.NoError(t, err)
		page := f.PageSize()
		_, err = f.WriteAt(content(1, 3*page), 0)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		putRaw(t, under, path("backup", "f"), raw(t, under, path("db", "f")))

		c, err := fs.OpenFile(path("backup", "f"), nil)
		require.NoError(t, err)
		_, err = c.WriteAt(content(2, 5*page), int64(3*page))
		require.NoError(t, err)
		require.EqualValues(t, 8*page, size(t, c))
		require.EqualValues(t, 3*page, size(t, f), "the copy grew")
		_, err = f.WriteAt([]byte("x"), 0)
		require.NoError(t, err)
		for _, f := range []*sealfs.File{f, c} {
			require.NoError(t, f.Sync())
			require.NoError(t, f.Close())
		}
		again := g.over(under)
		got, err := readPages(again, path("db", "f"))
		require.NoError(t, err)
		require.Equal(t, "x"+string(content(1, 3*page)[1:]), string(got))
		got, err = readPages(again, path("backup", "f"))
		require.NoError(t, err)
		require.Equal(t, string(content(1, 3*page))+string(content(2, 5*page)), string(got))
	})
}

// A copy of a log that goes on is as long as it was, and a table that was finished may be linked while
// somebody writes the one that it is a copy of.
func TestACopyOfWhatIsBeingWrittenIsAnotherFile(t *testing.T) {
	onBoth(t, func(t *testing.T, g *rig, under vfs.FS, path func(...string) string) {
		fs := g.over(under)
		require.NoError(t, fs.MkdirAll(path("db"), 0o755))
		require.NoError(t, fs.MkdirAll(path("backup"), 0o755))
		log, err := fs.Create(path("db", "000001.log"), vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = log.Write(content(1, 1000))
		require.NoError(t, err)
		require.NoError(t, log.Sync())
		table, err := fs.Create(path("db", "000002.sst"), vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = table.Write(content(2, 1000))
		require.NoError(t, err)
		require.NoError(t, table.Sync())
		for _, name := range []string{"000001.log", "000002.sst"} {
			putRaw(t, under, path("backup", name), raw(t, under, path("db", name)))
		}
		_, err = log.Write(content(3, 1000))
		require.NoError(t, err)
		for where, want := range map[string]int{"db": 2000, "backup": 1000} {
			fi, err := fs.Stat(path(where, "000001.log"))
			require.NoError(t, err)
			require.EqualValues(t, want, fi.Size(), where)
		}
		require.Equal(t, string(content(1, 1000))+string(tornMark), string(mustRead(t, fs, path("backup", "000001.log"))))
		require.Equal(t, string(content(1, 1000))+string(content(3, 1000)), string(mustRead(t, fs, path("db", "000001.log"))))
		require.Error(t, fs.Link(path("db", "000002.sst"), path("db", "000003.sst")), "it is being written")
		require.NoError(t, fs.Link(path("backup", "000002.sst"), path("backup", "000003.sst")))
		require.Equal(t, content(2, 1000), mustRead(t, fs, path("backup", "000003.sst")))
		require.NoError(t, log.Close())
		require.NoError(t, table.Close())
	})
}

// What is open goes along with a file that gets another path, and not to a file that gets the path that it
// had: by itself, with its directory, by removal, by another in its place.
func TestOpenFilesMove(t *testing.T) {
	onBoth(t, func(t *testing.T, g *rig, under vfs.FS, path func(...string) string) {
		fs := g.over(under)
		require.NoError(t, fs.MkdirAll(path("db"), 0o755))
		f, err := fs.OpenFile(path("db", "f"), &sealfs.FileOptions{PageSize: 100})
		require.NoError(t, err)
		// grows writes to f, and holds that who opens a path has the same file, or not.
		at := int64(0)
		grows := func(same bool, elem ...string) {
			t.Helper()
			other, err := fs.OpenFile(path(elem...), &sealfs.FileOptions{MustExist: true})
			require.NoError(t, err)
			_, err = f.WriteAt(content(1, 100), at)
			require.NoError(t, err)
			at += 100
			require.Equal(t, same, size(t, other) == at)
			require.NoError(t, other.Close())
		}
		grows(true, "db", "f")
		require.NoError(t, fs.Rename(path("db", "f"), path("db", "g")))
		grows(true, "db", "g")
		require.NoError(t, fs.Rename(path("db"), path("database")))
		grows(true, "database", "g")
		copied := raw(t, under, path("database", "g"))
		for _, name := range []string{"1", "2", "3"} {
			require.NoError(t, under.MkdirAll(path(name), 0o755))
			putRaw(t, under, path(name, "g"), copied)
		}
		grows(true, "database", "g")
		require.NoError(t, fs.Rename(path("1", "g"), path("database", "g"))) // over it
		grows(false, "database", "g")
		require.NoError(t, f.Close())

		f, err = fs.OpenFile(path("database", "g"), nil)
		require.NoError(t, err)
		at = size(t, f)
		grows(true, "database", "g")
		require.NoError(t, fs.Remove(path("database", "g")))
		putRaw(t, under, path("database", "g"), copied)
		grows(false, "database", "g")
		require.NoError(t, f.Close())

		f, err = fs.OpenFile(path("2", "g"), nil)
		require.NoError(t, err)
		at = size(t, f)
		require.NoError(t, fs.RemoveAll(path("2")))
		require.NoError(t, under.MkdirAll(path("2"), 0o755))
		putRaw(t, under, path("2", "g"), copied)
		grows(false, "2", "g")
		require.NoError(t, f.Close())
	})
}
