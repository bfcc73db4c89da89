package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// otherVault returns a key in another vault.
func (g *rig) otherVault(name, key string) (*vaulttest.Vault, *kek.KEK) {
	v := vaulttest.New(&vaulttest.Options{Name: "mem:" + name, Clock: g.clock})
	return v, kek.New(v, v.CreateKey(key).Versionless())
}

// A batch that is open while its KEK leaves the keyring is refused, by whichever way
// that came about, and never acknowledged and lost; it can be made again.
func TestBatchesAcrossKEKChanges(t *testing.T) {
	for name, move := range map[string]func(g *rig, s *block.Store, put func()){
		"two versions on": func(g *rig, s *block.Store, put func()) {
			put()
			for range 2 {
				g.vault.Rotate(g.kek.ID().Name)
				require.NoError(g.t, s.RotateKEK(g.ctx))
				require.NoError(g.t, s.Put(g.ctx, []byte("x"), []byte("1")))
				require.NoError(g.t, s.RewrapDEKs(g.ctx, nil))
			}
		},
		"another KEK after it": func(g *rig, s *block.Store, put func()) {
			_, k2 := g.otherVault("second", "key")
			_, k3 := g.otherVault("third", "key")
			require.NoError(g.t, s.Put(g.ctx, []byte("x"), []byte("0"))) // so that the first stays in the table
			require.NoError(g.t, s.ChangeKEK(g.ctx, k2))
			put()
			require.NoError(g.t, s.ChangeKEK(g.ctx, g.kek))
			require.NoError(g.t, s.RewrapDEKs(g.ctx, nil))
			require.NoError(g.t, s.ChangeKEK(g.ctx, k3)) // whose id is not the second's
			g.kek = k3
		},
		"there and back": func(g *rig, s *block.Store, put func()) {
			_, k2 := g.otherVault("second", "key")
			put()
			first := g.kek
			require.NoError(g.t, s.ChangeKEK(g.ctx, k2))
			require.NoError(g.t, s.RewrapDEKs(g.ctx, nil))
			require.NoError(g.t, s.ChangeKEK(g.ctx, first)) // under an id of its own
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newByKEKRig(t)
			s := g.open()
			b := s.NewBatch()
			move(g, s, func() { require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("1"))) })
			require.ErrorIs(t, b.Commit(g.ctx), block.ErrStale)
			_, err := s.Get(g.ctx, []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrNotFound)
			b = s.NewBatch()
			require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("1")))
			require.NoError(t, b.Commit(g.ctx))
			require.NoError(t, s.RewrapDEKs(g.ctx, nil))
			require.NoError(t, s.Close())
			got, err := g.open().Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, "1", string(got))
		})
	}
}

// As long as a KEK stays in the keyring, a batch that was begun under it commits.
func TestBatchUnderAKEKThatStays(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("b"), []byte("2")))
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	sealed := s.Engine([]byte(dataA))
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)-1] ^= 1
	s.SetEngine([]byte(dataA), damaged)
	require.ErrorIs(t, s.RewrapDEKs(g.ctx, nil), block.ErrCorrupt, "a record that stays needs the version before")
	require.NoError(t, b.Commit(g.ctx))
	got, err := s.Get(g.ctx, []byte("b"), nil)
	require.NoError(t, err)
	require.Equal(t, "2", string(got))
	s.SetEngine([]byte(dataA), sealed)
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
}

// askedContext calls a function each time when somebody asks whether it has ended.
type askedContext struct {
	context.Context
	asked func()
}

func (c askedContext) Err() error {
	c.asked()
	return c.Context.Err()
}

// While RewrapDEKs looks for KEKs that no record names, the store moves back to one of
// them, a batch is committed under it, and the store moves on: RewrapDEKs looks again,
// and what was committed opens.
func TestKEKChangesWhileKEKsAreDropped(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.Keyring.Wrapping, g.opts.NoSync = keyring.ByKeyring, true
	s := g.open()
	b := s.NewBatch()
	for i := range 1100 { // after 1,024 records it is asked whether to go on
		require.NoError(t, b.Put(g.ctx, fmt.Appendf(nil, "m%04d", i), nil))
	}
	require.NoError(t, b.Commit(g.ctx))
	require.NoError(t, s.Close())
	g.opts.Keyring.Wrapping, g.opts.Keyring.DEKCache = keyring.ByKEK, -1
	s = g.open()
	require.NoError(t, s.Put(g.ctx, []byte("x"), nil)) // so that the first KEK stays in the table
	_, k2 := g.otherVault("second", "key")
	require.NoError(t, s.ChangeKEK(g.ctx, k2))

	once := false
	ctx := askedContext{g.ctx, func() {
		if once || !s.DroppingKEKs() {
			return
		}
		once = true
		require.NoError(t, s.ChangeKEK(g.ctx, g.kek))
		b := s.NewBatch()
		require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("1")))
		require.NoError(t, b.Commit(g.ctx))
		require.NoError(t, s.ChangeKEK(g.ctx, k2))
	}}
	require.NoError(t, s.RewrapDEKs(ctx, nil))
	require.True(t, once)
	require.False(t, s.DroppingKEKs())
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1, "nothing needs the first KEK")
	require.NoError(t, s.Close())
	g.kek = k2
	got, err := g.open().Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "1", string(got))
}

// A scan and a snapshot go on reading the records of their moment when those have been
// rewrapped and the KEK has left the keyring.
func TestScanAcrossRewrapDEKs(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.Keyring.DEKCache = -1
	s := g.open()
	for i := range 30 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%02d", i), fmt.Append(nil, i)))
	}
	snap := s.Snapshot()
	n := 0
	for b, err := range s.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(n), string(b.Data))
		if n++; n == 1 {
			g.vault.Rotate("customer")
			require.NoError(t, s.RotateKEK(g.ctx))
			require.NoError(t, s.RewrapDEKs(g.ctx, nil))
		}
	}
	require.Equal(t, 30, n)
	got, err := snap.Get(g.ctx, []byte("07"), nil)
	require.NoError(t, err)
	require.Equal(t, "7", string(got))
	require.NoError(t, snap.Close())
}

// Writers go on while the KEK moves there and back between keys and versions and DEKs
// follow: what is acknowledged opens, and in the end needs the present KEK alone.
func TestWritersWhileKEKsMove(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.NoSync = true
	s := g.open()
	second, k2 := g.otherVault("second", "key")
	var moved atomic.Bool
	var rounds atomic.Int64
	var stale atomic.Int64
	var wg sync.WaitGroup
	acked := make([]map[string]string, 3)
	for w := range acked {
		acked[w] = map[string]string{}
		wg.Go(func() {
			for n := 0; !moved.Load() && !t.Failed(); n++ {
				next := map[string]string{}
				b := s.NewBatch()
				for i := range 3 {
					id, data := fmt.Sprint(w, " ", (n+i)%9), fmt.Sprint(n, " ", i)
					next[id] = data
					check(t, b.Put(g.ctx, []byte(id), []byte(data)))
				}
				for until := rounds.Load() + 2; n%4 == w && rounds.Load() < until && !moved.Load(); {
					runtime.Gosched() // some stay open for long
				}
				err := b.Commit(g.ctx)
				if errors.Is(err, block.ErrStale) {
					stale.Add(1)
					continue
				}
				check(t, err)
				for id, data := range next {
					acked[w][id] = data
				}
				check(t, s.Put(g.ctx, fmt.Append(nil, w, " put"), fmt.Append(nil, n)))
				acked[w][fmt.Sprint(w, " put")] = fmt.Sprint(n)
			}
		})
	}
	wg.Go(func() {
		for !moved.Load() && !t.Failed() {
			check(t, s.RewrapDEKs(g.ctx, nil))
		}
	})
	// The writers may not have begun: until a batch has met a KEK that left, nothing was tried.
	for n := 0; (n < 8 || stale.Load() == 0) && !t.Failed(); n++ {
		check(t, s.ChangeKEK(g.ctx, k2))
		check(t, s.ChangeKEK(g.ctx, g.kek))
		g.vault.Rotate("customer")
		check(t, s.RotateKEK(g.ctx))
		check(t, s.RewrapDEKs(g.ctx, nil))
		rounds.Add(1)
	}
	moved.Store(true)
	wg.Wait()
	require.Positive(t, stale.Load())
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	second.Delete("key")
	require.NoError(t, s.Close())
	s = g.open()
	for _, blocks := range acked {
		for id, data := range blocks {
			got, err := s.Get(g.ctx, []byte(id), nil)
			require.NoError(t, err, id)
			require.Equal(t, data, string(got), id)
		}
	}
}

// The store moves to a key of the same name in another vault, and was told of neither
// which vault it is in: what the one before has wrapped is still reached.
func TestChangeVaultUnderOneName(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newByKEKRig(t)
			g.opts.Keyring.Wrapping, g.opts.Keyring.DEKCache = w, -1
			g.kek = kek.New(g.vault, vault.KeyID{Name: "customer"})
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			other, k := g.otherVault("other", "customer")
			before := g.vault
			g.vault, g.kek = other, kek.New(other, vault.KeyID{Name: k.ID().Name})
			require.NoError(t, s.ChangeKEK(g.ctx, g.kek))
			copies, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Equal(t, "mem:other", copies[0].KEK.Vault, "the copy is moved along")
			got, err := s.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, "1", string(got))
			require.NoError(t, s.RewrapDEKs(g.ctx, nil))
			before.Delete("customer")
			_, err = s.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			c := *g
			c.dir = "copy"
			r := c.open()
			require.NoError(t, r.Revalidate(g.ctx))
			_, err = r.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
		})
	}
}

// ChangeCheckpointKEK that was cut off goes on, between keys of one name too.
func TestChangeCheckpointKEKGoesOn(t *testing.T) {
	for _, name := range []string{"key", "customer"} {
		t.Run(name, func(t *testing.T) {
			g := newByKEKRig(t)
			s := g.open()
			for i := range 5 {
				require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), fmt.Append(nil, "data ", i)))
			}
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			other, k := g.otherVault("other", name)
			from, to := kek.New(g.vault, vault.KeyID{Name: "customer"}), kek.New(other, vault.KeyID{Name: k.ID().Name})
			other.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Nth: 4, Err: vaulttest.NetworkGone()}) // of the document, and two records
			require.ErrorIs(t, block.ChangeCheckpointKEK(g.ctx, "copy", from, to, &g.opts), vault.ErrUnavailable)
			in, err := block.Inspect(g.ctx, "copy", &g.opts)
			require.NoError(t, err)
			require.Equal(t, "mem:other", in.Keyring.KEK.Vault)
			require.Len(t, in.Keyring.KEKs, 2, "it was cut off")

			require.NoError(t, block.ChangeCheckpointKEK(g.ctx, "copy", from, to, &g.opts))
			in, err = block.Inspect(g.ctx, "copy", &g.opts)
			require.NoError(t, err)
			require.Len(t, in.Keyring.KEKs, 1)
			g.vault.Delete("customer")
			r, err := block.Open(g.ctx, "copy", to, &g.opts)
			require.NoError(t, err)
			defer r.Close()
			require.NoError(t, r.Revalidate(g.ctx))
			_, err = r.Verify(g.ctx, nil)
			require.NoError(t, err)
			g.vault.Recover("customer") // for the rig's own store
		})
	}
}
