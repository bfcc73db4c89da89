package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/blockseal/blockseal/block"
)

// create is how stores were created and closed, one after the other, each durably.
type create struct {
	Create []float64 `json:"create"` // nanoseconds of a Create, by tenths of all stores
	Close  []float64 `json:"close"`  // of a Close
	Put    []float64 `json:"put"`    // of a synced Put of one block in a store that is open, in turns with those
	Calls  float64   `json:"calls"`  // to the vault, a store
	Held   float64   `json:"held"`   // bytes that the process holds then, a store that it has made and closed
}

// createTurn is how many stores are created between two synced Puts.
const createTurn = 10

func measureCreate(ctx context.Context, l *lab, _ string, m *measurements) error {
	_, err := l.withMany(ctx)
	m.Create = l.created
	return err
}

// withMany returns the directory of the DB with many stores, in each of which is one block. It
// stays until all is measured.
func (l *lab) withMany(ctx context.Context) (dir string, err error) {
	if l.many != "" {
		return l.many, nil
	}
	dir = filepath.Join(l.root, "many")
	db, err := l.openDB(ctx, dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	beside, err := db.Create(ctx, "beside", l.kek(l.vault, name(0)), nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, beside.Close()) }()
	one := func(s *block.Store) error { return fill(ctx, s, 1, 100) }
	var before int64
	calls := l.vault.Calls().Total()
	c := &l.created
	for i := 0; i < l.stores; {
		var creating, closing, putting time.Duration
		n, puts := 0, 0
		for end := i + l.stores/10; i < end; i++ {
			if n%createTurn == 0 {
				start := time.Now()
				if err := beside.Put(ctx, blockID(0), make([]byte, 100)); err != nil {
					return "", err
				}
				putting += time.Since(start)
				puts++
			}
			created, closed, err := l.create(ctx, db, name(i), one)
			if err != nil {
				return "", err
			}
			creating += created
			closing += closed
			n++
		}
		each := func(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / float64(n) }
		c.Create, c.Close, c.Put = append(c.Create, each(creating, n)), append(c.Close, each(closing, n)), append(c.Put, each(putting, puts))
		fmt.Fprintf(l.progress, "%d stores, %.0f a second\n", i, float64(n)/(creating+closing).Seconds())
		switch i {
		case l.stores / 10: // from here on caches and memtables are what they are
			before = held()
		case l.stores:
			l.created.Held = float64(held()-before) / float64(l.stores-l.stores/10)
		}
	}
	l.created.Calls = float64(l.vault.Calls().Total()-calls) / float64(l.stores)
	l.many = dir
	return dir, nil
}
