package pebble

import (
	"context"
	"errors"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
)

// purgeStep is how many rows are written anew at a time, during which no other change of the
// partition's rows is applied.
const purgeStep = 128

// Purge implements [engine.Purger].
func (p *partition) Purge(ctx context.Context, touch func() error, held func() bool) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	var ranges []keyRange
	for _, space := range []byte{spaceMeta, spaceDEK} {
		lower, upper := bounds(space, p.number, nil, nil)
		ranges = append(ranges, keyRange{lower, upper})
	}
	return p.db.purge(ctx, ranges, touch, p.rewriteInPlace, held)
}

// rewriteInPlace writes, for each key, what is there: its value, or that there is none.
// Nobody else applies a change meanwhile, so that none is undone. Meta records are
// written without the gate, and left alone: no name of one ends in a zero byte.
func (p *partition) rewriteInPlace(keys [][]byte) error {
	for chunk := range slices.Chunk(keys, purgeStep) {
		if err := p.rewriteChunk(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (p *partition) rewriteChunk(keys [][]byte) error {
	b := p.db.NewBatch()
	defer b.Close()
	p.gate.Lock()
	defer p.gate.Unlock()
	for _, key := range keys {
		if key[0] == spaceMeta {
			if err := b.Delete(append(slices.Clone(key), 0)); err != nil {
				return err
			}
			continue
		}
		v, closer, err := p.db.Get(key)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			err = b.Delete(key)
		case err == nil:
			err = errors.Join(b.Set(key, v), closer.Close())
		}
		if err != nil {
			return err
		}
	}
	return p.db.Apply(b, false)
}
