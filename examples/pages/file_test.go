package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

type rig struct {
	t   *testing.T
	ctx context.Context
	v   *vaulttest.Vault
	k   *kek.KEK
	dir string
	f   *File
}

func newRig(t *testing.T) *rig {
	v := vaulttest.New(nil)
	g := &rig{t: t, ctx: context.Background(), v: v, k: kek.New(v, v.CreateKey("k").Versionless()), dir: t.TempDir()}
	g.open()
	t.Cleanup(func() { require.NoError(t, g.f.Close()) })
	return g
}

func (g *rig) open() {
	var err error
	g.f, err = OpenFile(g.ctx, g.dir, g.k, nil)
	require.NoError(g.t, err)
}

func (g *rig) reopen() {
	require.NoError(g.t, g.f.Close())
	g.open()
}

// written is a change of one page.
func written(n uint32, b byte) []slot { return []slot{{n, page(b)}} }

func page(b byte) []byte { return bytes.Repeat([]byte{b}, PageSize) }

func (g *rig) check(want map[uint32]byte) {
	g.t.Helper()
	for n := range uint32(20) {
		got, err := g.f.Read(n, []byte("before"))
		require.NoError(g.t, err)
		require.True(g.t, bytes.Equal(append([]byte("before"), page(want[n])...), got), "page %d", n)
	}
}

func TestAgainstAMap(t *testing.T) {
	g := newRig(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	want := map[uint32]byte{}
	for range 200 {
		switch rnd.IntN(10) {
		case 0:
			g.reopen()
		case 1:
			require.NoError(t, g.f.RotateEpoch(g.ctx))
		case 2:
			g.v.Rotate("k")
			require.NoError(t, g.f.Keys().RotateKEK(g.ctx))
		default:
			change := map[uint32][]byte{}
			for range 1 + rnd.IntN(4) {
				n, b := uint32(rnd.IntN(20)), byte(1+rnd.IntN(255))
				change[n], want[n] = page(b), b
			}
			require.NoError(t, g.f.Write(change))
		}
	}
	g.check(want)
	epochs, err := g.f.Keys().Epochs()
	require.NoError(t, err)
	require.Len(t, epochs, 1)
}

// A change that is whole in the journal is made, however much of it is in the file;
// one that is not is as if it had not begun.
func TestCrash(t *testing.T) {
	g := newRig(t)
	was := map[uint32]byte{1: 'a', 2: 'b'}
	require.NoError(t, g.f.Write(map[uint32][]byte{1: page('a'), 2: page('b')}))
	change := append(written(2, 'B'), written(3, 'C')...)
	require.NoError(t, g.f.journal.write(change))
	whole, err := io.ReadAll(io.NewSectionReader(g.f.journal.file, 0, 1<<40))
	require.NoError(t, err)
	put := func(b []byte) {
		require.NoError(t, g.f.journal.clear())
		_, err := g.f.journal.file.WriteAt(b, 0)
		require.NoError(t, errors.Join(err, g.f.journal.file.Sync()))
	}

	for _, n := range []int{0, 1, 31, 32, 33, 39, 40, 41, 44, 45, 200, len(whole) / 2, len(whole) - 1} {
		put(whole[:n])
		g.reopen()
		g.check(was)
	}
	bad := bytes.Clone(whole)
	bad[len(bad)-1] ^= 1
	put(bad)
	g.reopen()
	g.check(was)

	require.NoError(t, g.f.apply(change[:1])) // the crash came in the middle
	put(whole)
	g.reopen()
	is := map[uint32]byte{1: 'a', 2: 'B', 3: 'C'}
	g.check(is)
	g.reopen()
	g.check(is)

	// What an earlier, longer change has left behind is not of the change.
	require.NoError(t, g.f.journal.write(append(written(1, 'x'), written(2, 'x')...)))
	require.NoError(t, g.f.journal.write(written(1, 'A')))
	g.reopen()
	is[1] = 'A'
	g.check(is)

	// A change that failed may be whole in the journal. Then it is made, and nothing is
	// written over it before.
	for _, c := range []struct {
		fails func(*faulty)
		made  bool
	}{
		{func(f *faulty) { f.sync = errDisk }, true},
		{func(f *faulty) { f.write = errDisk }, false},
		{func(f *faulty) { f.truncate = errDisk }, true}, // in the files already
	} {
		disk := &faulty{storage: g.f.journal.file}
		c.fails(disk)
		g.f.journal.file = disk
		require.ErrorIs(t, g.f.Write(map[uint32][]byte{1: page('y'), 2: page('y')}), errDisk)
		*disk = faulty{storage: disk.storage}
		require.ErrorIs(t, g.f.Write(map[uint32][]byte{1: page('z')}), errDisk)
		require.ErrorIs(t, g.f.RotateEpoch(g.ctx), errDisk)
		_, err := g.f.Read(1, nil)
		require.ErrorIs(t, err, errDisk)
		g.reopen()
		if c.made {
			is[1], is[2] = 'y', 'y'
		}
		g.check(is)
		is[1], is[2] = 'm', 'n'
		require.NoError(t, g.f.Write(map[uint32][]byte{1: page('m'), 2: page('n')}))
		g.check(is)
	}
}

// faulty is a file of which single operations fail: a write in its middle, a sync after
// it was done.
type faulty struct {
	storage
	write, sync, truncate  error
	beforeWrite, afterSync func()
}

var errDisk = errors.New("the disk failed")

func (f *faulty) WriteAt(p []byte, off int64) (int, error) {
	if f.beforeWrite != nil {
		f.beforeWrite()
	}
	if f.write != nil {
		n, err := f.storage.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(f.write, err)
	}
	return f.storage.WriteAt(p, off)
}

func (f *faulty) Truncate(size int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.storage.Truncate(size)
}

func (f *faulty) Sync() error {
	err := errors.Join(f.storage.Sync(), f.sync)
	if f.afterSync != nil {
		f.afterSync()
	}
	return err
}

// The machine may stop before any operation on the disk, with none, half or all kept of what was not
// synced, pages torn included: a change is there as a whole or not at all, and one that was acknowledged is.
func TestCrashOfTheMachine(t *testing.T) {
	g := newRig(t)
	mem := vfs.NewCrashableMem()
	type crash struct {
		done byte
		left *vfs.MemFS
	}
	var crashes []crash
	done, n := byte(0), uint64(0)
	on := func(under vfs.FS) *File {
		fs, err := sealfs.New(under, g.f.Keys(), nil)
		require.NoError(t, err)
		f := &File{keys: g.f.Keys(), fs: fs, dir: "/"}
		require.NoError(t, f.ready())
		return f
	}
	f := on(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if n++; op.Kind.ReadOrWrite() == errorfs.OpIsWrite && n > 20 {
			crashes = append(crashes, crash{done, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[len(crashes)%3], RNG: rand.New(rand.NewPCG(n, 1))})})
		}
		return nil
	})))
	for i := byte(1); i <= 12; i++ {
		require.NoError(t, f.Write(map[uint32][]byte{0: page(i), 3: page(i), uint32(i): page(i)}))
		done = i
	}
	require.Greater(t, len(crashes), 50)
	for i, c := range crashes {
		after := on(c.left)
		first, err := after.Read(0, nil)
		require.NoError(t, err, i)
		require.GreaterOrEqual(t, first[0], c.done, i)
		require.LessOrEqual(t, first[0], c.done+1, i)
		for n, want := range map[uint32]byte{0: first[0], 3: first[0], uint32(first[0]): first[0]} {
			got, err := after.Read(n, nil)
			require.NoError(t, err, i)
			require.True(t, bytes.Equal(page(want), got), "crash %d, page %d", i, n)
		}
		require.NoError(t, errors.Join(after.pages.Close(), after.journal.file.Close()))
	}
	require.NoError(t, errors.Join(f.pages.Close(), f.journal.file.Close()))
}

// Pages cannot be altered, moved or cut off.
func TestDamage(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.f.Write(map[uint32][]byte{0: page('z'), 1: page('a'), 2: page('b')}))
	path := filepath.Join(g.dir, "pages")
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	const head, stored = 4096, PageSize + 44
	at := func(n int) int { return head + n*stored }
	require.Len(t, good, at(3))
	try := func(what string, damage func(b []byte) []byte) {
		require.NoError(t, os.WriteFile(path, damage(bytes.Clone(good)), 0o600))
		got, err := g.f.Read(1, nil)
		require.ErrorIs(t, err, keyring.ErrCorrupt, what)
		require.Nil(t, got)
	}
	try("moved", func(b []byte) []byte { copy(b[at(1):at(2)], b[at(2):]); return b })
	for i := 0; i < stored; i += stored / 50 {
		try("altered", func(b []byte) []byte { b[at(1)+i] ^= 1; return b })
	}
	try("zeroed", func(b []byte) []byte { clear(b[at(1):at(2)]); return b })
	for _, end := range []int{at(1), at(1) + 1, at(2) - 1} {
		try("cut", func(b []byte) []byte { return b[:end] })
	}
	require.NoError(t, os.WriteFile(path, good[:at(2)], 0o600))
	require.NoError(t, g.f.Close())
	_, err = OpenFile(g.ctx, g.dir, g.k, nil)
	require.ErrorIs(t, err, keyring.ErrCorrupt, "it was cut off")
	require.NoError(t, os.WriteFile(path, good, 0o600))
	g.open()
	g.check(map[uint32]byte{0: 'z', 1: 'a', 2: 'b'})
}

// What is not noticed, as the top of file.go says: a page as it was before.
func TestRollback(t *testing.T) {
	g := newRig(t)
	path := filepath.Join(g.dir, "pages")
	require.NoError(t, g.f.Write(map[uint32][]byte{0: page('a')}))
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, g.f.Write(map[uint32][]byte{0: page('b')}))
	require.NoError(t, g.f.RotateEpoch(g.ctx))
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(now[:4096:4096], before[4096:]...), 0o600))
	g.check(map[uint32]byte{0: 'a'})
}

func TestWithoutTheKey(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.f.Write(map[uint32][]byte{1: page('a')}))
	g.v.Revoke()
	require.Error(t, g.f.Keys().Revalidate(g.ctx))
	_, err := g.f.Read(1, nil)
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	require.ErrorIs(t, g.f.Write(map[uint32][]byte{1: page('b')}), keyring.ErrInaccessible)
	require.ErrorIs(t, g.f.RotateEpoch(g.ctx), keyring.ErrInaccessible)

	// It opens without the key, unless that is to be an error; a new one does not.
	g.reopen()
	_, err = g.f.Read(1, nil)
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	require.NoError(t, g.f.Close())
	_, err = OpenFile(g.ctx, g.dir, g.k, &keyring.Options{RequireAccess: true})
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = OpenFile(g.ctx, t.TempDir(), g.k, nil)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	g.open()

	g.v.Restore()
	require.NoError(t, g.f.Keys().Revalidate(g.ctx))
	g.check(map[uint32]byte{1: 'a'})
	require.ErrorContains(t, g.f.Write(map[uint32][]byte{1: {1}}), "has 1 bytes")
}

// A key that is taken away in the middle of a change leaves it to be made, or not, when the key is back: as a
// whole, and without opening the file again.
func TestAccessEndsInAChange(t *testing.T) {
	g := newRig(t)
	want := map[uint32]byte{1: 'a', 2: 'b'}
	require.NoError(t, g.f.Write(map[uint32][]byte{1: page('a'), 2: page('b')}))
	for _, c := range []struct {
		name string
		made bool
		end  func(f *faulty, deny func())
	}{
		{"before the journal is durable", false, func(f *faulty, deny func()) { f.beforeWrite = deny }},
		{"after it", true, func(f *faulty, deny func()) { f.afterSync = deny }},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := &faulty{storage: g.f.journal.file}
			c.end(disk, func() {
				g.v.Revoke()
				require.Error(t, g.f.Keys().Revalidate(g.ctx))
			})
			g.f.journal.file = disk
			require.ErrorIs(t, g.f.Write(map[uint32][]byte{1: page('A'), 2: page('B')}), keyring.ErrInaccessible)
			_, err := g.f.Read(1, nil)
			require.ErrorIs(t, err, keyring.ErrInaccessible)
			g.v.Restore()
			require.NoError(t, g.f.Keys().Revalidate(g.ctx))
			if c.made {
				want[1], want[2] = 'A', 'B'
			}
			g.check(want)
			want[3] = 'c'
			require.NoError(t, g.f.Write(map[uint32][]byte{3: page('c')}))
			g.check(want)
		})
	}
}

func TestDemonstration(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), &out))
	require.Contains(t, out.String(), "key returned")
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, len(strings.TrimSpace(line)), 80)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0})
	f.Add(append([]byte{0, 0, 0, 1, 0, 0, 0, 7}, make([]byte, PageSize)...))
	f.Fuzz(func(t *testing.T, body []byte) {
		change, ok := decodeJournal(body)
		if !ok {
			require.Nil(t, change)
			return
		}
		for _, s := range change {
			require.Len(t, s.page, PageSize)
		}
	})
}
