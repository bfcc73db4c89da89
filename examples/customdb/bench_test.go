package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// plain is pages in Pebble alone: what the database would be without encryption.
type plain struct{ db *pebble.DB }

func (p plain) read(_ context.Context, id pageID) ([]byte, error) { return plainRead(p.db, id) }

func plainRead(r pebble.Getter, id pageID) ([]byte, error) {
	v, closer, err := r.Get(id.block())
	if errors.Is(err, engine.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return bytes.Clone(v), nil
}

func (p plain) commit(_ context.Context, changed map[pageID][]byte) error {
	b := p.db.NewBatch()
	defer b.Close()
	for id, page := range changed {
		err := b.Set(id.block(), page)
		if page == nil {
			err = b.Delete(id.block())
		}
		if err != nil {
			return err
		}
	}
	return p.db.Commit(b, true)
}

func (p plain) snapshot() snapshot { return plainSnapshot{p.db.NewSnapshot()} }

type plainSnapshot struct{ s *pebble.Snapshot }

func (p plainSnapshot) read(_ context.Context, id pageID) ([]byte, error) { return plainRead(p.s, id) }
func (p plainSnapshot) close() error                                      { return p.s.Close() }

const (
	blockCache = 64 << 20 // block.PebbleOptions.BlockCache by default
	// storeCaches is what a store takes for caches in bytes.
	storeCaches = blockCache + block.DefaultRowCache + block.DefaultRecordCache
)

// onBoth runs f on the database over a store, and over Pebble as a store opens it: with
// the same memtables, filters, thresholds and separation of values, and no compression.
// All the memory that the store has for caches is Pebble's block cache there.
func onBoth(b *testing.B, f func(b *testing.B, db *DB)) {
	ctx := context.Background()
	run := func(name string, p pages) {
		db, err := OpenDB(ctx, p)
		require.NoError(b, err)
		for n := uint64(0); n < 20_000; {
			require.NoError(b, db.Update(ctx, func(tx *Tx) error {
				for range 500 {
					key, row := reading(n, fmt.Sprintf("station %02d", n%40), uint16(n%400))
					require.NoError(b, tx.Put(readings, key, row))
					n++
				}
				return nil
			}))
		}
		b.Run("pages="+name, func(b *testing.B) { f(b, db) })
	}
	v := vaulttest.New(nil)
	s, err := block.Open(ctx, b.TempDir(), kek.New(v, v.CreateKey("k").Versionless()), &block.Options{Pebble: block.PebbleOptions{BlockCache: blockCache}})
	require.NoError(b, err)
	defer s.Close()
	run("blockseal", sealed{s})
	dir := b.TempDir()
	lock, err := pebble.LockDir(dir, vfs.Default, false)
	require.NoError(b, err)
	defer lock.Close()
	p, err := pebble.Open(dir, lock, pebble.Options{Create: true, CacheBytes: storeCaches})
	require.NoError(b, err)
	defer p.Close()
	run("pebble", plain{p})
}

func BenchmarkGet(b *testing.B) {
	onBoth(b, func(b *testing.B, db *DB) {
		for n := uint64(0); b.Loop(); n++ {
			if err := db.View(context.Background(), func(tx *Tx) error {
				_, err := tx.Get(readings, binary.BigEndian.AppendUint64(nil, n*7919%20_000))
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkUpdate is a transaction of ten rows with two indexes.
func BenchmarkUpdate(b *testing.B) {
	onBoth(b, func(b *testing.B, db *DB) {
		for n := uint64(0); b.Loop(); {
			if err := db.Update(context.Background(), func(tx *Tx) error {
				for range 10 {
					key, row := reading(n*7919%20_000, fmt.Sprintf("station %02d", n%40), uint16(n%400))
					if err := tx.Put(readings, key, row); err != nil {
						return err
					}
					n++
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	onBoth(b, func(b *testing.B, db *DB) {
		for b.Loop() {
			rows := 0
			if err := db.View(context.Background(), func(tx *Tx) error {
				return tx.Scan(readings, nil, func(_, _ []byte) bool { rows++; return true })
			}); err != nil || rows != 20_000 {
				b.Fatal(rows, err)
			}
		}
	})
}
