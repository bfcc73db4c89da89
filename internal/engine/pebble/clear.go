package pebble

import (
	"context"

	"github.com/blockseal/blockseal/internal/engine"
)

// Clear implements [engine.Partition]: three deletions of ranges, in one write, whatever there is.
// Tables that have nothing else go whole, in the background; with the next Purge all that is left.
func (p *partition) Clear(ctx context.Context) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	b := p.db.NewBatch()
	defer b.Close()
	for _, space := range []byte{spaceMeta, spaceDEK, spaceData} {
		lower, upper := bounds(space, p.number, nil, nil)
		if err := b.deleteRange(lower, upper); err != nil {
			return err
		}
	}
	p.meta.swapping.Lock()
	defer p.meta.swapping.Unlock()
	p.gate.Lock()
	defer p.gate.Unlock()
	if err := p.db.Commit(b, true); err != nil {
		return err
	}
	p.meta.clear()
	p.cleared.Store(true)
	p.raiseLocked(func(*engine.Floor) {})
	return nil
}

// Release implements [engine.Partition].
func (p *partition) Release() {
	d := p.db
	d.partitions.mu.Lock()
	defer d.partitions.mu.Unlock()
	if d.partitions.of[p.number] == p {
		delete(d.partitions.of, p.number)
	}
}
