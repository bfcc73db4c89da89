package block_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// ticking is a context that lets time pass each time it is asked whether it has ended,
// which long operations do at each of their steps: so that Progress is told of each.
type ticking struct {
	context.Context
	g *rig
}

func (c *ticking) Err() error {
	c.g.clock.Advance(100 * time.Millisecond)
	return c.Context.Err()
}

// long is the operations that have a Progress, each on a store where it takes some steps.
func long() map[string]func(context.Context, *block.Store, block.Progress) error {
	return map[string]func(context.Context, *block.Store, block.Progress) error{
		"verify": func(ctx context.Context, s *block.Store, p block.Progress) error {
			_, err := s.Verify(ctx, p)
			return err
		},
		"rotate epoch": func(ctx context.Context, s *block.Store, p block.Progress) error { return s.RotateEpoch(ctx, p) },
		"rekey": func(ctx context.Context, s *block.Store, p block.Progress) error {
			return s.Rekey(ctx, block.Range{}, p)
		},
		"rewrap DEKs": func(ctx context.Context, s *block.Store, p block.Progress) error { return s.RewrapDEKs(ctx, p) },
		"erase": func(ctx context.Context, s *block.Store, p block.Progress) error {
			_, err := s.Erase(ctx, p)
			return err
		},
	}
}

// inProgress runs an operation and calls f, once, in its Progress, in the midst of it.
func inProgress(t *testing.T, op func(context.Context, *block.Store, block.Progress) error, f func(*rig, *block.Store)) error {
	t.Helper()
	g, s := moving(t, 40)
	s.SetSteps(4, 1)
	told := 0
	err := op(&ticking{g.ctx, g}, s, func(p block.Step) {
		if told++; told != 2 {
			return
		}
		require.NotZero(t, p.Done)
		require.Less(t, p.Done, uint64(40), "it is in the midst")
		f(g, s)
	})
	require.Greater(t, told, 1, "it was told")
	return err
}

// While Progress runs the store locks when the vault says no, and opens again. What goes
// on in one stretch of access alone ends with that.
func TestTheStoreLocksDuringAProgress(t *testing.T) {
	for name, op := range long() {
		t.Run(name, func(t *testing.T) {
			err := inProgress(t, op, func(g *rig, s *block.Store) {
				lockAndUnlock(g, s)
				got, err := s.Get(g.ctx, []byte("1"), nil)
				require.NoError(t, err)
				require.Equal(t, "data 1", string(got))
			})
			if name == "rewrap DEKs" {
				require.NoError(t, err, "it takes its right to the keys for each record")
				return
			}
			require.ErrorIs(t, err, block.ErrInaccessible)
		})
	}
}

// Progress may close the store; the operation then ends with ErrClosed.
func TestCloseInAProgress(t *testing.T) {
	for name, op := range long() {
		t.Run(name, func(t *testing.T) {
			err := inProgress(t, op, func(_ *rig, s *block.Store) { require.NoError(t, s.Close()) })
			require.ErrorIs(t, err, block.ErrClosed)
		})
	}
}

// Progress may use the store.
func TestUseInAProgress(t *testing.T) {
	for name, op := range long() {
		t.Run(name, func(t *testing.T) {
			err := inProgress(t, op, func(g *rig, s *block.Store) {
				require.Equal(t, keyring.Available, s.State().Status)
				require.NoError(t, s.Put(g.ctx, []byte("new"), []byte("by Progress")))
				require.NoError(t, s.Delete(g.ctx, []byte("2")))
				n := 0
				for _, err := range s.Blocks(g.ctx, block.Range{}) {
					require.NoError(t, err)
					n++
				}
				require.Equal(t, 40, n)
				require.NoError(t, s.Checkpoint(g.ctx, "copy"))
				require.NoError(t, s.RotateKEK(g.ctx))
				_, err := s.KeyUsage(g.ctx)
				require.NoError(t, err)
				require.NotEmpty(t, s.Stats().Running)
			})
			require.NoError(t, err)
		})
	}
}

// Another rewriting operation would wait for the turn of the one whose Progress calls it:
// it is refused, and works where the caller has no turn.
func TestRewritingInAProgress(t *testing.T) {
	for name, op := range long() {
		for other, called := range long() {
			t.Run(fmt.Sprintf("%s calls %s", name, other), func(t *testing.T) {
				err := inProgress(t, op, func(g *rig, s *block.Store) {
					err := called(g.ctx, s, nil)
					switch {
					case other == "verify":
						require.NoError(t, err)
					case name == "verify" && other == "erase":
						require.ErrorIs(t, err, block.ErrPinned)
					case name == "verify" || name == "rewrap DEKs":
						require.NoError(t, err)
					default:
						require.ErrorContains(t, err, "called by the Progress of an operation that has the turn")
					}
				})
				require.NoError(t, err)
			})
		}
	}
}
