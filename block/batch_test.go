package block_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

func TestBatch(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("gone"), nil))
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("2")), "the last change wins")
	require.NoError(t, b.Put(g.ctx, []byte("b"), []byte("3")))
	require.NoError(t, b.Delete(g.ctx, []byte("b")))
	require.NoError(t, b.Delete(g.ctx, []byte("gone")))
	require.NoError(t, b.Delete(g.ctx, []byte("back")))
	require.NoError(t, b.Put(g.ctx, []byte("back"), []byte("4")))
	_, err := s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrNotFound, "nothing happens before Commit")
	require.NoError(t, b.Commit(g.ctx))
	require.ErrorIs(t, b.Commit(g.ctx), block.ErrClosed)
	require.ErrorIs(t, b.Put(g.ctx, []byte("a"), nil), block.ErrClosed)
	require.NoError(t, b.Close())
	for id, want := range map[string]string{"a": "2", "back": "4"} {
		got, err := s.Get(g.ctx, []byte(id), nil)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	for _, id := range []string{"b", "gone"} {
		_, err := s.Get(g.ctx, []byte(id), nil)
		require.ErrorIs(t, err, block.ErrNotFound, id)
	}
}

// A batch that puts a block, deletes it and puts it again, lent or not, leaves what came last, of the
// block and of its DEK record: every way of four changes of a block, between others and alone, over a block
// that is there and one that is not.
func TestBatchOfOneBlockOverAndOver(t *testing.T) {
	const ways, changes = 3, 4 // put, lend, delete
	whole := map[string][]byte{}
	g := newRig(t)
	g.opts.NoSync = true
	s := g.open()
	for n := range ways * ways * ways * ways {
		id := fmt.Appendf(nil, "m%02d", n)
		if n%2 == 0 {
			require.NoError(t, s.Put(g.ctx, id, []byte("before")))
		}
		b := s.NewBatch()
		want, deleted, did := "", false, ""
		for c := range changes {
			if n%3 != 0 { // rows that ascend around it
				beside := fmt.Sprintf("a%d", c)
				whole[beside] = []byte(fmt.Sprint(n, c))
				require.NoError(t, b.Put(g.ctx, []byte(beside), whole[beside]))
			}
			want = strings.Repeat(fmt.Sprintf("%d.%d ", n, c), 1+100*c)
			way := n
			for range c {
				way /= ways
			}
			switch way %= ways; way {
			case 0:
				require.NoError(t, b.Put(g.ctx, id, []byte(want)))
			case 1:
				require.NoError(t, b.PutLent(g.ctx, id, []byte(want)))
			case 2:
				require.NoError(t, b.Delete(g.ctx, id))
			}
			deleted, did = way == 2, did+[]string{"put ", "lend ", "delete "}[way]
			if n%3 == 1 {
				beside := fmt.Sprintf("z%d", c)
				whole[beside] = []byte(fmt.Sprint(n, c))
				require.NoError(t, b.PutLent(g.ctx, []byte(beside), whole[beside]))
			}
		}
		require.NoError(t, b.Commit(g.ctx))
		got, err := s.Get(g.ctx, id, nil)
		if deleted {
			require.ErrorIs(t, err, block.ErrNotFound, did)
		} else {
			require.NoError(t, err, did)
			require.Equal(t, want, string(got), did)
			whole[string(id)] = []byte(want)
		}
	}
	isWhole(t, g, s, whole)
	require.NoError(t, s.Close())
	s = g.open() // without what commits leave in caches
	isWhole(t, g, s, whole)
}

func TestBatchThatFailedDoesNotCommit(t *testing.T) {
	g := newRig(t)
	s := g.open()
	b := s.NewBatch()
	defer b.Close()
	require.NoError(t, b.Put(g.ctx, []byte("a"), nil))
	require.ErrorIs(t, b.Put(g.ctx, nil, nil), block.ErrInvalidID)
	require.ErrorIs(t, b.Put(g.ctx, []byte("b"), nil), block.ErrInvalidID, "it says why it is spoiled")
	require.ErrorIs(t, b.Commit(g.ctx), block.ErrInvalidID)
	ok, err := s.Has(g.ctx, []byte("a"))
	require.NoError(t, err)
	require.False(t, ok)
}

func TestBatchEdges(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.NewBatch().Commit(g.ctx), "an empty batch commits nothing")
	require.NoError(t, s.NewBatch().Close())
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("a"), nil))
	require.NoError(t, b.Close())
	require.NoError(t, b.Close())
	require.ErrorIs(t, b.Commit(g.ctx), block.ErrClosed)

	b = s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("a"), nil))
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	require.ErrorIs(t, b.Commit(ctx), context.Canceled)
	require.NoError(t, b.Commit(g.ctx), "the caller gave up before anything happened")
}

// Close finds batches, scans and snapshots open, and leaves none of them usable.
func TestCloseEndsWhatIsOpen(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 10 {
		require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%d", i), []byte("data")))
	}
	batch, snap := s.NewBatch(), s.Snapshot()
	require.NoError(t, batch.Put(g.ctx, []byte("x"), nil))
	var last error
	for b, err := range s.Blocks(g.ctx, block.Range{}) {
		if last = err; err != nil {
			break
		}
		if string(b.ID) == "3" {
			require.NoError(t, s.Close())
			require.Equal(t, "data", string(b.Data), "the block at hand stays until the next step")
		}
	}
	require.ErrorIs(t, last, block.ErrClosed)
	require.ErrorIs(t, batch.Put(g.ctx, []byte("y"), nil), block.ErrClosed)
	require.ErrorIs(t, batch.Commit(g.ctx), block.ErrClosed)
	require.NoError(t, batch.Close())
	_, err := snap.Get(g.ctx, []byte("1"), nil)
	require.ErrorIs(t, err, block.ErrClosed)
	require.NoError(t, snap.Close())
	for what, err := range map[string]error{
		"put": s.Put(g.ctx, []byte("a"), nil), "delete": s.Delete(g.ctx, []byte("a")),
		"get": second(s.Get(g.ctx, []byte("1"), nil)), "has": second(s.Has(g.ctx, []byte("1"))),
		"verify": second(s.Verify(g.ctx, nil)), "checkpoint": s.Checkpoint(g.ctx, "copy"),
		"revalidate": s.Revalidate(g.ctx), "rotate": s.RotateKEK(g.ctx), "rotate epoch": s.RotateEpoch(g.ctx, nil),
		"rekey": s.Rekey(g.ctx, block.Range{}, nil), "erase": second(s.Erase(g.ctx, nil)),
		"usage": second(s.KeyUsage(g.ctx)), "copies": second(s.Copies(g.ctx)), "forget": s.ForgetCopy(g.ctx, "x"),
		"snapshot": second(s.Snapshot().Get(g.ctx, []byte("1"), nil)), "rewrap": s.RewrapDEKs(g.ctx, nil),
	} {
		require.ErrorIs(t, err, block.ErrClosed, what)
	}
	require.NoError(t, s.Close())
}
