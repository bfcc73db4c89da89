package pause

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// partition is a partition from one session to the next.
type partition struct {
	e      *Engine
	number uint32

	mu  sync.Mutex           // held while it is asked for in a session
	now atomic.Pointer[held] // in the session in which it was last used; nil: in none
}

// held is a partition of the engine of a session.
type held struct {
	s *session
	p engine.Partition
}

// Partition implements [engine.Engine].
func (e *Engine) Partition(number uint32) engine.Partition {
	p := &partition{e: e, number: number}
	if s, _, err := p.begin(context.Background()); err == nil { // else when it is used
		s.done()
	}
	return p
}

// begin begins a call in the present session, and returns the partition there; the caller ends it with
// s.done.
func (p *partition) begin(ctx context.Context) (*session, engine.Partition, error) {
	s, err := p.e.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	if h := p.now.Load(); h != nil && h.s == s {
		return s, h.p, nil
	}
	beneath, err := p.in(s)
	if err != nil {
		s.done()
		return nil, nil, err
	}
	return s, beneath, nil
}

// in asks for the partition in a session, in which a call is under way. The floor that it had in the one
// before it has in this one: what was judged by that comes to nothing, because no batch outlives its
// session, and what is judged from now on must not name less.
func (p *partition) in(s *session) (engine.Partition, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.now.Load()
	if before != nil && before.s == s {
		return before.p, nil
	}
	now := s.engine.Partition(p.number)
	if before != nil {
		floor := before.p.Floor() // it is in memory, of an engine that is closed too
		ctx := context.Background()
		if err := errors.Join(now.RaiseFloor(ctx, floor.Epoch), now.RefuseKEKs(ctx, floor.KEKs)); err != nil {
			return nil, err
		}
	}
	p.now.Store(&held{s, now})
	return now, nil
}

// Release implements [engine.Partition].
func (p *partition) Release() {
	h := p.now.Load()
	if h == nil || h.s.begin() != nil {
		return
	}
	defer h.s.done()
	h.p.Release()
}

// Floor implements [engine.Rows].
func (p *partition) Floor() engine.Floor {
	if h := p.now.Load(); h != nil {
		return h.p.Floor()
	}
	return engine.Floor{}
}

// RaiseFloor implements [engine.Rows].
func (p *partition) RaiseFloor(ctx context.Context, epoch uint32) error {
	s, in, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	return in.RaiseFloor(ctx, epoch)
}

// RefuseKEKs implements [engine.Rows].
func (p *partition) RefuseKEKs(ctx context.Context, keks []uint32) error {
	s, in, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	return in.RefuseKEKs(ctx, keks)
}

// Sync implements [engine.Rows].
func (p *partition) Sync(ctx context.Context) error {
	s, in, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	return s.wrote(in.Sync(ctx))
}

// Clear implements [engine.Partition].
func (p *partition) Clear(ctx context.Context) error {
	s, in, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	return s.wrote(in.Clear(ctx))
}

// Purge implements [engine.Purger].
func (p *partition) Purge(ctx context.Context, touch func() error, held func() bool) error {
	s, in, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	purger, ok := in.(engine.Purger)
	if !ok {
		return fmt.Errorf("engine: it promises of no file that it forgets: %w", errors.ErrUnsupported)
	}
	ctx, cancel := s.within(ctx)
	defer cancel()
	return s.wrote(purger.Purge(ctx, touch, held))
}

// A revision has the number of its session in its upper bits: one of an earlier session is refused, even
// if the engine has given the same number since.
const revisionBits = 40

func outer(s *session, revision uint64) uint64 {
	if revision == 0 {
		return 0
	}
	return s.number<<revisionBits | revision
}

// inner returns swaps with the engine's revisions, or ErrConflict for one of another session.
func inner(s *session, swaps []engine.Swap) ([]engine.Swap, error) {
	out := make([]engine.Swap, len(swaps))
	for i, c := range swaps {
		if c.Revision != 0 && c.Revision != engine.AnyRevision {
			if c.Revision>>revisionBits != s.number {
				return nil, fmt.Errorf("meta record %s: %w", c.Name, engine.ErrConflict)
			}
			c.Revision &= 1<<revisionBits - 1
		}
		out[i] = c
	}
	return out, nil
}

// LoadMeta implements [engine.Meta].
func (p *partition) LoadMeta(ctx context.Context, name string) ([]byte, uint64, error) {
	s, in, err := p.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer s.done()
	value, revision, err := in.LoadMeta(ctx, name)
	return value, outer(s, revision), s.read(err)
}

// ListMeta implements [engine.Meta].
func (p *partition) ListMeta(ctx context.Context, prefix string, f func(name string, value []byte) error) error {
	s, in, err := p.begin(ctx)
	if err != nil {
		return err
	}
	defer s.done()
	var own error
	err = in.ListMeta(ctx, prefix, func(name string, value []byte) error {
		own = f(name, value)
		return own
	})
	if own != nil {
		return own
	}
	return s.read(err)
}

// SwapMeta implements [engine.Meta].
func (p *partition) SwapMeta(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	return p.swap(ctx, swaps, engine.Meta.SwapMeta)
}

// SwapMetaLater implements [engine.Deferrer]. An engine that is none makes the swaps durable at once.
func (p *partition) SwapMetaLater(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	return p.swap(ctx, swaps, func(m engine.Meta, ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
		return engine.SwapLater(ctx, m, swaps...)
	})
}

func (p *partition) swap(ctx context.Context, swaps []engine.Swap, do func(engine.Meta, context.Context, ...engine.Swap) ([]uint64, error)) ([]uint64, error) {
	if err := engine.CheckSwaps(swaps); err != nil {
		return nil, err
	}
	s, in, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.done()
	own, err := inner(s, swaps)
	if err != nil {
		return nil, err
	}
	revisions, err := do(in, ctx, own...)
	if err = s.wrote(err); err != nil {
		return nil, err
	}
	for i := range revisions {
		revisions[i] = outer(s, revisions[i])
	}
	return revisions, nil
}
