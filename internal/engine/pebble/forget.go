package pebble

import (
	"context"
	"errors"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
)

// purgeStep is the number of rows that are written anew with the gate shut.
const purgeStep = 128

// Purge implements [engine.Purger].
func (p *partition) Purge(ctx context.Context, touch func() error, held func() bool) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	spaces := []byte{spaceMeta, spaceDEK}
	if p.cleared.Load() {
		spaces = append(spaces, spaceData)
	}
	var ranges []keyRange
	for _, space := range spaces {
		lower, upper := bounds(space, p.number, nil, nil)
		ranges = append(ranges, keyRange{lower, upper})
	}
	return p.db.purge(ctx, ranges, touch, p.rewriteInPlace, held)
}

// rewriteInPlace writes each key's present value, or its deletion, anew. The gate keeps it from
// undoing a write. Meta records are written outside of the gate: for one of those it deletes a name
// that ends in a zero byte, which no record has.
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
