package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
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

// sealed is a change of one page.
func (g *rig) sealed(n uint32, b byte) []slot {
	h, err := g.f.keys.Acquire()
	require.NoError(g.t, err)
	defer func() { h.Release() }()
	s, err := seal(g.ctx, &h, n, page(b))
	require.NoError(g.t, err)
	return []slot{s}
}

func page(b byte) []byte { return bytes.Repeat([]byte{b}, PageSize) }

func (g *rig) check(want map[uint32]byte) {
	g.t.Helper()
	for n := range uint32(20) {
		got, err := g.f.Read(g.ctx, n, []byte("before"))
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
			require.NoError(t, g.f.Write(g.ctx, change))
		}
	}
	g.check(want)
	epochs, err := g.f.Keys().Epochs()
	require.NoError(t, err)
	require.Len(t, epochs, 1)
}

// A change that is whole in the journal is made, however much of it is in the files;
// one that is not is as if it had not begun.
func TestCrash(t *testing.T) {
	g := newRig(t)
	was := map[uint32]byte{1: 'a', 2: 'b'}
	require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('a'), 2: page('b')}))
	change := append(g.sealed(2, 'B'), g.sealed(3, 'C')...)
	require.NoError(t, g.f.journal.write(change))
	path := filepath.Join(g.dir, "journal")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)

	for _, n := range []int{0, 1, 31, 32, 33, 39, 40, 41, 44, 45, 200, len(whole) / 2, len(whole) - 1} {
		require.NoError(t, os.WriteFile(path, whole[:n], 0o600))
		g.reopen()
		g.check(was)
	}
	bad := bytes.Clone(whole)
	bad[len(bad)-1] ^= 1
	require.NoError(t, os.WriteFile(path, bad, 0o600))
	g.reopen()
	g.check(was)

	require.NoError(t, g.f.apply(change[:1])) // the crash came in the middle
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	g.reopen()
	is := map[uint32]byte{1: 'a', 2: 'B', 3: 'C'}
	g.check(is)
	g.reopen()
	g.check(is)

	// What an earlier, longer change has left behind is not of the change.
	require.NoError(t, g.f.journal.write(append(g.sealed(1, 'x'), g.sealed(2, 'x')...)))
	require.NoError(t, g.f.journal.write(g.sealed(1, 'A')))
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
		require.ErrorIs(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('y'), 2: page('y')}), errDisk)
		*disk = faulty{storage: disk.storage}
		require.ErrorIs(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('z')}), errDisk)
		require.ErrorIs(t, g.f.RotateEpoch(g.ctx), errDisk)
		_, err := g.f.Read(g.ctx, 1, nil)
		require.ErrorIs(t, err, errDisk)
		g.reopen()
		if c.made {
			is[1], is[2] = 'y', 'y'
		}
		g.check(is)
		is[1], is[2] = 'm', 'n'
		require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('m'), 2: page('n')}))
		g.check(is)
	}
}

// faulty is a file of which single operations fail: a write in its middle, a sync after
// it was done.
type faulty struct {
	storage
	write, sync, truncate error
}

var errDisk = errors.New("the disk failed")

func (f *faulty) WriteAt(p []byte, off int64) (int, error) {
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

func (f *faulty) Sync() error { return errors.Join(f.storage.Sync(), f.sync) }

// Pages, and their records, cannot be altered, moved or cut, and neither can be taken
// away alone.
func TestDamage(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('a'), 2: page('b')}))
	for name, size := range map[string]int{"pages": pageSlot, "records": recordSlot} {
		path := filepath.Join(g.dir, name)
		good, err := os.ReadFile(path)
		require.NoError(t, err)
		try := func(what string, damage func(b []byte) []byte) {
			require.NoError(t, os.WriteFile(path, damage(bytes.Clone(good)), 0o600))
			got, err := g.f.Read(g.ctx, 1, nil)
			require.True(t, errors.Is(err, ErrDamaged) || errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, keyring.ErrVersion), "%s: %v", what, err)
			require.Nil(t, got)
		}
		try("moved", func(b []byte) []byte { copy(b[size:2*size], b[2*size:]); return b })
		for i := 0; i < size; i += max(size/50, 1) {
			try("altered", func(b []byte) []byte { b[size+i] ^= 1; return b })
		}
		try("zeroed", func(b []byte) []byte { clear(b[size : 2*size]); return b })
		for _, end := range []int{size, size + 1, 2*size - 1} {
			try("cut", func(b []byte) []byte { return b[:end] })
		}
		require.NoError(t, os.WriteFile(path, good, 0o600))
	}
	g.check(map[uint32]byte{1: 'a', 2: 'b'})

	// A record that was cut does not lose its epoch.
	path := filepath.Join(g.dir, "records")
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, int64(len(good)-1)))
	require.ErrorIs(t, g.f.RotateEpoch(g.ctx), ErrDamaged)
	require.NoError(t, os.WriteFile(path, good, 0o600))
	g.check(map[uint32]byte{1: 'a', 2: 'b'})
}

// What is not noticed, as the top of file.go says, and how long.
func TestRollback(t *testing.T) {
	g := newRig(t)
	files := func() (b [2][]byte) {
		for i, name := range []string{"pages", "records"} {
			var err error
			b[i], err = os.ReadFile(filepath.Join(g.dir, name))
			require.NoError(t, err)
		}
		return b
	}
	putBack := func(b [2][]byte) {
		for i, name := range []string{"pages", "records"} {
			require.NoError(t, os.WriteFile(filepath.Join(g.dir, name), b[i], 0o600))
		}
	}
	require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('a')}))
	before := files()
	require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('b')}))
	now := files()
	putBack(before)
	g.check(map[uint32]byte{1: 'a'})
	putBack([2][]byte{make([]byte, len(now[0])), make([]byte, len(now[1]))})
	g.check(nil)

	putBack(now)
	require.NoError(t, g.f.RotateEpoch(g.ctx))
	g.check(map[uint32]byte{1: 'b'})
	putBack(before)
	_, err := g.f.Read(g.ctx, 1, nil)
	require.ErrorIs(t, err, keyring.ErrCorrupt)
}

// A record that was wrapped ByKEK is larger than its slot, and would lie over its
// neighbours.
// An epoch that begins by itself while the epoch is rotated takes no page along: those that were
// rewrapped before it name the one that the rotation began.
func TestAnEpochBeginsWhileTheEpochIsRotated(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.f.Close())
	var err error
	g.f, err = OpenFile(g.ctx, g.dir, g.k, &keyring.Options{EpochMaxDEKs: 5})
	require.NoError(t, err)
	want := map[uint32]byte{}
	for n := range uint32(20) {
		want[n] = 'a' + byte(n)
		require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{n: page(want[n])}))
	}
	before := g.f.Keys().State().Epoch
	require.NoError(t, g.f.RotateEpoch(g.ctx))
	require.Greater(t, g.f.Keys().State().Epoch, before+1, "some have begun by themselves")
	g.check(want)
	g.reopen()
	g.check(want)
}

func TestByKEKIsRefused(t *testing.T) {
	g := newRig(t)
	byKEK := &keyring.Options{Wrapping: keyring.ByKEK}
	dir := filepath.Join(t.TempDir(), "new")
	_, err := OpenFile(g.ctx, dir, g.k, byKEK)
	require.ErrorIs(t, err, ErrWrapping)
	require.NoDirExists(t, dir)

	// The document says so.
	dir = t.TempDir()
	keys, err := keyring.Create(g.ctx, keyring.FileStorage(filepath.Join(dir, "keyring")), g.k, byKEK)
	require.NoError(t, err)
	require.NoError(t, keys.Close())
	_, err = OpenFile(g.ctx, dir, g.k, nil)
	require.ErrorIs(t, err, ErrWrapping)

	// Opened locked, it is known only later.
	g.v.Revoke()
	f, err := OpenFile(g.ctx, dir, g.k, nil)
	require.NoError(t, err)
	defer f.Close()
	g.v.Restore()
	require.NoError(t, f.Keys().Revalidate(g.ctx))
	require.ErrorIs(t, f.Write(g.ctx, map[uint32][]byte{0: page('a')}), ErrWrapping)
	got, err := f.Read(g.ctx, 0, nil) // nothing was written, and the file is not broken
	require.NoError(t, err)
	require.Equal(t, page(0), got)
}

func TestWithoutTheKey(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('a')}))
	g.v.Revoke()
	require.Error(t, g.f.Keys().Revalidate(g.ctx))
	_, err := g.f.Read(g.ctx, 1, nil)
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	require.ErrorIs(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('b')}), keyring.ErrInaccessible)
	require.ErrorIs(t, g.f.RotateEpoch(g.ctx), keyring.ErrInaccessible)

	// It opens without the key, unless that is to be an error; a new one does not.
	g.reopen()
	_, err = g.f.Read(g.ctx, 1, nil)
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
	require.ErrorContains(t, g.f.Write(g.ctx, map[uint32][]byte{1: {1}}), "has 1 bytes")
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
	f.Add(append([]byte{0, 0, 0, 1, 0, 0, 0, 7, 0}, make([]byte, recordSlot)...))
	f.Fuzz(func(t *testing.T, body []byte) {
		change, ok := decodeJournal(body)
		if !ok {
			require.Nil(t, change)
			return
		}
		for _, s := range change {
			require.Len(t, s.record, recordSlot)
		}
	})
}
