package pebble

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
)

// revisions has the revisions of a partition's meta records, in memory alone: one process has the
// directory for as long as the engine is open. A record that was found at opening has revision 1;
// each swap gives the next number.
type revisions struct {
	swapping sync.Mutex // held while a swap waits for Pebble

	// mu is held for a moment only, so that readers wait for no disk.
	mu   sync.Mutex
	last uint64
	of   map[string]uint64 // of records that were swapped since
}

const foundRevision = 1

func newRevisions() revisions { return revisions{last: foundRevision, of: map[string]uint64{}} }

// LoadMeta implements [engine.Meta].
func (p *partition) LoadMeta(ctx context.Context, name string) (value []byte, revision uint64, err error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, 0, err
	}
	for {
		before := p.meta.revision(name)
		value, err := p.value(name)
		if err != nil {
			return nil, 0, err
		}
		// If nobody swapped it in between, value and revision belong together.
		if before == p.meta.revision(name) {
			return value, before, nil
		}
	}
}

// Peek implements [engine.Engine].
func (d *DB) Peek(ctx context.Context, number uint32, name string) ([]byte, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	return d.metaValue(number, name)
}

func (p *partition) value(name string) ([]byte, error) { return p.db.metaValue(p.number, name) }

func (d *DB) metaValue(number uint32, name string) ([]byte, error) {
	v, closer, err := d.Get(appendKey(nil, spaceMeta, number, name))
	if err != nil {
		return nil, err
	}
	return append([]byte{}, v...), closer.Close()
}

// revision returns a record's revision, if the record exists.
func (m *revisions) revision(name string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.locked(name)
}

func (m *revisions) locked(name string) uint64 {
	if r, swapped := m.of[name]; swapped {
		return r
	}
	return foundRevision
}

// begin gives the records of a swap a revision that no swap can name, until it is known whether the
// swap succeeds. end gives them their new revisions, or those of before.
func (m *revisions) begin(swaps []engine.Swap) (end func(swapped bool) (given []uint64)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := make([]uint64, len(swaps))
	for i, c := range swaps {
		before[i] = m.locked(c.Name)
		m.last++
		m.of[c.Name] = m.last
	}
	return func(swapped bool) (given []uint64) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, c := range swaps {
			switch {
			case !swapped:
				m.of[c.Name] = before[i]
			case c.Value == nil:
				delete(m.of, c.Name)
				given = append(given, 0)
			default:
				m.last++
				m.of[c.Name] = m.last
				given = append(given, m.last)
			}
		}
		return given
	}
}

// clear forgets the revisions of records that are all gone: each that is made from now on is
// given one that none of them had.
func (m *revisions) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of = map[string]uint64{}
}

// ListMeta implements [engine.Meta].
func (p *partition) ListMeta(ctx context.Context, prefix string, f func(name string, value []byte) error) error {
	if err := p.db.ready(ctx); err != nil {
		return err
	}
	lower := appendKey(nil, spaceMeta, p.number, prefix)
	it, err := p.db.NewIter(lower, after(lower))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err == nil {
			err = f(string(it.Key()[prefixSize:]), v)
		}
		if err != nil {
			return err
		}
	}
	return it.Err()
}

// SwapMeta implements [engine.Meta].
func (p *partition) SwapMeta(ctx context.Context, swaps ...engine.Swap) (given []uint64, err error) {
	return p.swapMeta(ctx, swaps, true)
}

// SwapMetaLater implements [engine.Deferrer]. Pebble has one log for all partitions, replays it as a
// prefix, and syncs one file of it before it begins the next.
func (p *partition) SwapMetaLater(ctx context.Context, swaps ...engine.Swap) (given []uint64, err error) {
	return p.swapMeta(ctx, swaps, false)
}

func (p *partition) swapMeta(ctx context.Context, swaps []engine.Swap, sync bool) (given []uint64, err error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, err
	}
	if err := engine.CheckSwaps(swaps); err != nil {
		return nil, err
	}
	b := p.db.NewBatch()
	defer b.Close()
	p.meta.swapping.Lock()
	defer p.meta.swapping.Unlock()
	for _, c := range swaps {
		if c.Revision != engine.AnyRevision {
			have := p.meta.revision(c.Name)
			_, err := p.value(c.Name)
			switch {
			case errors.Is(err, engine.ErrNotFound):
				have = 0
			case err != nil:
				return nil, err
			}
			if have != c.Revision {
				return nil, fmt.Errorf("%w: meta record %s has revision %d, and %d was read; read it again", engine.ErrConflict, c.Name, have, c.Revision)
			}
		}
		key := appendKey(nil, spaceMeta, p.number, c.Name)
		if c.Value == nil {
			err = b.Delete(key)
		} else {
			err = b.Set(key, c.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(swaps) == 0 {
		return nil, nil
	}
	end := p.meta.begin(swaps)
	// In one step: a log that cannot be written ends the process here
	// (docs/adr/0006-wal-failure-ends-the-process.md), but not in a Wait of its own.
	if err := p.db.Commit(b, sync); err != nil {
		end(false)
		return nil, err
	}
	return end(true), nil
}
