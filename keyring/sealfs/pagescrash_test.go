package sealfs_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// overwrite puts bytes into a file beneath, at a place, durably.
func overwrite(t *testing.T, under vfs.FS, name string, at int64, b []byte) {
	t.Helper()
	u, err := under.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = u.WriteAt(b, at)
	require.NoError(t, err)
	require.NoError(t, u.Sync())
	require.NoError(t, u.Close())
}

func pageSizeOf(t *testing.T, fs *sealfs.FS, name string) int64 {
	t.Helper()
	f, err := fs.OpenFile(name, &sealfs.FileOptions{MustExist: true})
	require.NoError(t, err)
	n, err := f.Size()
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return n
}

// What Sync made durable is there after a crash or is an error, of the page that was being written and of no
// other, and cannot be cut off: the record that says so is durable when Sync returns.
func TestSyncedPagesAreNotMissed(t *testing.T) {
	for _, sync := range []string{"Sync", "SyncData", "SyncTo"} {
		t.Run(sync, func(t *testing.T) {
			g := newRig(t, nil)
			mem := vfs.NewCrashableMem()
			f, err := g.over(mem).OpenReadWrite("f", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			const page = sealfs.DefaultPageSize
			all := content(1, 10*page)
			_, err = f.WriteAt(bytes.Clone(all), 0)
			require.NoError(t, err)
			switch sync {
			case "Sync":
				err = f.Sync()
			case "SyncData":
				err = f.SyncData()
			default:
				_, err = f.SyncTo(10 * page)
			}
			require.NoError(t, err)
			_, err = f.WriteAt(content(2, page), 0)
			require.NoError(t, err)

			// Of the page that was being written one sector got to the disk.
			crashed := mem.CrashClone(vfs.CrashCloneCfg{})
			overwrite(t, crashed, "f", headSize, raw(t, mem, "f")[headSize:headSize+512])
			r, err := g.over(crashed).OpenFile("f", nil)
			require.NoError(t, err)
			n, err := r.Size()
			require.NoError(t, err)
			require.EqualValues(t, 10*page, n)
			b := make([]byte, 9*page)
			_, err = r.ReadAt(b[:page], 0)
			require.ErrorIs(t, err, keyring.ErrCorrupt)
			_, err = r.ReadAt(b, page)
			require.NoError(t, err)
			require.Equal(t, all[page:], b)

			cut := mem.CrashClone(vfs.CrashCloneCfg{})
			putRaw(t, cut, "f", raw(t, cut, "f")[:headSize+3*4096])
			_, err = g.over(cut).OpenFile("f", &sealfs.FileOptions{MustExist: true})
			require.ErrorIs(t, err, keyring.ErrCorrupt)
			require.ErrorContains(t, err, "cut off")
		})
	}
}

// A Sync that would have to say in the file how long it is fails without access, and is made good by the
// next one; of a file that has its size it takes none.
func TestSyncWithoutAccess(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewCrashableMem()
	f, err := g.over(mem).OpenFile("f", nil)
	require.NoError(t, err)
	page := f.PageSize()
	_, err = f.WriteAt(content(1, 10*page), 0)
	require.NoError(t, err)
	g.deny()
	require.ErrorIs(t, f.Sync(), keyring.ErrInaccessible)
	g.allow()
	require.NoError(t, f.Sync())
	_, err = f.WriteAt(content(2, page), 0)
	require.NoError(t, err)
	g.deny()
	require.NoError(t, f.Sync())
	g.allow()
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	overwrite(t, crashed, "f", headSize, make([]byte, 512))
	require.EqualValues(t, 10*page, pageSizeOf(t, g.over(crashed), "f"))
}

// A file of pages says how long it is, from when it is made: one whose size records were damaged, or are
// zeros, is no empty one. One of the two is enough.
func TestPagesWithoutSizes(t *testing.T) {
	for _, grown := range []bool{false, true} {
		for _, with := range []byte{0, 0xa5} {
			t.Run(fmt.Sprintf("grown %v, %#x", grown, with), func(t *testing.T) {
				g := newRig(t, nil)
				mem := vfs.NewMem()
				f, err := g.over(mem).OpenFile("f", nil)
				require.NoError(t, err)
				want := 0
				for i := range 4 {
					if grown {
						_, err = f.WriteAt(content(1, 40000), int64(i)*40000)
						require.NoError(t, err)
						want += 40000
					}
					require.NoError(t, f.Sync())
				}
				require.NoError(t, f.Close())
				require.EqualValues(t, want, pageSizeOf(t, g.over(mem), "f"))
				was := raw(t, mem, "f")
				junk := bytes.Repeat([]byte{with}, 68)
				refused := 0
				for _, slots := range [][]int64{{3328}, {3840}, {3328, 3840}} {
					putRaw(t, mem, "f", was)
					for _, at := range slots {
						overwrite(t, mem, "f", at, junk)
					}
					f, err = g.over(mem).OpenFile("f", &sealfs.FileOptions{MustExist: true})
					if err != nil {
						require.ErrorIs(t, err, keyring.ErrCorrupt)
						require.ErrorContains(t, err, "neither size record opens")
						refused++
						continue
					}
					require.Len(t, slots, 1)
					require.NoError(t, f.Close())
				}
				require.Equal(t, map[bool]int{false: 2, true: 1}[grown], refused) // a new file has one
			})
		}
	}
}

// What Truncate cut off, and what was never acknowledged, is not read again when the file has grown,
// wherever a crash left the record that says so, and none of the pages.
func TestWhatWasCutOffStaysAway(t *testing.T) {
	const page = sealfs.DefaultPageSize
	old := bytes.Repeat([]byte("deleted!"), 10*page/8)
	// grow makes the file longer. The head, with the size, gets to the disk, and no page does.
	grow := func(t *testing.T, g *rig, mem *vfs.MemFS, f *sealfs.File, from int) {
		_, err := f.WriteAt(make([]byte, 10*page-from), int64(from))
		require.NoError(t, err)
		crashed := mem.CrashClone(vfs.CrashCloneCfg{})
		overwrite(t, crashed, "f", 0, raw(t, mem, "f")[:headSize])
		got, err := readPages(g.over(crashed), "f")
		require.NoError(t, err)
		require.NotContains(t, string(got[min(from, len(got)):]), "deleted!")
	}
	for _, size := range []int{0, 8, page, page + 800, 9*page + 80} {
		t.Run(fmt.Sprintf("Truncate to %d", size), func(t *testing.T) {
			g := newRig(t, nil)
			mem := vfs.NewCrashableMem() // its files cannot be made shorter
			f, err := g.over(mem).OpenFile("f", nil)
			require.NoError(t, err)
			_, err = f.WriteAt(old, 0)
			require.NoError(t, err)
			require.NoError(t, f.Sync())
			require.NoError(t, f.Truncate(int64(size)))
			grow(t, g, mem, f, size)
		})
		t.Run(fmt.Sprintf("cut off by a crash to %d", size), func(t *testing.T) {
			g := newRig(t, nil)
			mem := vfs.NewCrashableMem()
			f, err := g.over(mem).OpenFile("f", nil)
			require.NoError(t, err)
			_, err = f.WriteAt(old[:size], 0)
			require.NoError(t, err)
			require.NoError(t, f.Sync())
			head := raw(t, mem, "f")[:headSize]
			_, err = f.WriteAt(old[size:], int64(size))
			require.NoError(t, err)
			// All pages are on the disk, and not that there are so many.
			crashed := vfs.NewCrashableMem()
			putRaw(t, crashed, "f", append(bytes.Clone(head), raw(t, mem, "f")[headSize:]...))
			d, err := crashed.OpenDir("")
			require.NoError(t, err)
			require.NoError(t, d.Sync())
			f, err = g.over(crashed).OpenFile("f", nil)
			require.NoError(t, err)
			n, err := f.Size()
			require.NoError(t, err)
			require.EqualValues(t, size, n)
			grow(t, g, crashed, f, size)
		})
	}
}

// When a Sync has failed nothing is promised any more, until the file is opened anew: what the system gave
// up it does not try again.
func TestAfterAFailedSync(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	sick := false
	fs := g.over(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if sick && op.Kind == errorfs.OpFileSync {
			return errorfs.ErrInjected
		}
		return nil
	})))
	f, err := fs.OpenFile("f", nil)
	require.NoError(t, err)
	_, err = f.WriteAt(content(1, 100), 0)
	require.NoError(t, err)
	log, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = log.Write(content(2, 100))
	require.NoError(t, err)
	sick = true
	require.ErrorIs(t, f.Sync(), errorfs.ErrInjected)
	require.ErrorIs(t, log.Sync(), errorfs.ErrInjected)
	sick = false
	require.ErrorIs(t, f.Sync(), errorfs.ErrInjected)
	_, err = f.WriteAt(content(1, 100), 0)
	require.ErrorIs(t, err, errorfs.ErrInjected)
	require.NoError(t, f.Close())
	got, err := readPages(fs, "f")
	require.NoError(t, err)
	require.Equal(t, content(1, 100), got)

	// Of a log no later frame says that the first one is durable: without it the log is torn.
	require.NoError(t, log.Sync())
	_, err = log.Write(content(3, 100))
	require.NoError(t, err)
	require.NoError(t, log.Sync())
	require.NoError(t, log.Close())
	overwrite(t, mem, "000001.log", headSize+60, make([]byte, 20))
	require.Equal(t, tornMark, mustRead(t, fs, "000001.log"))
}

// A file of pages whose content ends within a page has nothing behind its end, whatever was there.
func TestNothingBehindTheEnd(t *testing.T) {
	g := newRig(t, nil)
	for _, under := range []vfs.FS{vfs.NewMem(), vfs.Default} {
		name := under.PathJoin(t.TempDir(), "f")
		require.NoError(t, under.MkdirAll(under.PathDir(name), 0o755))
		f, err := g.over(under).OpenFile(name, &sealfs.FileOptions{PageSize: 64})
		require.NoError(t, err)
		_, err = f.WriteAt(content(1, 1000), 0)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(70))
		require.NoError(t, f.Truncate(1000))
		b := make([]byte, 1001)
		n, err := f.ReadAt(b, 0)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, append(content(1, 1000)[:70:70], make([]byte, 930)...), b[:n])
		require.NoError(t, f.Truncate(70))
		require.NoError(t, f.Close())
		sealed := raw(t, under, name)
		if under == vfs.Default {
			require.Len(t, sealed, headSize+2*(64+44))
		} else {
			require.Equal(t, make([]byte, len(sealed)-headSize-2*(64+44)), sealed[headSize+2*(64+44):])
		}
	}
}
