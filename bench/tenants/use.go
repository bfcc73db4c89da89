package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"time"

	"github.com/blockseal/blockseal/block"
)

// use is what an operation takes that is spread over many open stores, in turns with the same over
// one store that has as many blocks, and with another such store.
type use struct {
	Op    string  `json:"op"`
	One   []spent `json:"one"`   // an operation, by round
	Many  []spent `json:"many"`  // the same, each in another store than the one before
	Again []spent `json:"again"` // in another DB with one store: what is noise

	// Bound are one and many of what any design with a key for each store does, see bare.
	Bound struct {
		One  []spent `json:"one"`
		Many []spent `json:"many"`
	} `json:"bound"`
}

// spent is nanoseconds: those that pass, and those of a processor that the calling thread has, or the
// whole process.
type spent struct {
	Wall float64 `json:"wall"`
	CPU  float64 `json:"cpu"`
}

const (
	useSize   = 4096
	useBlocks = 20 // in each of the many
	useTurns  = 3  // of each side, in a round
)

// side is stores that are used in the same way.
type side struct {
	db     *block.DB
	stores []*block.Store
	blocks int // in each
}

func (l *lab) newSide(ctx context.Context, dir string, stores, blocks int) (s *side, err error) {
	o := l.dbOptions(l.vault)
	// All of it is in the caches, so that what is measured is not the disk.
	o.RecordCache, o.RowCache, o.Pebble.BlockCache = 64<<20, 256<<20, 256<<20
	for range 2 { // filled, and then opened again, so that it is read from tables
		if s != nil {
			if err := s.db.Close(); err != nil {
				return nil, err
			}
		}
		db, err := block.OpenDB(ctx, dir, o)
		if err != nil {
			return nil, err
		}
		made := s == nil
		s = &side{db: db, blocks: blocks}
		for i := range stores {
			open := db.Open
			if made {
				open = db.Create
			}
			store, err := open(ctx, name(i), l.kek(l.vault, name(i)), &block.Options{NoSync: true})
			if err == nil && made {
				err = fill(ctx, store, blocks, useSize)
			}
			if err != nil {
				return nil, errors.Join(err, db.Close())
			}
			s.stores = append(s.stores, store)
		}
	}
	return s, nil
}

// walk calls f with a store and a block of it, in an order that is the same for sides that have as
// many blocks in all: the i-th of a permutation.
func walk[S any](stores []S, order []int, f func(store S, id []byte) error) error {
	for _, i := range order {
		if err := f(stores[i%len(stores)], blockID(i/len(stores))); err != nil {
			return err
		}
	}
	return nil
}

func measureUse(ctx context.Context, l *lab, dir string, m *measurements) error {
	runtime.LockOSThread() // whose processor time is counted
	defer runtime.UnlockOSThread()
	total := l.open * useBlocks
	var sides []*side
	defer func() {
		for _, s := range sides {
			s.db.Close()
		}
	}()
	bares := make([]*bare, 2)
	for i, c := range []struct{ stores, blocks int }{{1, total}, {l.open, useBlocks}} {
		b, err := newBare(filepath.Join(dir, fmt.Sprint("bare-", i)), c.stores, c.blocks)
		if err != nil {
			return err
		}
		defer b.db.Close()
		bares[i] = b
	}
	for i, c := range []struct{ stores, blocks int }{{1, total}, {l.open, useBlocks}, {1, total}} {
		s, err := l.newSide(ctx, filepath.Join(dir, fmt.Sprint(i)), c.stores, c.blocks)
		if err != nil {
			return err
		}
		sides = append(sides, s)
	}
	var dst, data []byte
	get := func(s *block.Store, id []byte) (err error) {
		dst, err = s.Get(ctx, id, dst[:0])
		return err
	}
	put := func(s *block.Store, id []byte) error { return s.Put(ctx, id, data) }
	every := rand.Perm(total)
	for range 3 { // what was read twice is in the row cache
		for _, s := range sides {
			if err := walk(s.stores, every, get); err != nil {
				return err
			}
		}
	}
	data = append(data, dst...)
	bareGet := func(b *bare) func(*bareStore, []byte) error {
		return func(s *bareStore, id []byte) (err error) {
			dst, err = b.get(s, id, dst[:0])
			return err
		}
	}
	barePut := func(b *bare) func(*bareStore, []byte) error {
		return func(s *bareStore, id []byte) error { return b.put(s, id, data) }
	}
	for _, op := range []struct {
		name string
		f    func(*block.Store, []byte) error
		bare func(*bare) func(*bareStore, []byte) error
	}{{"Get 4 KiB, hot", get, bareGet}, {"Put 4 KiB, not synced", put, barePut}} {
		u := use{Op: op.name}
		for range l.rounds {
			// One and many stores, one again, and the bound of one and of many.
			took, used := make([]time.Duration, len(sides)+len(bares)), make([]time.Duration, len(sides)+len(bares))
			for range useTurns {
				order := make([]int, l.turn)
				for i := range order {
					order[i] = rand.IntN(total)
				}
				for i := range took {
					start, before := time.Now(), threadTime()
					var err error
					if i < len(sides) {
						err = walk(sides[i].stores, order, op.f)
					} else {
						b := bares[i-len(sides)]
						err = walk(b.stores, order, op.bare(b))
					}
					if err != nil {
						return err
					}
					took[i] += time.Since(start)
					used[i] += threadTime() - before
				}
			}
			each := func(i int) spent {
				n := float64(useTurns * l.turn)
				return spent{float64(took[i].Nanoseconds()) / n, float64(used[i].Nanoseconds()) / n}
			}
			u.One, u.Many, u.Again = append(u.One, each(0)), append(u.Many, each(1)), append(u.Again, each(2))
			u.Bound.One, u.Bound.Many = append(u.Bound.One, each(3)), append(u.Bound.Many, each(4))
			fmt.Fprintf(l.progress, "%s: %.0f ns\n", op.name, []spent{each(0), each(1), each(2), each(3), each(4)})
		}
		m.Use = append(m.Use, u)
	}
	return nil
}
