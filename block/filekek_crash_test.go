package block_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/local"
)

// TestCrashDuringSealedCreation cuts off OpenDB of a new directory, and the first store, at each file
// operation. What is left opens with the KEK of the files, and has the store if that was acknowledged; and
// without it, nothing is opened or made that was to be sealed.
func TestCrashDuringSealedCreation(t *testing.T) {
	g := newFilesRig(t)
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	var clones []*vfs.MemFS
	var made []bool // that the store was acknowledged
	acknowledged := false
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			for _, percent := range []int{0, 50} {
				clones = append(clones, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
				made = append(made, acknowledged)
			}
		}
		return nil
	}))
	o := g.opts
	o.Pebble.FS = fs
	db, err := block.OpenDB(g.ctx, "db", &o)
	require.NoError(t, err)
	s, err := db.Create(g.ctx, "a", g.kek("a"), &g.store)
	require.NoError(t, err)
	put(t, s, "one", "first")
	mu.Lock()
	acknowledged = true
	mu.Unlock()
	require.NoError(t, db.Close())
	require.Greater(t, len(clones), 40)

	for i, left := range clones {
		o.Pebble.FS = left
		plain := o
		plain.FileKEK, plain.ReadOnly = nil, true
		if db, err := block.OpenDB(g.ctx, "db", &plain); err == nil {
			require.NoError(t, db.Close())
			t.Fatalf("clone %d: it opened without the KEK of the files", i)
		}
		db, err := block.OpenDB(g.ctx, "db", &o)
		require.NoError(t, err, "clone %d", i)
		s, err := db.Open(g.ctx, "a", g.kek("a"), &g.store)
		switch {
		case made[i]:
			require.NoError(t, err, "clone %d", i)
			holds(t, s, "one", "first")
		case err != nil:
			require.ErrorIs(t, err, block.ErrNoStore, "clone %d", i)
			s, err = db.Create(g.ctx, "a", g.kek("a"), &g.store)
			require.NoError(t, err, "clone %d", i)
		}
		put(t, s, "two", "second")
		require.NoError(t, db.Close(), "clone %d", i)
	}
}

// TestFileKEKRevokedUnderWriters has a file vault take the KEK of the files away and give it back while
// stores are written and read, flushed, compacted, rotated and copied. Nothing that was acknowledged is
// lost, nothing older is read, no error is another than the one it should be, and the process goes on.
func TestFileKEKRevokedUnderWriters(t *testing.T) {
	g := newDBRig(t)
	require.NoError(t, g.db.Close())
	g.opts.Pebble = block.PebbleOptions{FS: vfs.NewMem(), MemTable: 256 << 10, BlockCache: 256 << 10,
		Fatal: func(msg string) { panic("the engine could not go on: " + msg) }}
	operator, err := local.Create(filepath.Join(t.TempDir(), "vault"), []byte("only a test"), &local.Options{
		Clock: g.clock, InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 10}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, operator.Close()) })
	key, err := operator.CreateKey(t.Context(), "files", nil)
	require.NoError(t, err)
	require.NoError(t, operator.Grant(t.Context(), "db", local.DataPlane()...))
	enable := func(enabled bool) {
		_, err := operator.UpdateKey(t.Context(), key.ID, local.Update{Enabled: &enabled})
		require.NoError(t, err)
	}
	g.opts.FileKEK = kek.New(operator.As("db"), key.ID.Versionless())
	// By the system's clock: access that is back before anybody has noticed that it was lost closes nothing,
	// and a compaction that wanted to write meanwhile looks again after a while.
	g.opts.FileKeyring = keyring.Options{}
	g.openDB()

	const writers, rounds = 4, 6
	type written struct {
		mu           sync.Mutex
		acked, begun map[string]uint64
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	var acks, refusals atomic.Int64
	known := make([]written, writers)
	stores := make([]*block.Store, writers)
	value := func(n uint64) []byte {
		return append(binary.BigEndian.AppendUint64(nil, n), bytes.Repeat([]byte{byte(n)}, 2000)...)
	}
	for w := range writers {
		s, k := g.create(fmt.Sprint("store-", w)), &known[w]
		stores[w], k.acked, k.begun = s, map[string]uint64{}, map[string]uint64{}
		right := func(err error) {
			if !errorIsFileKEK(err) {
				t.Errorf("store %d: %v", w, err)
				stop()
			}
			refusals.Add(1)
		}
		running.Go(func() {
			for n := uint64(1); ctx.Err() == nil; n++ {
				id := fmt.Sprint(n % 37)
				k.mu.Lock()
				k.begun[id] = n
				k.mu.Unlock()
				var err error
				if n%5 == 0 {
					b := s.NewBatch()
					if err = b.Put(t.Context(), []byte(id), value(n)); err == nil {
						err = b.Commit(t.Context())
					}
					b.Close()
				} else {
					err = s.Put(t.Context(), []byte(id), value(n))
				}
				if err != nil {
					right(err)
					continue
				}
				k.mu.Lock()
				k.acked[id] = n
				k.mu.Unlock()
				acks.Add(1)
			}
		})
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if i%20 == 0 {
					for b, err := range s.Blocks(t.Context(), block.Range{}) {
						if err != nil {
							right(err)
						} else if len(b.Data) != 2008 {
							t.Errorf("block %q has %d bytes", b.ID, len(b.Data))
						}
					}
				}
				id := fmt.Sprint(i % 37)
				k.mu.Lock()
				least := k.acked[id]
				k.mu.Unlock()
				got, err := s.Get(t.Context(), []byte(id), nil)
				switch {
				case errorIsFileKEK(err):
					refusals.Add(1)
				case err != nil:
					if least > 0 || !strings.Contains(err.Error(), "not found") {
						t.Errorf("store %d, block %s: %v", w, id, err)
						stop()
					}
				default:
					if n := binary.BigEndian.Uint64(got); n < least {
						t.Errorf("store %d, block %s: %d was acknowledged, and %d is read", w, id, least, n)
						stop()
					}
				}
			}
		})
	}
	running.Go(func() {
		for ctx.Err() == nil {
			if err := stores[0].RotateEpoch(t.Context(), nil); err != nil && !errorIsFileKEK(err) {
				t.Errorf("rotate: %v", err)
			}
			if _, err := g.db.RotateFileEpoch(t.Context()); err != nil && !errorIsFileKEK(err) {
				t.Errorf("rotate the files: %v", err)
			}
		}
	})
	more := func(n *atomic.Int64, by int64) {
		from := n.Load()
		require.Eventually(t, func() bool { return n.Load() >= from+by || ctx.Err() != nil }, 2*time.Minute, time.Millisecond)
	}
	for range rounds {
		more(&acks, 100)
		enable(false)
		require.Error(t, g.db.RevalidateFileKEK(t.Context()))
		more(&refusals, 20)
		enable(true)
		require.NoError(t, g.db.RevalidateFileKEK(t.Context()))
	}
	more(&acks, 100)
	stop()
	running.Wait()
	check := func() {
		for w, s := range stores {
			for id, n := range known[w].acked {
				got, err := s.Get(t.Context(), []byte(id), nil)
				require.NoError(t, err)
				is := binary.BigEndian.Uint64(got)
				require.GreaterOrEqual(t, is, n, "store %d, block %s", w, id)
				require.LessOrEqual(t, is, known[w].begun[id])
			}
			rep, err := s.Verify(t.Context(), nil)
			require.NoError(t, err)
			require.Empty(t, rep.Problems)
		}
	}
	check()
	g.reopen()
	for w := range stores {
		name := fmt.Sprint("store-", w)
		stores[w], err = g.db.Open(g.ctx, name, g.kek(name), &g.store)
		require.NoError(t, err)
	}
	check()
}

func errorIsFileKEK(err error) bool {
	return err != nil && errors.Is(err, block.ErrFileKEK) && errors.Is(err, keyring.ErrInaccessible)
}
