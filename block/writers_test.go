package block_test

import (
	"encoding/binary"
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
)

// counters is keys with a number each, which their one writer counts up, by Put and
// by batches, and reads back.
type counters struct {
	g     *rig
	s     *block.Store
	acked []atomic.Uint64
	stop  atomic.Bool
	wg    sync.WaitGroup
}

func (c *counters) id(k int) []byte { return fmt.Appendf(nil, "counter %02d", k) }

// start starts writers. Rounds counts what they have done together.
func (c *counters) start(t *testing.T, writers int, rounds *atomic.Int64) {
	for w := range writers {
		c.wg.Go(func() {
			for n := uint64(1); !c.stop.Load() && !t.Failed(); n++ {
				for k := w; k < len(c.acked); k += writers {
					if !check(t, c.count(k, n)) {
						return
					}
					got, err := c.s.Get(c.g.ctx, c.id(k), nil)
					if !check(t, err) {
						return
					}
					if v := binary.BigEndian.Uint64(got); v != n {
						t.Errorf("counter %d: wrote %d, read %d", k, n, v)
					}
				}
				rounds.Add(1)
			}
		})
	}
}

func (c *counters) count(k int, n uint64) error {
	value := binary.BigEndian.AppendUint64(nil, n)
	err := block.ErrStale
	for errors.Is(err, block.ErrStale) { // the KEK was changed meanwhile
		if n%3 != 0 {
			err = c.s.Put(c.g.ctx, c.id(k), value)
			continue
		}
		b := c.s.NewBatch()
		err = errors.Join(b.Put(c.g.ctx, c.id(k), value), b.Commit(c.g.ctx), b.Close())
	}
	if err == nil {
		c.acked[k].Store(n)
	}
	return err
}

// now returns what was acknowledged.
func (c *counters) now() []uint64 {
	out := make([]uint64, len(c.acked))
	for k := range out {
		out[k] = c.acked[k].Load()
	}
	return out
}

// atLeast checks that a store has counted at least so far.
func (c *counters) atLeast(t *testing.T, s *block.Store, least []uint64) {
	for k, n := range least {
		if n == 0 {
			continue
		}
		got, err := s.Get(c.g.ctx, c.id(k), nil)
		require.NoError(t, err)
		require.GreaterOrEqual(t, binary.BigEndian.Uint64(got), n, "counter %d went back", k)
	}
}

// Writers win over every rotation: no counter ever goes back, during it, after it, or
// when the store is opened again.
func TestWritersDuringRotation(t *testing.T) {
	type test struct {
		name  string
		byKEK bool
		times int
		do    func(c *counters, n int) error
	}
	var other *kek.KEK
	change := func(c *counters, n int) error { // there and back
		return c.s.ChangeKEK(c.g.ctx, []*kek.KEK{other, c.g.kek}[n%2])
	}
	erase := func(c *counters, _ int) error {
		for {
			_, err := c.s.Erase(c.g.ctx, nil)
			if !errors.Is(err, block.ErrPinned) { // a batch was open
				return err
			}
		}
	}
	for _, test := range []test{
		{"RotateKEK", false, 15, func(c *counters, _ int) error {
			newest := c.g.vault.Rotate(c.g.key.Name)
			err := c.s.RotateKEK(c.g.ctx)
			require.Equal(t, newest, c.s.State().KEK)
			return err
		}},
		{"RotateKEK with DEKs wrapped by the KEK", true, 4, func(c *counters, _ int) error {
			c.g.vault.Rotate(c.g.key.Name)
			return errors.Join(c.s.RotateKEK(c.g.ctx), c.s.RewrapDEKs(c.g.ctx, nil))
		}},
		{"ChangeKEK", false, 15, change},
		{"RotateEpoch", false, 15, func(c *counters, _ int) error { return c.s.RotateEpoch(c.g.ctx, nil) }},
		{"RotateEpoch with DEKs wrapped by the KEK", true, 4, func(c *counters, _ int) error { return c.s.RotateEpoch(c.g.ctx, nil) }},
		{"Rekey", false, 15, func(c *counters, _ int) error { return c.s.Rekey(c.g.ctx, block.Range{}, nil) }},
		{"Rekey with DEKs wrapped by the KEK", true, 2, func(c *counters, _ int) error { return c.s.Rekey(c.g.ctx, block.Range{}, nil) }},
		{"RewrapDEKs", true, 2, func(c *counters, n int) error {
			return errors.Join(change(c, n), c.s.RewrapDEKs(c.g.ctx, nil))
		}},
		{"Erase", false, 3, erase},
		{"Checkpoint", false, 3, func(c *counters, n int) error {
			dir := fmt.Sprintf("copy %d", n)
			acked := c.now()
			if err := c.s.Checkpoint(c.g.ctx, dir); err != nil {
				return err
			}
			copied, err := block.Open(c.g.ctx, dir, c.g.kek, &c.g.opts)
			if err != nil {
				return err
			}
			if err := copied.Revalidate(c.g.ctx); err != nil {
				return err
			}
			c.atLeast(t, copied, acked)
			_, err = copied.Verify(c.g.ctx, nil)
			return errors.Join(err, copied.Close())
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t)
			g.opts.NoSync = true
			g.opts.ManualRewrap, g.opts.VaultRate = true, 1<<30
			keys := 64
			if test.byKEK {
				keys = 8
				g.opts.Keyring.Wrapping = keyring.ByKEK
			}
			other = kek.New(g.vault, g.vault.CreateKey("other").Versionless())
			c := &counters{g: g, s: g.open(), acked: make([]atomic.Uint64, keys)}
			c.s.SetSteps(8, 2)
			var rounds atomic.Int64
			c.start(t, 4, &rounds)
			stop := func() {
				c.stop.Store(true)
				c.wg.Wait()
			}
			defer stop()
			for n := range test.times {
				for was := rounds.Load(); rounds.Load() == was && !t.Failed(); { // they write meanwhile
					runtime.Gosched()
				}
				acked := c.now()
				require.NoError(t, test.do(c, n))
				c.atLeast(t, c.s, acked)
			}
			stop()
			for k, n := range c.now() {
				got, err := c.s.Get(g.ctx, c.id(k), nil)
				if n == 0 { // no writer came to it
					require.ErrorIs(t, err, block.ErrNotFound)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, n, binary.BigEndian.Uint64(got), "counter %d", k)
			}
			require.NoError(t, c.s.Close())
			if c.s.State().KEK.Name == "other" {
				g.kek = other
			}
			c.atLeast(t, g.open(), c.now())
		})
	}
}
