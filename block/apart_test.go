package block_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// epochIn is the epoch that a DEK record names.
func epochIn(record string) uint32 { return binary.BigEndian.Uint32([]byte(record[1:])) }

// whatHas returns the DEK records of an offline copy, and the last epoch whose key it has.
func (g *rig) whatHas(dir string) (records map[string]string, epoch uint32) {
	g.t.Helper()
	o := g.opts
	o.ReadOnly = true
	s, err := block.Open(g.ctx, dir, g.kek, &o)
	require.NoError(g.t, err)
	defer s.Close()
	require.NoError(g.t, s.Revalidate(g.ctx))
	return s.Records(), s.State().Epoch
}

// Whatever is written while a checkpoint is made, by whichever operation, is either in the
// copy or under an epoch that the copy does not have: also what a batch sealed before.
func TestWhatIsNotInACopyIsUnderAnotherEpoch(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping, g.opts.VaultRate, g.opts.NoSync = w, 1<<30, true
			s := g.open()
			for i := range 50 {
				require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), nil))
			}
			early := s.NewBatch()
			require.NoError(t, early.Put(g.ctx, []byte("batch"), []byte("sealed before the copy")))
			ctx, cancel := context.WithCancel(g.ctx)
			defer cancel()
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						if err := s.Put(g.ctx, fmt.Appendf(nil, "writer %d, %d", i, n%64), nil); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := s.Rekey(ctx, block.Range{End: []byte("025")}, nil); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
			for i := range 5 {
				require.NoError(t, s.Checkpoint(g.ctx, fmt.Sprint("copy", i)))
			}
			cancel()
			wg.Wait()
			require.NoError(t, early.Commit(g.ctx))
			require.NoError(t, s.Put(g.ctx, []byte("late"), nil))
			records := s.Records()
			for i := range 5 {
				dir := fmt.Sprint("copy", i)
				c, last := g.whatHas(dir)
				same, other := 0, 0
				for id, r := range records {
					switch {
					case c[id] == r:
						same++
					case id >= "025" || c[id] == "": // what Rekey does is no news to the copy
						require.Greater(t, epochIn(r), last, "%s: %s", dir, id)
						other++
					}
				}
				require.Positive(t, same)
				require.Positive(t, other)
				require.Greater(t, epochIn(records["batch"]), last)
			}
			require.NoError(t, s.RotateEpoch(g.ctx, nil))
			_, err := s.Verify(g.ctx, nil)
			require.NoError(t, err)
		})
	}
}

// A store that is gone after a checkpoint, before it wrote anything, begins an epoch when
// it does; and one whose checkpoint was cut off as well.
func TestEpochAfterACheckpointOutlivesTheProcess(t *testing.T) {
	for _, how := range []string{"closed", "killed", "cut off"} {
		t.Run(how, func(t *testing.T) {
			g := newRig(t)
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
			if how == "cut off" {
				s.AnnounceCopy(t, g.ctx, "copy")
			} else {
				require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			}
			if how == "killed" {
				killed := vfs.NewMem()
				_, err := vfs.Clone(g.opts.Pebble.FS, killed, g.dir, g.dir, vfs.CloneSync)
				require.NoError(t, err)
				require.NoError(t, s.Close())
				g.opts.Pebble.FS = killed
			}
			require.NoError(t, s.Close())
			r := g.open()
			require.EqualValues(t, 1, r.State().Epoch, "to open it begins none")
			require.NoError(t, r.Put(g.ctx, []byte("b"), nil))
			require.EqualValues(t, 2, epochIn(r.Records()["b"]))
			require.EqualValues(t, 1, epochIn(r.Records()["a"]))
			require.NoError(t, r.Put(g.ctx, []byte("c"), nil))
			require.EqualValues(t, 2, r.State().Epoch)
		})
	}
}

// Without access a copy is made, and remembered. The process that made it vouches for it
// when access comes back; who finds it later does not, and says so. In either case what is
// written then is under another epoch.
func TestCopyThatIsMadeWithoutAccess(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprint("restarted ", restarted), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.ManualRevalidation = true
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
			require.NoError(t, s.Close())
			g.vault.Revoke(vault.OpUnwrapKey)
			s = g.open()
			require.Equal(t, keyring.Inaccessible, s.State().Status)
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			copies, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Len(t, copies, 1)
			require.Empty(t, copies[0].Doubt, "this process made it")
			uses, err := s.KeyUsage(g.ctx)
			require.ErrorIs(t, err, block.ErrIncomplete, "whether there are others nobody can tell")
			require.Len(t, needed(uses)[g.key].Copies, 1)
			if restarted {
				require.NoError(t, s.Close())
				s = g.open()
				copies, err = s.Copies(g.ctx)
				require.NoError(t, err)
				require.Contains(t, copies[0].Doubt, "nobody can tell")
			}
			g.vault.Restore(vault.OpUnwrapKey)
			require.NoError(t, s.Revalidate(g.ctx))
			require.NoError(t, s.Put(g.ctx, []byte("b"), nil))
			require.EqualValues(t, 2, epochIn(s.Records()["b"]))
			second := g.vault.Rotate("customer")
			require.NoError(t, s.RotateKEK(g.ctx))
			for range 2 { // it stays so
				copies, err = s.Copies(g.ctx)
				require.NoError(t, err)
				require.Len(t, copies, 1)
				if restarted {
					require.Contains(t, copies[0].Doubt, "nothing shows that this store made it")
					require.Equal(t, []vault.KeyID{g.key}, copies[0].KEKs)
				} else {
					require.Empty(t, copies[0].Doubt)
					require.Equal(t, []vault.KeyID{second}, copies[0].KEKs)
				}
				_, err = s.KeyUsage(g.ctx)
				require.NoError(t, err)
				require.NoError(t, s.Close())
				s = g.open()
			}
			// By hand it can be moved in either case.
			if restarted {
				require.NoError(t, block.ChangeCheckpointKEK(g.ctx, "copy", g.kek, g.kek, &g.opts))
			}
			opensCopy(g, "copy", "1")
			require.NoError(t, s.ForgetCopy(g.ctx, copies[0].Instance))
			copies, err = s.Copies(g.ctx)
			require.NoError(t, err)
			require.Empty(t, copies)
		})
	}
}

// To forget a copy that is registered takes access, to forget one that was only announced
// does not.
func TestForgetACopyWithoutAccess(t *testing.T) {
	g := newRig(t)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Checkpoint(g.ctx, "registered"))
	require.NoError(t, s.Close())
	g.vault.Revoke(vault.OpUnwrapKey)
	s = g.open()
	require.NoError(t, s.Checkpoint(g.ctx, "announced"))
	for range 2 {
		copies, err := s.Copies(g.ctx)
		require.NoError(t, err)
		for _, c := range copies {
			if err := s.ForgetCopy(g.ctx, c.Instance); c.Path == "registered" {
				require.ErrorIs(t, err, block.ErrInaccessible)
			} else {
				require.NoError(t, err)
			}
		}
	}
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 1)
	require.NoError(t, s.Close())
	s = g.open()
	copies, err = s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 1)
	require.Equal(t, "registered", copies[0].Path)
}

// All copies that are about to be moved are told of before the first is.
func TestCopiesAreListedBeforeTheyAreMoved(t *testing.T) {
	g := newRig(t)
	var mu sync.Mutex
	var told []keyring.Event
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.CopyDue || e.Kind == keyring.CopyKEKChanged || e.Kind == keyring.CopyKEKNotChanged {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, e)
		}
	}
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	want := map[string]bool{}
	for i := range 3 {
		dir := fmt.Sprint("copy ", i)
		require.NoError(t, s.Checkpoint(g.ctx, dir))
		want[dir] = true
	}
	require.NoError(t, g.opts.Pebble.FS.RemoveAll("copy 1"))
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(told) >= 6 }, "they are told")
	mu.Lock()
	defer mu.Unlock()
	due := map[string]bool{}
	for _, e := range told[:3] {
		require.Equal(t, keyring.CopyDue, e.Kind)
		require.Equal(t, second, e.Key)
		due[e.Detail] = true
	}
	require.Equal(t, want, due)
	for _, e := range told[3:6] {
		require.NotEqual(t, keyring.CopyDue, e.Kind)
	}
}

// Many checkpoints without a change between them are one epoch more, and with one between
// them one each; RotateEpoch leaves one.
func TestEpochsOfManyCheckpoints(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 20 {
		require.NoError(t, s.Checkpoint(g.ctx, fmt.Sprint("idle ", i)))
	}
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	require.Equal(t, 2, s.State().Epochs)
	for i := range 20 {
		require.NoError(t, s.Checkpoint(g.ctx, fmt.Sprint("busy ", i)))
		require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	}
	require.Equal(t, 22, s.State().Epochs)
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 40)
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.Equal(t, 1, s.State().Epochs)
	require.WithinDuration(t, start, copies[0].Made, time.Second)
}

// The copies that a store made are no concern of a copy's, before and after it is
// revalidated: it names none, and says that there are no others.
func TestCopiesOfACopy(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "first"))
	require.NoError(t, s.Checkpoint(g.ctx, "second"))
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	require.NoError(t, s.Checkpoint(g.ctx, "third"))
	for _, dir := range []string{"second", "third"} { // which was moved, and which was not
		c := *g
		c.dir = dir
		none := func() {
			t.Helper()
			in, err := block.Inspect(g.ctx, dir, &g.opts)
			require.NoError(t, err)
			require.False(t, in.Incomplete)
			require.Len(t, in.Keys, 1)
			require.Empty(t, in.Keys[0].Copies)
			require.Equal(t, []vault.KeyID{g.key, second}, in.PastKEKs)
		}
		none()
		r := c.open()
		copies, err := r.Copies(g.ctx)
		require.NoError(t, err)
		require.Empty(t, copies)
		require.NoError(t, r.Revalidate(g.ctx))
		_, err = r.KeyUsage(g.ctx)
		require.NoError(t, err)
		require.NoError(t, r.Checkpoint(g.ctx, dir+"'s"))
		copies, err = r.Copies(g.ctx)
		require.NoError(t, err)
		require.Len(t, copies, 1)
		receipt, err := r.Erase(g.ctx, nil)
		require.NoError(t, err)
		require.False(t, receipt.Incomplete)
		require.Len(t, receipt.Keys, 2)
		require.NoError(t, r.ForgetCopy(g.ctx, copies[0].Instance))
		require.NoError(t, r.Close())
		none()
	}
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 3)
}

// Near the bound on epochs a checkpoint is made all the same, and an event says that the copy
// opens what its source writes; until either of the two rotates. Nothing is wrapped twice for
// an epoch that does not begin.
func TestCheckpointsOfAStoreWithManyEpochs(t *testing.T) {
	g := newRig(t)
	g.opts.Keyring.MaxEpochs = 8
	var mu sync.Mutex
	var told []error
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.Progressed && e.Err != nil {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, e.Err)
		}
	}
	s := g.open()
	for i := range 12 {
		require.NoError(t, s.Checkpoint(g.ctx, fmt.Sprint("copy", i)))
		require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	}
	require.Equal(t, 7, s.State().Epochs)
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(told) > 0 }, "it is told")
	mu.Lock()
	require.Len(t, told, 1)
	require.ErrorIs(t, told[0], keyring.ErrLimit)
	mu.Unlock()
	before := s.Stats().Keys.Epoch.DEKs
	for range 10 {
		require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("later")))
	}
	require.EqualValues(t, 10, s.Stats().Keys.Epoch.DEKs-before)

	c := *g
	c.dir = "copy11"
	r := c.open()
	require.NoError(t, r.Revalidate(g.ctx))
	transplant := func() error {
		for _, space := range []string{"\x02", "\x03"} {
			key := []byte(space + "\x00\x00\x00\x00a")
			r.SetEngine(key, s.Engine(key))
		}
		_, err := r.Get(g.ctx, []byte("a"), nil)
		return err
	}
	require.NoError(t, transplant(), "this is not promised")
	require.NoError(t, r.RotateEpoch(g.ctx, nil))
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("last")))
	require.ErrorIs(t, transplant(), block.ErrCorrupt)
	require.NoError(t, r.Put(g.ctx, []byte("a"), nil))
}

// A batch that was sealed before a checkpoint and is the first that is committed after it is
// under an epoch that the copy does not have.
func TestBatchAcrossACheckpoint(t *testing.T) {
	g := newRig(t)
	s := g.open()
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.EqualValues(t, 1, s.State().Epoch)
	require.NoError(t, b.Commit(g.ctx))
	require.EqualValues(t, 2, epochIn(s.Records()["a"]))
	_, last := g.whatHas("copy")
	require.EqualValues(t, 1, last)
}
