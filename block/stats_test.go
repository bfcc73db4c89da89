package block_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func TestStatsCountWhatWasDone(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), make([]byte, 100)))
	require.NoError(t, s.Put(g.ctx, []byte("b"), make([]byte, 10)))
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("c"), make([]byte, 1)))
	require.NoError(t, b.Delete(g.ctx, []byte("b")))
	require.Zero(t, s.Stats().Commits, "a batch counts when it is committed")
	require.EqualValues(t, 2, s.Stats().Puts)
	require.NoError(t, b.Commit(g.ctx))
	require.NoError(t, s.Delete(g.ctx, []byte("nothing")))

	got, err := s.Get(g.ctx, []byte("a"), []byte("12345"))
	require.NoError(t, err)
	require.Len(t, got, 105)
	_, err = s.Get(g.ctx, []byte("b"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	sn := s.Snapshot()
	_, err = sn.Get(g.ctx, []byte("c"), nil)
	require.NoError(t, err)
	require.NoError(t, sn.Close())
	for _, err := range s.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
	}

	st := s.Stats()
	require.Equal(t, s.StoreID(), st.StoreID)
	require.EqualValues(t, 3, st.Puts)
	require.EqualValues(t, 111, st.WrittenBytes)
	require.EqualValues(t, 2, st.Deletes)
	require.EqualValues(t, 1, st.Commits)
	require.EqualValues(t, 2, st.Gets)
	require.EqualValues(t, 101, st.ReadBytes)
	require.EqualValues(t, 1, st.NotFound)
	require.EqualValues(t, 2, st.Scanned)
	require.EqualValues(t, 101, st.ScannedBytes)
	require.GreaterOrEqual(t, st.Keys.Epoch.DEKs, uint64(3))
	require.EqualValues(t, keyring.DefaultEpochMaxDEKs, st.Keys.Epoch.MaxDEKs)
	require.Positive(t, st.RecordCache.Hits+st.RecordCache.Misses)
	require.Positive(t, st.Engine.DiskBytes)
	for op, kinds := range st.Failures {
		for kind, n := range kinds {
			require.Zero(t, n, "%s %s", op, kind)
		}
	}
}

func TestStatsTellTheLeaseAndTheKey(t *testing.T) {
	g := newRig(t)
	g.vault.SetDates(g.key, time.Time{}, start.Add(48*time.Hour))
	g.clock.Advance(time.Hour)
	s := g.open()
	st := s.Stats()
	require.Equal(t, keyring.MaxLease, st.Keys.LeaseLeft)
	require.Equal(t, time.Hour, st.KEKAge)
	require.Equal(t, 47*time.Hour, st.KEKLeft)

	g.vault.Inject(vaulttest.Fault{Err: vault.ErrUnavailable})
	g.clock.Advance(4 * time.Minute)
	require.Eventually(t, func() bool { return s.Stats().State.Status == keyring.Degraded }, time.Minute, time.Millisecond)
	st = s.Stats()
	require.Equal(t, 6*time.Minute, st.Keys.LeaseLeft)
	require.Positive(t, st.Keys.Checks.Unanswered)
	require.Zero(t, st.Keys.Checks.Denied)

	g.clock.Advance(7 * time.Minute)
	require.Eventually(t, func() bool { return s.Stats().State.Status == keyring.Inaccessible }, time.Minute, time.Millisecond)
	st = s.Stats()
	require.Zero(t, st.Keys.LeaseLeft)
	require.Zero(t, st.Keys.Epoch)
	require.Equal(t, 48*time.Hour, st.KEKAge+st.KEKLeft, "what was last known of the key is still told")
	_, err := s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.ErrorIs(t, s.Put(g.ctx, []byte("a"), nil), block.ErrInaccessible)
	require.ErrorIs(t, s.Delete(g.ctx, []byte("a")), block.ErrInaccessible)
	require.ErrorIs(t, s.NewBatch().Commit(g.ctx), block.ErrInaccessible)
	_, err = s.Has(g.ctx, []byte("a"))
	require.ErrorIs(t, err, block.ErrInaccessible)
	for _, err := range s.Blocks(g.ctx, block.Range{}) {
		require.ErrorIs(t, err, block.ErrInaccessible)
	}
	for _, op := range []string{"get", "has", "scan", "put", "delete", "commit"} {
		require.EqualValues(t, 1, s.Stats().Failures[op]["inaccessible"], op)
	}
	require.EqualValues(t, 2, s.Stats().OpenFailures()["inaccessible"])
	b := s.NewBatch()
	require.ErrorIs(t, b.Put(g.ctx, []byte("a"), nil), block.ErrInaccessible)
	require.ErrorIs(t, b.Delete(g.ctx, []byte("a")), block.ErrInaccessible)
	require.ErrorIs(t, b.Put(g.ctx, nil, nil), block.ErrInvalidID)
	require.NoError(t, b.Close())
	for _, op := range []string{"put", "delete"} {
		require.EqualValues(t, 2, s.Stats().Failures[op]["inaccessible"], op)
		require.Zero(t, s.Stats().Failures[op]["other"], op)
	}

	require.NoError(t, s.Close())
	st = s.Stats()
	require.Equal(t, keyring.Closed, st.State.Status)
	require.Zero(t, st.Engine)
}

// A scan that a lock ends in the middle has failed, whether it reads ahead by then or not.
func TestStatsCountScansThatALockEnds(t *testing.T) {
	for _, blocks := range []int{5, 200} {
		g := newRig(t)
		s := g.open()
		for i := range blocks {
			require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%04d", i), []byte("data")))
		}
		var last error
		n := 0
		for _, err := range s.Blocks(g.ctx, block.Range{}) {
			if n++; n == blocks-1 {
				g.vault.SetEnabled(g.key, false)
				require.Error(t, s.Revalidate(g.ctx))
			}
			last = err
		}
		require.ErrorIs(t, last, block.ErrInaccessible)
		require.Equal(t, blocks, n)
		require.EqualValues(t, 1, s.Stats().Failures["scan"]["inaccessible"])
		require.EqualValues(t, blocks-1, s.Stats().Scanned)
	}
}

func TestStatsCountCallersThatGiveUp(t *testing.T) {
	g := newRig(t)
	s := g.open()
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	id := []byte("a")
	_, err := s.Get(ctx, id, nil)
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Has(ctx, id)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Put(ctx, id, nil), context.Canceled)
	require.ErrorIs(t, s.Delete(ctx, id), context.Canceled)
	require.ErrorIs(t, s.NewBatch().Commit(ctx), context.Canceled)
	for _, err := range s.Blocks(ctx, block.Range{}) {
		require.ErrorIs(t, err, context.Canceled)
	}
	for op, kinds := range s.Stats().Failures {
		if op != "verify" && op != "rewrite" {
			require.EqualValues(t, 1, kinds["canceled"], op)
		}
	}
}

func TestStatsCountWhatDoesNotOpen(t *testing.T) {
	g := newRig(t)
	g.opts.RecordCache, g.opts.RowCache = -1, -1
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte(plaintext)))
	s.SetEngine([]byte(dataA), append(s.Engine([]byte(dataA)), 0))
	_, err = s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrCorrupt)
	_, err = s.Verify(g.ctx, nil)
	require.ErrorIs(t, err, block.ErrCorrupt)
	for _, err := range s.Blocks(g.ctx, block.Range{}) {
		require.ErrorIs(t, err, block.ErrCorrupt)
	}
	st := s.Stats()
	require.EqualValues(t, 3, st.OpenFailures()["corrupt"])
	require.Equal(t, "verify", st.Last[0].Name)
	require.ErrorIs(t, st.Last[0].Err, block.ErrCorrupt)

	require.ErrorIs(t, s.Rekey(g.ctx, block.Range{}, nil), block.ErrCorrupt)
	require.EqualValues(t, 1, s.Stats().Failures["rewrite"]["corrupt"])
	require.EqualValues(t, 4, s.Stats().OpenFailures()["corrupt"])
}

func TestStatsShowWorkUnderWay(t *testing.T) {
	g := newRig(t)
	s := g.open()
	const n = 1000
	for i := range n {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "block %04d", i), bytes.Repeat([]byte{1}, 64)))
	}
	require.Empty(t, s.Stats().Running)

	seen := false
	_, err := s.Verify(g.ctx, func(step block.Step) {
		running := s.Stats().Running
		require.Len(t, running, 1)
		require.Equal(t, "verify", running[0].Name)
		require.Equal(t, step.Done, running[0].Done)
		require.Equal(t, start, running[0].Started)
		seen = true
	})
	require.NoError(t, err)
	require.True(t, seen)

	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	_, err = s.Verify(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Stats().Last[0].Err, context.Canceled)

	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
	st := s.Stats()
	require.Empty(t, st.Running)
	names := map[string]block.Work{}
	for _, w := range st.Last {
		names[w.Name] = w
	}
	for _, name := range []string{"rotate_epoch", "rekey"} {
		w := names[name]
		require.EqualValues(t, n, w.Done, name)
		require.NoError(t, w.Err)
		f, ok := w.Fraction()
		require.True(t, ok)
		require.EqualValues(t, 1, f)
	}
}

func TestWorkFraction(t *testing.T) {
	for _, c := range []struct {
		name string
		w    block.Work
		want float64
		ok   bool
	}{
		{"nobody knows", block.Work{Step: block.Step{Done: 5}}, 0, false},
		{"a quarter", block.Work{Step: block.Step{Done: 5, Total: 20}}, 0.25, true},
		{"blocks were added meanwhile", block.Work{Step: block.Step{Done: 30, Total: 20}}, 1, true},
		{"ended", block.Work{Ended: start}, 1, true},
		{"failed", block.Work{Step: block.Step{Done: 5, Total: 20}, Ended: start, Err: block.ErrClosed}, 0.25, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := c.w.Fraction()
			require.Equal(t, c.ok, ok)
			require.InDelta(t, c.want, got, 1e-9)
		})
	}
}

// The kind of an error is the one under which it is counted, and says nothing of the block.
func TestFailureKind(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fmt.Errorf("block: get %q: %w", "account-4711", block.ErrInaccessible), "inaccessible"},
		{fmt.Errorf("%w: %w", block.ErrInaccessible, vault.ErrKeyDisabled), "inaccessible"},
		{block.ErrCorrupt, "corrupt"}, {block.ErrVersion, "version"},
		{&vault.Error{Kind: vault.ErrThrottled}, "vault"},
		{block.ErrClosed, "closed"}, {block.ErrReadOnly, "read_only"}, {block.ErrStale, "stale"},
		{context.Canceled, "canceled"}, {context.DeadlineExceeded, "canceled"},
		{block.ErrPinned, "other"},
	} {
		require.Equal(t, c.want, block.FailureKind(c.err), "%v", c.err)
		if c.err != nil {
			require.Contains(t, newRig(t).open().Stats().Failures["get"], c.want)
		}
	}
}

// Every name that an operation takes is one that WorkNames lists.
func TestWorkNames(t *testing.T) {
	g := newRig(t)
	g.opts.Keyring.Wrapping = keyring.ByKEK
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("b")))
	require.NoError(t, s.RotateEpoch(g.ctx, nil))
	require.NoError(t, s.Rekey(g.ctx, block.Range{}, nil))
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	_, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	var names []string
	for _, w := range s.Stats().Last {
		names = append(names, w.Name)
	}
	require.ElementsMatch(t, block.WorkNames(), names)
}

// Everything that is counted has a name that a label can have.
func TestNamesOfFailuresAndOutcomesAreLabels(t *testing.T) {
	g := newRig(t)
	st := g.open().Stats()
	names := keyring.Outcomes()
	for op, kinds := range st.Failures {
		names = append(names, op)
		for kind := range kinds {
			names = append(names, kind)
		}
	}
	for _, n := range names {
		require.Regexp(t, `^[a-z][a-z_]*$`, n)
		require.False(t, strings.HasSuffix(n, "_"))
	}
}

func BenchmarkStats(b *testing.B) {
	s := newRig(b).open()
	for b.Loop() {
		s.Stats()
	}
}
