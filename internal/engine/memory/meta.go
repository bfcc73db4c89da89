package memory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
)

// metaRecords are a partition's meta metaRecords.
type metaRecords struct {
	mu   sync.Mutex
	last uint64 // the last revision that was given
	of   map[string]metaRecord
}

// metaRecord is replaced and never written to.
type metaRecord struct {
	value    []byte
	revision uint64
}

// LoadMeta implements [engine.Meta].
func (p *partition) LoadMeta(ctx context.Context, name string) ([]byte, uint64, error) {
	if err := p.e.ready(ctx); err != nil {
		return nil, 0, err
	}
	p.meta.mu.Lock()
	defer p.meta.mu.Unlock()
	r, found := p.meta.of[name]
	if !found {
		return nil, 0, engine.ErrNotFound
	}
	return append([]byte{}, r.value...), r.revision, nil
}

// ListMeta implements [engine.Meta].
func (p *partition) ListMeta(ctx context.Context, prefix string, f func(name string, value []byte) error) error {
	if err := p.e.ready(ctx); err != nil {
		return err
	}
	p.meta.mu.Lock()
	all := maps.Clone(p.meta.of)
	p.meta.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if err := f(name, all[name].value); err != nil {
			return err
		}
	}
	return nil
}

// SwapMeta implements [engine.Meta].
func (p *partition) SwapMeta(ctx context.Context, swaps ...engine.Swap) (given []uint64, err error) {
	if err := p.e.ready(ctx); err != nil {
		return nil, err
	}
	if err := engine.CheckSwaps(swaps); err != nil {
		return nil, err
	}
	m := &p.meta
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range swaps {
		if have := m.of[c.Name].revision; c.Revision != engine.AnyRevision && c.Revision != have {
			return nil, fmt.Errorf("%w: meta record %s has revision %d, and %d was read; read it again", engine.ErrConflict, c.Name, have, c.Revision)
		}
	}
	for _, c := range swaps {
		if c.Value == nil {
			delete(m.of, c.Name)
			given = append(given, 0)
			continue
		}
		m.last++
		m.of[c.Name] = metaRecord{bytes.Clone(c.Value), m.last}
		given = append(given, m.last)
	}
	return given, nil
}
