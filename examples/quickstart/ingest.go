package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/block"
)

// batchBytes is how much goes into one batch: the blocks of a batch are written
// together or not at all, and are made durable with one sync.
const batchBytes = 4 << 20

// digests is the SHA-256 of every block that was put, by id.
type digests struct {
	sums  map[string][sha256.Size]byte
	first string // the id that was put first
	bytes int64
}

// ingest puts the blocks of all files into the store.
func ingest(ctx context.Context, s *block.Store, t *tree, step *step) (digests, error) {
	defer step.clear()
	put := digests{sums: map[string][sha256.Size]byte{}, first: blockID(t.files[0], 0)}
	b, pending := s.NewBatch(), 0
	defer func() { b.Close() }() // of a batch that an error left behind
	err := t.blocks(func(id string, data []byte) error {
		put.sums[id] = sha256.Sum256(data)
		put.bytes += int64(len(data))
		step.progress(put.bytes, t.bytes)
		if err := b.Put(ctx, []byte(id), data); err != nil {
			return err
		}
		if pending += len(data); pending < batchBytes {
			return nil
		}
		if err := b.Commit(ctx); err != nil {
			return err
		}
		b, pending = s.NewBatch(), 0
		return nil
	})
	if err == nil {
		err = b.Commit(ctx)
	}
	if err != nil {
		return put, err
	}
	step.done(len(put.sums), put.bytes, "%s blocks of up to %d KiB, each under its own DEK, durable", thousands(len(put.sums)), blockSize>>10)
	return put, nil
}

// readAll walks the store in order and compares every block's digest.
func readAll(ctx context.Context, s *block.Store, put digests, step *step) error {
	defer step.clear()
	var n int
	var bytes int64
	for b, err := range s.Blocks(ctx, block.Range{}) {
		if err != nil {
			return err
		}
		if err := put.compare(string(b.ID), b.Data); err != nil {
			return err
		}
		n++
		bytes += int64(len(b.Data))
		step.progress(bytes, put.bytes)
	}
	// Every id is met once, in ascending order: as many are all.
	if n != len(put.sums) {
		return fmt.Errorf("%d blocks were put, and the store has %d", len(put.sums), n)
	}
	step.done(n, bytes, "all %s blocks have the SHA-256 that they had, by a scan", thousands(n))
	return nil
}

// readEach gets every block by its id, in no order, and compares its digest.
func readEach(ctx context.Context, s *block.Store, put digests, step *step) error {
	defer step.clear()
	var bytes int64
	buf := make([]byte, 0, blockSize)
	for id := range put.sums {
		data, err := s.Get(ctx, []byte(id), buf)
		if err != nil {
			return err
		}
		if err := put.compare(id, data); err != nil {
			return err
		}
		bytes += int64(len(data))
		step.progress(bytes, put.bytes)
	}
	step.done(len(put.sums), bytes, "all %s blocks have the SHA-256 that they had, one by one", thousands(len(put.sums)))
	return nil
}

var errDiffers = errors.New("what was read is not what was put")

func (d digests) compare(id string, data []byte) error {
	if want, ok := d.sums[id]; !ok || sha256.Sum256(data) != want {
		return fmt.Errorf("block %q: %w", id, errDiffers)
	}
	return nil
}
