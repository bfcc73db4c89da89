package main

import (
	"context"
	"errors"

	"github.com/blockseal/blockseal/block"
)

// memory is what a store holds of the heap and of stacks, in bytes, while the DB is open. Caches
// and memtables, which the stores share, are as small as they get.
type memory struct {
	Closed float64 `json:"closed"` // one that is not open, in a DB that found it
	Open   float64 `json:"open"`   // one that is open, and was read and written
}

func measureMemory(ctx context.Context, l *lab, dir string, m *measurements) error {
	many, err := l.withMany(ctx)
	if err != nil {
		return err
	}
	if err := l.settle(ctx, many); err != nil {
		return err
	}
	small := func(o *block.DBOptions) *block.DBOptions {
		o.RecordCache, o.RowCache = -1, -1
		o.Pebble = block.PebbleOptions{BlockCache: 1 << 20, MemTable: 1 << 20}
		return o
	}
	few, err := block.OpenDB(ctx, dir, small(l.dbOptions(l.vault)))
	if err != nil {
		return err
	}
	empty := held()
	if err := few.Close(); err != nil {
		return err
	}
	db, err := block.OpenDB(ctx, many, small(l.dbOptions(l.vault)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	n := 0
	for _, err := range db.Stores(ctx) { // a program that lists them
		if err != nil {
			return err
		}
		n++
	}
	m.Memory.Closed = max(0, float64(held()-empty)/float64(n))
	var releases []func()
	use := func(from, to int) error {
		for i := from; i < to; i++ {
			s, release, err := db.Acquire(ctx, name(i))
			if err != nil {
				return err
			}
			releases = append(releases, release)
			data, err := s.Get(ctx, blockID(0), nil)
			if err == nil {
				err = s.Put(ctx, blockID(0), data)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	// The first ones fill what is shared.
	if err := use(0, l.open/10); err != nil {
		return err
	}
	before := held()
	if err := use(l.open/10, l.open); err != nil {
		return err
	}
	m.Memory.Open = float64(held()-before) / float64(l.open-l.open/10)
	for _, release := range releases {
		release()
	}
	return nil
}
