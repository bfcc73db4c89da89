package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
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
	h, err := g.f.keys.Acquire()
	require.NoError(t, err)
	var change []slot
	for n, b := range map[uint32]byte{2: 'B', 3: 'C'} {
		s, err := seal(g.ctx, &h, n, page(b))
		require.NoError(t, err)
		change = append(change, s)
	}
	h.Release()
	require.NoError(t, g.f.journal.write(change))
	path := filepath.Join(g.dir, "journal")
	whole, err := os.ReadFile(path)
	require.NoError(t, err)

	for _, n := range []int{0, 1, 31, 32, 33, 36, 40, 41, 200, len(whole) / 2, len(whole) - 1} {
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
}

// Pages, and their records, cannot be altered, moved or taken from before.
func TestDamage(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.f.Write(g.ctx, map[uint32][]byte{1: page('a'), 2: page('b')}))
	for name, size := range map[string]int{"pages": pageSlot, "records": recordSlot} {
		path := filepath.Join(g.dir, name)
		good, err := os.ReadFile(path)
		require.NoError(t, err)
		try := func(what string, damage func(b []byte)) {
			b := bytes.Clone(good)
			damage(b)
			require.NoError(t, os.WriteFile(path, b, 0o600))
			got, err := g.f.Read(g.ctx, 1, nil)
			require.True(t, errors.Is(err, ErrDamaged) || errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, keyring.ErrVersion), "%s: %v", what, err)
			require.Nil(t, got)
		}
		try("moved", func(b []byte) { copy(b[size:2*size], b[2*size:]) })
		for i := 0; i < size; i += max(size/50, 1) {
			try("altered", func(b []byte) { b[size+i] ^= 1 })
		}
		require.NoError(t, os.WriteFile(path, good, 0o600))
	}
	g.check(map[uint32]byte{1: 'a', 2: 'b'})
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
	g.v.Restore()
	require.NoError(t, g.f.Keys().Revalidate(g.ctx))
	g.check(map[uint32]byte{1: 'a'})
	require.ErrorContains(t, g.f.Write(g.ctx, map[uint32][]byte{1: {1}}), "has 1 bytes")
}

func TestDemonstration(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(context.Background(), nil, &out))
	require.Contains(t, out.String(), "key returned")
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
