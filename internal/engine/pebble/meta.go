package pebble

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
)

// revisions is those of a partition's meta records. They are in memory alone: one process has
// the directory for as long as the engine is open. What was there when it was opened has
// revision 1, and each change gives the next number.
type revisions struct {
	mu   sync.RWMutex // held for writing while a change is applied
	last uint64
	of   map[string]uint64 // of what was changed since
}

const foundRevision = 1

func newRevisions() revisions { return revisions{last: foundRevision, of: map[string]uint64{}} }

// LoadMeta implements [engine.Meta].
func (p *partition) LoadMeta(ctx context.Context, name string) (value []byte, revision uint64, err error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, 0, err
	}
	p.meta.mu.RLock()
	defer p.meta.mu.RUnlock()
	return p.load(name)
}

func (p *partition) load(name string) (value []byte, revision uint64, err error) {
	v, closer, err := p.db.Get(appendKey(nil, spaceMeta, p.number, name))
	if err != nil {
		return nil, 0, err
	}
	revision = foundRevision
	if r, changed := p.meta.of[name]; changed {
		revision = r
	}
	return append([]byte{}, v...), revision, closer.Close()
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
func (p *partition) SwapMeta(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, err
	}
	if err := engine.CheckSwaps(changes); err != nil {
		return nil, err
	}
	b := p.db.NewBatch()
	defer b.Close()
	given, err := p.swap(b, changes)
	if err != nil || b.Empty() {
		return given, err
	}
	// Outside of the lock, so that changes of several go to the disk together.
	return given, b.Wait()
}

func (p *partition) swap(b Batch, changes []engine.Swap) (given []uint64, err error) {
	m := &p.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		if c.Revision != engine.AnyRevision {
			_, have, err := p.load(c.Name)
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
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
	if b.Empty() {
		return nil, nil
	}
	if err := p.db.Apply(b, true); err != nil {
		return nil, err
	}
	for _, c := range changes {
		if c.Value == nil {
			delete(m.of, c.Name)
			given = append(given, 0)
			continue
		}
		m.last++
		m.of[c.Name] = m.last
		given = append(given, m.last)
	}
	return given, nil
}
