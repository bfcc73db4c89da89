package sealfs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

var fileRounds = flag.Int("file.rounds", 40, "how many restarts and crashes the models of single files look at")

// A file of pages is bytes that are read and written at any place: random operations on it and on a
// slice come to the same, across restarts, in memory and on a disk, where it is made shorter beneath.
func TestFileModel(t *testing.T) {
	for _, page := range []int{64, 1000, sealfs.DefaultPageSize} {
		for _, on := range []string{"memory", "disk"} {
			t.Run(fmt.Sprintf("%d, %s", page, on), func(t *testing.T) {
				g := newRig(t, nil)
				var under vfs.FS = vfs.NewMem()
				name := "file"
				if on == "disk" {
					under, name = vfs.Default, filepath.Join(t.TempDir(), "file")
				}
				rng := rand.New(rand.NewPCG(uint64(page), 5))
				var want []byte
				put := func(b []byte, off int) {
					if grow := off + len(b) - len(want); grow > 0 {
						want = append(want, make([]byte, grow)...)
					}
					copy(want[off:], b)
				}
				for round := range *fileRounds {
					fs := g.over(under)
					f, err := fs.OpenFile(name, &sealfs.FileOptions{PageSize: page})
					require.NoError(t, err)
					require.Equal(t, page, f.PageSize())
					for i := range 30 {
						size, err := f.Size()
						require.NoError(t, err)
						require.EqualValues(t, len(want), size)
						off := rng.IntN(len(want) + 1)
						switch rng.IntN(8) {
						case 0:
							n := rng.IntN(len(want) + 2*page)
							if len(want) > 40*page {
								n = rng.IntN(10 * page)
							}
							require.NoError(t, f.Truncate(int64(n)))
							if n <= len(want) {
								want = want[:n:n]
							} else {
								put(nil, n)
							}
						case 1:
							require.NoError(t, f.Sync())
						case 2: // behind the end
							b := content(uint64(i), 1+rng.IntN(page))
							off += rng.IntN(3 * page)
							n, err := f.WriteAt(b, int64(off))
							require.NoError(t, err)
							require.Equal(t, len(b), n)
							put(b, off)
						case 3, 4:
							b := content(uint64(round*100+i), rng.IntN(20*page))
							n, err := f.WriteAt(b, int64(off))
							require.NoError(t, err)
							require.Equal(t, len(b), n)
							if n > 0 {
								put(b, off)
							}
						default:
							b := make([]byte, rng.IntN(20*page))
							n, err := f.ReadAt(b, int64(off))
							if n < len(b) {
								require.ErrorIs(t, err, io.EOF)
							} else {
								require.NoError(t, err)
							}
							require.Equal(t, min(len(b), len(want)-off), n)
							require.True(t, bytes.Equal(want[off:off+n], b[:n]))
						}
					}
					require.NoError(t, f.Close())
					b, err := readPages(g.over(under), name)
					require.NoError(t, err)
					require.True(t, bytes.Equal(want, b))
				}
			})
		}
	}
}

// After a crash of the machine there is everything that was synced and not written since, the size is
// one that the file had since, and no page is opened that is not one of the file's.
func TestFileAcrossCrashes(t *testing.T) {
	const page = 4096 - 44 // a page is a block of the disk, which is written or not
	g := newRig(t, nil)
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(3, 3))
	version := uint64(0)
	var synced [][]uint64 // by page, the versions that it may have: the synced one, and those since
	for range *fileRounds {
		f, err := g.over(mem).OpenFile("file", &sealfs.FileOptions{PageSize: page})
		require.NoError(t, err)
		size, err := f.Size()
		require.NoError(t, err)
		n := int(size / page)
		require.Zero(t, size%page)
		require.GreaterOrEqual(t, n, len(synced), "what was durable is missing")
		b := make([]byte, page)
		state := [][]uint64{}
		for i := range n {
			_, err := f.ReadAt(b, int64(i*page))
			require.NoError(t, err, "page %d", i)
			found := false
			for v := uint64(1); v <= version && !found; v++ {
				if found = bytes.Equal(content(v, page), b); found {
					if i < len(synced) {
						require.Contains(t, synced[i], v, "page %d", i)
					}
					state = append(state, []uint64{v})
				}
			}
			require.True(t, found, "page %d is none that was written", i)
		}
		durable := len(state) // opened, so that they are on the disk of this clone
		for range 10 {
			i := rng.IntN(len(state) + 1)
			version++
			_, err := f.WriteAt(content(version, page), int64(i*page))
			require.NoError(t, err)
			if i == len(state) {
				state = append(state, nil)
			}
			state[i] = append(state[i], version)
			if rng.IntN(4) == 0 {
				require.NoError(t, f.Sync())
				for j := range state {
					state[j] = state[j][len(state[j])-1:]
				}
				durable = len(state)
			}
		}
		d, err := mem.OpenDir("")
		require.NoError(t, err)
		require.NoError(t, d.Sync())
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		require.NoError(t, f.Close())
		mem, synced = crashed, state[:durable]
	}
}

// Files of pages that are open several times are one, whoever writes and reads.
func TestFileSeveralHandles(t *testing.T) {
	g := newRig(t, nil)
	fs, _ := small(t, g)
	one, err := fs.OpenFile("file", &sealfs.FileOptions{PageSize: 100})
	require.NoError(t, err)
	two, err := fs.OpenFile("file", nil)
	require.NoError(t, err)
	reader, err := fs.OpenFile("file", &sealfs.FileOptions{ReadOnly: true})
	require.NoError(t, err)
	require.Equal(t, 100, two.PageSize())
	var wg sync.WaitGroup
	for w, f := range []*sealfs.File{one, two} {
		wg.Go(func() {
			for i := range 50 {
				_, err := f.WriteAt(content(uint64(i), 70), int64(i*140+w*70))
				if err != nil {
					t.Errorf("write: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		b := make([]byte, 500)
		for range 50 {
			if _, err := reader.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("read: %v", err)
			}
		}
	})
	wg.Wait()
	b := make([]byte, 50*140)
	_, err = reader.ReadAt(b, 0)
	require.NoError(t, err)
	for i := range 50 {
		require.Equal(t, content(uint64(i), 70), b[i*140:i*140+70])
		require.Equal(t, content(uint64(i), 70), b[i*140+70:i*140+140])
	}
	for _, f := range []*sealfs.File{one, two, reader} {
		require.NoError(t, f.Close())
		require.Error(t, f.Close())
	}
}

// What a file of pages refuses.
func TestFileRefusals(t *testing.T) {
	g := newRig(t, nil)
	fs, under := small(t, g)
	for _, page := range []int{-1, 1, 63, 65537} {
		_, err := fs.OpenFile("file", &sealfs.FileOptions{PageSize: page})
		require.ErrorContains(t, err, "PageSize")
	}
	for _, o := range []sealfs.FileOptions{{MustExist: true}, {ReadOnly: true}} {
		_, err := fs.OpenFile("file", &o)
		require.ErrorIs(t, err, iofsNotExist)
	}
	write(t, fs, "1.sst", content(1, 100))
	_, err := fs.OpenFile("1.sst", nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = fs.OpenReadWrite("1.sst", vfs.WriteCategoryUnspecified)
	require.ErrorIs(t, err, errors.ErrUnsupported)

	writePages(t, fs, "file", 64, content(1, 200))
	f, err := fs.OpenFile("file", &sealfs.FileOptions{ReadOnly: true})
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorContains(t, err, "opened for reading")
	require.Error(t, f.Truncate(0))
	require.NoError(t, f.Sync())
	_, err = f.ReadAt(make([]byte, 1), -1)
	require.Error(t, err)
	require.NoError(t, f.Close())
	_, err = f.Size()
	require.Error(t, err)
	f, err = fs.OpenFile("file", nil)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), -1)
	require.Error(t, err)
	require.Error(t, f.Truncate(-1))
	// Without access nothing waits, and nothing is changed.
	before := raw(t, under, "file")
	g.deny()
	_, err = f.WriteAt(content(2, 200), 100)
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	require.ErrorIs(t, f.Truncate(10), keyring.ErrInaccessible)
	require.Equal(t, before, raw(t, under, "file"))
	g.allow()
	_, err = f.WriteAt(content(2, 200), 100)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	// A size record that could not be written leaves two sizes: no more is written.
	sick := false
	fs = g.over(errorfs.Wrap(under, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if sick && op.Kind == errorfs.OpFileWriteAt && op.Offset < headSize {
			return errorfs.ErrInjected
		}
		return nil
	})))
	f, err = fs.OpenFile("file", nil)
	require.NoError(t, err)
	sick = true
	_, err = f.WriteAt(content(3, 100), 300)
	require.ErrorIs(t, err, errorfs.ErrInjected)
	sick = false
	_, err = f.WriteAt(content(3, 100), 300)
	require.ErrorIs(t, err, errorfs.ErrInjected)
	require.NoError(t, f.Close())
	got, err := readPages(g.over(under), "file")
	require.NoError(t, err)
	require.Equal(t, string(content(1, 100))+string(content(2, 200)), string(got))
}

// The file system of Pebble's interface has files of pages too, with a place for Read and Write.
func TestOpenReadWrite(t *testing.T) {
	g := newRig(t, nil)
	fs, _ := small(t, g)
	for _, create := range []func() (vfs.File, error){
		func() (vfs.File, error) {
			return fs.OpenReadWrite("file", vfs.WriteCategoryUnspecified, vfs.RandomReadsOption)
		},
		func() (vfs.File, error) { return fs.Create("SHARED-CACHE-001", vfs.WriteCategoryUnspecified) },
	} {
		f, err := create()
		require.NoError(t, err)
		for i := range 3 {
			_, err = f.Write(content(uint64(i), 3000))
			require.NoError(t, err)
		}
		_, err = f.WriteAt(content(9, 10), 2995)
		require.NoError(t, err)
		require.NoError(t, f.Preallocate(0, 10000))
		require.NoError(t, f.Prefetch(0, 10000))
		require.NoError(t, f.SyncData())
		full, err := f.SyncTo(100)
		require.NoError(t, err)
		require.False(t, full)
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
	}
	want := bytes.Join([][]byte{content(0, 2995), content(9, 10), content(1, 3000)[5:], content(2, 3000)}, nil)
	for _, name := range []string{"file", "SHARED-CACHE-001"} {
		require.True(t, bytes.Equal(want, mustRead(t, fs, name)), name)
	}
}

// A file that was opened more often than keys of runs are kept reads all the same.
func TestFileManyRuns(t *testing.T) {
	g := newRig(t, nil)
	fs, _ := small(t, g)
	const n = 150
	for i := range n {
		f, err := fs.OpenFile("file", &sealfs.FileOptions{PageSize: 64})
		require.NoError(t, err)
		_, err = f.WriteAt(content(uint64(i), 64), int64(i*64))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	got, err := readPages(fs, "file")
	require.NoError(t, err)
	for i := range n {
		require.Equal(t, content(uint64(i), 64), got[i*64:(i+1)*64])
	}
}

// What a handle is not for it refuses, and what is only advice it passes on or leaves.
func TestHandlesRefuse(t *testing.T) {
	g := newRig(t, nil)
	fs, _ := small(t, g)
	kinds(t, fs)
	require.NoError(t, fs.MkdirAll("dir", 0o755))
	write(t, fs, "LOCK")
	open := func(f vfs.File, err error) vfs.File {
		require.NoError(t, err)
		return f
	}
	b := make([]byte, 10)
	read := func(f vfs.File) error { _, err := f.Read(b); return err }
	readAt := func(f vfs.File) error { _, err := f.ReadAt(b, 0); return err }
	write := func(f vfs.File) error { _, err := f.Write(b); return err }
	writeAt := func(f vfs.File) error { _, err := f.WriteAt(b, 0); return err }
	for _, c := range []struct {
		f       vfs.File
		refuses []func(vfs.File) error
	}{
		{open(fs.Create("2.log", vfs.WriteCategoryUnspecified)), []func(vfs.File) error{read, readAt, writeAt}},
		{open(fs.Create("2.sst", vfs.WriteCategoryUnspecified)), []func(vfs.File) error{read, readAt, writeAt}},
		{open(fs.Open("000001.log")), []func(vfs.File) error{write, writeAt}},
		{open(fs.Open("000002.sst")), []func(vfs.File) error{write, writeAt}},
		{open(fs.Open("LOCK")), []func(vfs.File) error{write, writeAt}},
		{open(fs.OpenDir("dir")), []func(vfs.File) error{read, readAt, write, writeAt}},
		{open(fs.Open("dir")), []func(vfs.File) error{read, readAt, write, writeAt}},
	} {
		for _, op := range c.refuses {
			require.ErrorIs(t, op(c.f), errors.ErrUnsupported)
		}
		require.NoError(t, c.f.Preallocate(0, 100))
		require.NoError(t, c.f.Prefetch(0, 100))
		require.NoError(t, c.f.Sync())
		require.NoError(t, c.f.SyncData())
		_, err := c.f.SyncTo(10)
		require.NoError(t, err)
		require.Equal(t, vfs.InvalidFd, c.f.Fd())
		_, err = c.f.Stat()
		require.NoError(t, err)
		require.NoError(t, c.f.Close())
	}
	for _, name := range []string{"000001.log", "000002.sst", "2.log"} {
		f, err := fs.Open(name)
		require.NoError(t, err)
		_, err = f.ReadAt(b, -1)
		require.Error(t, err)
		require.NoError(t, f.Close())
		require.Error(t, f.Close())
		require.ErrorIs(t, readAt(f), os.ErrClosed)
	}
	for _, name := range []string{"3.log", "3.sst"} {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.ErrorIs(t, f.Close(), os.ErrClosed)
		require.ErrorIs(t, write(f), os.ErrClosed)
	}
	lock, err := fs.Lock("LOCK")
	require.NoError(t, err)
	require.NoError(t, lock.Close())
	_, err = fs.GetDiskUsage("dir")
	require.ErrorIs(t, err, vfs.ErrUnsupported)
	require.Equal(t, "dir", fs.PathDir("dir/x"))
}
