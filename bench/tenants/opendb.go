package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/blockseal/blockseal/block"
)

// openDB is what OpenDB takes, of a DB with one store and of one with many, in turns.
type openDB struct {
	One  []spent `json:"one"`
	Many []spent `json:"many"`
	// Replay is what the first OpenDB took after the stores were made, which is with the engine's
	// log to replay.
	Replay time.Duration `json:"replay"`
}

func measureOpenDB(ctx context.Context, l *lab, dir string, m *measurements) error {
	many, err := l.withMany(ctx)
	if err != nil {
		return err
	}
	one := filepath.Join(dir, "one")
	db, err := l.openDB(ctx, one)
	if err != nil {
		return err
	}
	if _, _, err := l.create(ctx, db, name(0), func(s *block.Store) error { return fill(ctx, s, 1, 100) }); err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	opening := func(dir string) (took spent, err error) {
		start, before := time.Now(), processTime()
		db, err := l.openDB(ctx, dir)
		if err != nil {
			return took, err
		}
		took = spent{float64(time.Since(start).Nanoseconds()), float64((processTime() - before).Nanoseconds())}
		return took, db.Close()
	}
	first, err := opening(many)
	if err != nil {
		return err
	}
	m.OpenDB.Replay = time.Duration(first.Wall)
	for _, d := range []string{one, many} {
		if err := l.settle(ctx, d); err != nil {
			return err
		}
	}
	for range 10 * l.rounds {
		o, err := opening(one)
		if err != nil {
			return err
		}
		n, err := opening(many)
		if err != nil {
			return err
		}
		m.OpenDB.One, m.OpenDB.Many = append(m.OpenDB.One, o), append(m.OpenDB.Many, n)
	}
	return nil
}
