package pause

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
)

// load is a load of one session. What is left of it when the session ends, the next one removes when it
// opens the engine.
type load struct {
	e *Engine
	s *session
	l engine.Load
}

// NewLoad implements [engine.Loader].
func (p *partition) NewLoad(ctx context.Context) (engine.Load, error) {
	s, in, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer s.done()
	loader, ok := in.(engine.Loader)
	if !ok {
		return nil, fmt.Errorf("engine: it has no tables that are written beside its log: %w", errors.ErrUnsupported)
	}
	l, err := loader.NewLoad(ctx)
	if err != nil {
		return nil, s.say(err)
	}
	s.keep(l)
	return &load{p.e, s, l}, nil
}

// Put implements [engine.Load].
func (l *load) Put(id, record, sealed []byte) error {
	if err := begin(context.Background(), l.s, l.e); err != nil {
		return err
	}
	defer l.s.done()
	return l.s.wrote(l.l.Put(id, record, sealed))
}

// Rewrite implements [engine.Load].
func (l *load) Rewrite(ctx context.Context, f func(id, record []byte) ([]byte, error)) error {
	if err := begin(ctx, l.s, l.e); err != nil {
		return err
	}
	defer l.s.done()
	ctx, cancel := l.s.within(ctx)
	defer cancel()
	return l.s.wrote(l.l.Rewrite(ctx, f))
}

// Prepare implements [engine.Load].
func (l *load) Prepare(ctx context.Context) error {
	if err := begin(ctx, l.s, l.e); err != nil {
		return err
	}
	defer l.s.done()
	ctx, cancel := l.s.within(ctx)
	defer cancel()
	return l.s.wrote(l.l.Prepare(ctx))
}

// Apply implements [engine.Load].
func (l *load) Apply(ctx context.Context, g engine.Guard) error {
	if err := begin(ctx, l.s, l.e); err != nil {
		return err
	}
	defer l.s.done()
	if err := l.l.Apply(ctx, g); err != nil {
		return l.s.refused(err)
	}
	return l.s.wrote(nil)
}

// Close implements [engine.Load].
func (l *load) Close() error { return l.s.finish(l.l) }
