package sealfs_test

import (
	"bytes"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring/sealfs"
)

// A file opens under the names that it was given, and under no other.
func TestNames(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	require.NoError(t, fs.MkdirAll("dir", 0o755))
	write(t, fs, "temporary.000001.dbtmp", content(1, 900))
	require.NoError(t, fs.Rename("temporary.000001.dbtmp", "OPTIONS-000001"))
	require.Equal(t, content(1, 900), mustRead(t, fs, "OPTIONS-000001"))
	require.NoError(t, fs.Rename("OPTIONS-000001", "dir/OPTIONS-000001"))
	require.Equal(t, content(1, 900), mustRead(t, fs, "dir/OPTIONS-000001"))
	_, err := fs.Open("OPTIONS-000001")
	require.ErrorIs(t, err, iofsNotExist)
	require.ErrorIs(t, fs.Rename("OPTIONS-000001", "x"), iofsNotExist)
	require.ErrorIs(t, fs.Link("OPTIONS-000001", "x"), iofsNotExist)

	write(t, fs, "000002.sst", content(2, 900))
	require.NoError(t, fs.Link("000002.sst", "dir/000002.sst")) // a checkpoint
	require.NoError(t, fs.Link("000002.sst", "000007.sst"))     // an ingestion
	require.ErrorIs(t, fs.Link("000002.sst", "000007.sst"), iofsExist)
	for _, name := range []string{"000002.sst", "dir/000002.sst", "000007.sst"} {
		require.Equal(t, content(2, 900), mustRead(t, fs, name))
	}
	putRaw(t, under, "000008.sst", raw(t, under, "000002.sst"))
	_, err = read(fs, "000008.sst")
	require.True(t, said(err), "%v", err)

	// More names than there are slots: links are refused for Pebble to copy, and renames make the
	// file one of its own.
	for i := range 20 {
		from, to := fmt.Sprintf("name %d.sst", i), fmt.Sprintf("name %d.sst", i+1)
		if i == 0 {
			write(t, fs, from, content(3, 2000))
			require.NoError(t, fs.Link(from, "dir/name 0.sst"))
		}
		require.NoError(t, fs.Rename(from, to))
		require.Equal(t, content(3, 2000), mustRead(t, fs, to))
		require.Equal(t, content(3, 2000), mustRead(t, fs, "dir/name 0.sst"))
	}
	// Logs and pages have no second name; a copy has a DEK of its own.
	write(t, fs, "000003.log", content(4, 100))
	err = fs.Link("000003.log", "dir/000003.log")
	require.Error(t, err)
	require.NoError(t, vfs.LinkOrCopy(fs, "000003.log", "dir/000003.log"))
	require.Equal(t, content(4, 100), mustRead(t, fs, "dir/000003.log"))
	require.NotEqual(t, raw(t, under, "000003.log")[:headSize], raw(t, under, "dir/000003.log")[:headSize])
	for i := range 20 { // by renaming it has any number, one at a time
		from, to := fmt.Sprintf("00%04d.log", 3+i), fmt.Sprintf("00%04d.log", 4+i)
		require.NoError(t, fs.Rename(from, to))
		require.Equal(t, content(4, 100), mustRead(t, fs, to))
	}
	writePages(t, fs, "pages", 64, content(5, 100))
	require.Error(t, fs.Link("pages", "pages 2"))
	require.NoError(t, fs.Rename("pages", "pages 2"))
	b, err := readPages(fs, "pages 2")
	require.NoError(t, err)
	require.Equal(t, content(5, 100), b)

	// Names that are the file system's own.
	const own = "x.sealfs-new"
	_, err = fs.Create(own, vfs.WriteCategoryUnspecified)
	require.ErrorIs(t, err, iofs.ErrInvalid)
	require.ErrorIs(t, fs.Rename("000002.sst", own), iofs.ErrInvalid)
	require.ErrorIs(t, fs.Link("000002.sst", own), iofs.ErrInvalid)
	_, err = fs.ReuseForWrite("000023.log", own, vfs.WriteCategoryUnspecified)
	require.ErrorIs(t, err, iofs.ErrInvalid)
	_, err = fs.OpenFile(own, nil)
	require.ErrorIs(t, err, iofs.ErrInvalid)

	// Directories, and what is not there.
	require.NoError(t, fs.Rename("dir", "dir 2"))
	require.Equal(t, content(2, 900), mustRead(t, fs, "dir 2/000002.sst"))
	require.NoError(t, fs.Remove("000002.sst"))
	require.Equal(t, content(2, 900), mustRead(t, fs, "dir 2/000002.sst"))
	require.ErrorIs(t, fs.Remove("000002.sst"), iofsNotExist)
	require.NoError(t, fs.RemoveAll("dir 2"))
	_, err = fs.Stat("dir 2")
	require.ErrorIs(t, err, iofsNotExist)
}

var iofsNotExist, iofsExist = iofs.ErrNotExist, iofs.ErrExist

// A log, a table that is being written, or a file of pages, which has had more names than a head has room
// for, opens under the name that it has on the disk, also if that is one of several renames before: of
// those that nobody made durable.
func TestManyNamesAndACrash(t *testing.T) {
	for _, kind := range []string{"log", "pages", "sst"} {
		for _, across := range []bool{false, true} { // two directories
			t.Run(fmt.Sprintf("%s, %v", kind, across), func(t *testing.T) {
				g := newRig(t, nil)
				mem := vfs.NewCrashableMem()
				fs := g.over(mem)
				dirs := []string{"a", "b"}
				for _, dir := range dirs {
					require.NoError(t, fs.MkdirAll(dir, 0o755))
				}
				name := func(i int) string {
					if across {
						return fmt.Sprintf("%s/%d.%s", dirs[i%2], i, kind)
					}
					return fmt.Sprintf("a/%d.%s", i, kind)
				}
				one := content(1, 1000)
				if kind == "pages" {
					writePages(t, fs, name(0), 64, one)
				} else {
					f, err := fs.Create(name(0), vfs.WriteCategoryUnspecified)
					require.NoError(t, err)
					_, err = f.Write(bytes.Clone(one))
					require.NoError(t, err)
					require.NoError(t, f.Sync())
					defer func() { require.NoError(t, f.Close()) }()
				}
				for _, dir := range []string{"", "a", "b"} {
					d, err := mem.OpenDir(dir)
					require.NoError(t, err)
					require.NoError(t, d.Sync())
					require.NoError(t, d.Close())
				}
				for i := range 30 {
					require.NoError(t, fs.Rename(name(i), name(i+1)))
					for _, percent := range []int{0, 50} {
						crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, uint64(i)))})
						found := 0
						for _, dir := range dirs {
							names, err := crashed.List(dir)
							require.NoError(t, err)
							for _, name := range names {
								var b []byte
								if kind == "pages" {
									b, err = readPages(g.over(crashed), dir+"/"+name)
								} else {
									b, err = read(g.over(crashed), dir+"/"+name)
								}
								require.NoError(t, err, "%s, after %d renames", name, i+1)
								require.Equal(t, one, bytes.TrimSuffix(b, tornMark))
								found++
							}
						}
						require.Positive(t, found)
					}
				}
			})
		}
	}
}

// Stat gives the size of the content, of each layout, open and closed.
func TestStat(t *testing.T) {
	g := newRig(t, nil)
	fs, _ := small(t, g)
	for _, n := range []int{0, 1, 483, 484, 485, 968, 5000} {
		for _, name := range []string{"000001.log", "000001.sst"} {
			f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = f.Write(content(1, n))
			require.NoError(t, err)
			fi, err := f.Stat()
			require.NoError(t, err)
			require.EqualValues(t, n, fi.Size())
			if name == "000001.log" { // also while it is being written
				fi, err = fs.Stat(name)
				require.NoError(t, err)
				require.EqualValues(t, n, fi.Size())
			}
			require.NoError(t, f.Sync())
			require.NoError(t, f.Close())
			fi, err = fs.Stat(name)
			require.NoError(t, err)
			require.EqualValues(t, n, fi.Size(), name)
			require.Equal(t, name, fi.Name())
			require.False(t, fi.IsDir())
			r, err := fs.Open(name)
			require.NoError(t, err)
			fi, err = r.Stat()
			require.NoError(t, err)
			require.EqualValues(t, n, fi.Size())
			require.NoError(t, r.Close())
			require.Equal(t, content(1, n), append([]byte{}, mustRead(t, fs, name)...))
		}
		f, err := fs.OpenReadWrite("pages", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = f.WriteAt(content(1, n), 0)
		require.NoError(t, err)
		fi, err := f.Stat()
		require.NoError(t, err)
		require.EqualValues(t, n, fi.Size())
		require.NoError(t, f.Close())
		fi, err = fs.Stat("pages")
		require.NoError(t, err)
		require.EqualValues(t, n, fi.Size())
		require.NoError(t, fs.Remove("pages"))
	}
	require.NoError(t, fs.MkdirAll("dir", 0o755))
	fi, err := fs.Stat("dir")
	require.NoError(t, err)
	require.True(t, fi.IsDir())
}

// A log that is reused has a DEK of its own: nothing of the old one is read, however short the new one
// is, and it ends as any other.
func TestReuse(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	parts := make([][]byte, 20)
	for i := range parts {
		parts[i] = content(uint64(i), 100)
	}
	write(t, fs, "000001.log", parts...)
	old := raw(t, under, "000001.log")
	f, err := fs.ReuseForWrite("000001.log", "000002.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	require.Empty(t, mustRead(t, fs, "000002.log"))
	_, err = f.Write(content(50, 100))
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	crashed := raw(t, under, "000002.log")
	require.Greater(t, len(crashed), len(old)-200, "it was made anew, which costs a third of the rate")
	require.Equal(t, content(50, 100), mustRead(t, fs, "000002.log")) // for who reads while it is written
	require.NoError(t, f.Close())
	require.Equal(t, content(50, 100), mustRead(t, fs, "000002.log"))

	putRaw(t, under, "000002.log", crashed)
	require.Equal(t, string(content(50, 100))+string(tornMark), string(mustRead(t, fs, "000002.log")))
	// Not even with its old head.
	putRaw(t, under, "000002.log", append(bytes.Clone(old[:headSize]), crashed[headSize:]...))
	_, err = read(fs, "000002.log")
	require.True(t, said(err), "%v", err)

	write(t, fs, "000003.sst", content(1, 10))
	_, err = fs.ReuseForWrite("000003.sst", "000004.log", vfs.WriteCategoryUnspecified)
	require.True(t, said(err), "%v", err)
	_, err = fs.ReuseForWrite("000009.log", "000010.log", vfs.WriteCategoryUnspecified)
	require.ErrorIs(t, err, iofsNotExist)
}

// The machine may stop between any two operations on the disk while a file is renamed, linked, reused
// or made: it opens under the name that it has then, with its content, or is not there at all.
func TestNamesAcrossCrashes(t *testing.T) {
	type life struct {
		name  string
		setup func(t *testing.T, fs *sealfs.FS)
		do    func(fs *sealfs.FS) error
		check func(t *testing.T, fs *sealfs.FS)
	}
	one := content(1, 1500)
	// either holds that under at least one of the names there is the content, and never anything else.
	either := func(names ...string) func(t *testing.T, fs *sealfs.FS) {
		return func(t *testing.T, fs *sealfs.FS) {
			found := 0
			for _, name := range names {
				b, err := read(fs, name)
				if errors.Is(err, iofsNotExist) {
					continue
				}
				require.NoError(t, err, name)
				require.Equal(t, one, b, name)
				found++
			}
			require.Positive(t, found)
		}
	}
	sync := func(t *testing.T, fs *sealfs.FS) {
		d, err := fs.OpenDir("")
		require.NoError(t, err)
		require.NoError(t, d.Sync())
		require.NoError(t, d.Close())
	}
	for _, l := range []life{
		{"rename", func(t *testing.T, fs *sealfs.FS) { write(t, fs, "a.dbtmp", one) },
			func(fs *sealfs.FS) error { return fs.Rename("a.dbtmp", "OPTIONS-1") }, either("a.dbtmp", "OPTIONS-1")},
		{"link", func(t *testing.T, fs *sealfs.FS) { write(t, fs, "1.sst", one) },
			func(fs *sealfs.FS) error { return fs.Link("1.sst", "2.sst") }, either("1.sst", "2.sst")},
		{"rename without room", func(t *testing.T, fs *sealfs.FS) {
			write(t, fs, "0.sst", one)
			for i := range 7 {
				require.NoError(t, fs.Link("0.sst", fmt.Sprintf("%d.sst", i+1)))
				require.NoError(t, fs.Remove(fmt.Sprintf("%d.sst", i+1)))
			}
		}, func(fs *sealfs.FS) error { return fs.Rename("0.sst", "9.sst") }, either("0.sst", "9.sst")},
		{"reuse", func(t *testing.T, fs *sealfs.FS) { write(t, fs, "000001.log", one) },
			func(fs *sealfs.FS) error {
				f, err := fs.ReuseForWrite("000001.log", "000002.log", vfs.WriteCategoryUnspecified)
				if err != nil {
					return err
				}
				if _, err := f.Write(content(9, 100)); err != nil {
					return err
				}
				return f.Close()
			}, func(t *testing.T, fs *sealfs.FS) {
				found := 0
				for _, name := range []string{"000001.log", "000002.log"} {
					b, err := read(fs, name)
					if errors.Is(err, iofsNotExist) {
						continue
					}
					require.NoError(t, err, name)
					b = bytes.TrimSuffix(b, tornMark)
					require.True(t, len(b) == 0 || bytes.Equal(b, one) || bytes.Equal(b, content(9, 100)), name)
					_, err = fs.Stat(name)
					require.NoError(t, err)
					found++
				}
				require.Positive(t, found)
			}},
		{"a file of pages", func(t *testing.T, fs *sealfs.FS) {}, func(fs *sealfs.FS) error {
			f, err := fs.OpenFile("pages", nil)
			if err != nil {
				return err
			}
			return f.Close()
		}, func(t *testing.T, fs *sealfs.FS) {
			b, err := readPages(fs, "pages")
			require.True(t, errors.Is(err, iofsNotExist) || err == nil, "%v", err)
			require.Empty(t, b)
		}},
	} {
		t.Run(l.name, func(t *testing.T) {
			g := newRig(t, nil)
			for at, done := 0, false; !done; at++ {
				require.Less(t, at, 100)
				mem := vfs.NewCrashableMem()
				setup := g.over(mem)
				l.setup(t, setup)
				sync(t, setup)
				var clones []*vfs.MemFS
				n := 0
				fs := g.over(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
						if n == at {
							for i, percent := range []int{0, 50, 50, 100} {
								clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), uint64(i)))}))
							}
						}
						n++
					}
					return nil
				})))
				require.NoError(t, l.do(fs))
				done = n <= at
				if done {
					clones = append(clones, mem)
				}
				for _, c := range clones {
					l.check(t, g.over(c))
				}
			}
		})
	}
}
