package main

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/blockseal/blockseal/block"
)

// pages is where the database keeps its pages: what an embedder writes to put
// blockseal under a database, and the whole of it. The benchmark has the same on
// plain Pebble.
type pages interface {
	// read returns a page of the latest state, or nil if there is none.
	read(ctx context.Context, id pageID) ([]byte, error)
	// commit replaces pages and removes others (those that are nil), all or none,
	// durably.
	commit(ctx context.Context, changed map[pageID][]byte) error
	// snapshot returns the pages as they are now, for reading alone.
	snapshot() snapshot
}

type snapshot interface {
	read(ctx context.Context, id pageID) ([]byte, error)
	close() error
}

// pageID numbers pages. Numbers are not used again: a page that is free is no block
// at all, so that there is no list of free pages to keep.
type pageID uint64

// block returns the id of the block that a page is. Big-endian, so that pages that
// were made together lie together.
func (p pageID) block() []byte { return binary.BigEndian.AppendUint64(nil, uint64(p)) }

// sealed is pages as the blocks of a store.
type sealed struct{ s *block.Store }

func (p sealed) read(ctx context.Context, id pageID) ([]byte, error) {
	return present(p.s.Get(ctx, id.block(), nil))
}

func (p sealed) commit(ctx context.Context, changed map[pageID][]byte) error {
	for {
		err := p.commitOnce(ctx, changed)
		if !errors.Is(err, block.ErrStale) {
			return err
		}
		// The KEK was changed in between, and the store's DEKs are wrapped ByKEK: a new
		// batch is sealed under the new one.
	}
}

func (p sealed) commitOnce(ctx context.Context, changed map[pageID][]byte) error {
	b := p.s.NewBatch()
	defer b.Close()
	for id, page := range changed {
		var err error
		if page == nil {
			err = b.Delete(ctx, id.block())
		} else {
			err = b.Put(ctx, id.block(), page)
		}
		if err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

func (p sealed) snapshot() snapshot { return sealedSnapshot{p.s.Snapshot()} }

type sealedSnapshot struct{ s *block.Snapshot }

func (p sealedSnapshot) read(ctx context.Context, id pageID) ([]byte, error) {
	return present(p.s.Get(ctx, id.block(), nil))
}

func (p sealedSnapshot) close() error { return p.s.Close() }

func present(page []byte, err error) ([]byte, error) {
	if errors.Is(err, block.ErrNotFound) {
		return nil, nil
	}
	return page, err
}
