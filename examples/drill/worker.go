package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/blockseal/blockseal/block"
)

// scan is what [block.Store.Blocks] returns.
type scan = iter.Seq2[block.Block, error]

// storeTarget is a store as a target.
type storeTarget struct{ *block.Store }

// run reads and writes, one operation after the other, until the load stops: at first each
// block once, so that all are there however few operations there is time for.
func (w *worker) run(ctx context.Context) {
	for i := range w.known {
		if w.known[i].acked == 0 && !w.stopping.Load() && ctx.Err() == nil {
			w.put(ctx, i)
		}
	}
	for n := 1; !w.stopping.Load() && ctx.Err() == nil; n++ {
		switch i := rand.IntN(each); rand.IntN(10) {
		case 0, 1, 2, 3:
			w.put(ctx, i)
		case 4, 5, 6, 7:
			w.get(ctx, i)
		case 8:
			w.batch(ctx, i)
		case 9:
			w.scan(ctx)
		}
		if n%w.burst == 0 {
			time.Sleep(w.pause)
		}
	}
}

// id is the id of the worker's i-th block.
func (w *worker) id(i int) string { return fmt.Sprintf("%d/%02d", w.n, i) }

// content is what a version of a block consists of: 1 to 4,096 bytes.
func content(id string, version uint64) []byte {
	r := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s@%d", id, version)))
	data := make([]byte, 1+r.Uint64()%4096)
	r.Read(data)
	return data
}

// next is the next version of a block, which counts as tried from here on.
func (w *worker) next(i int) []byte {
	w.known[i].tried = true
	return content(w.id(i), w.known[i].acked+1)
}

func (w *worker) acknowledged(i int) { w.known[i] = knowledge{acked: w.known[i].acked + 1} }

// check compares a block that was read with what it may be.
func (w *worker) check(i int, data []byte) {
	id, k := w.id(i), w.known[i]
	switch {
	case k.acked > 0 && bytes.Equal(data, content(id, k.acked)):
	case k.tried && bytes.Equal(data, content(id, k.acked+1)):
	default:
		w.violate("block %s is not as it was acknowledged last, in version %d", id, k.acked)
	}
}

func (w *worker) put(ctx context.Context, i int) {
	id, data := w.id(i), w.next(i)
	st := w.begin()
	if err := w.store.Put(ctx, []byte(id), data); err != nil {
		w.failed(ctx, write, err)
		return
	}
	w.succeeded(write, st, "put "+id)
	w.acknowledged(i)
}

func (w *worker) get(ctx context.Context, i int) {
	id := w.id(i)
	st := w.begin()
	data, err := w.store.Get(ctx, []byte(id), nil)
	if errors.Is(err, block.ErrNotFound) {
		if w.known[i].acked > 0 {
			w.violate("block %s was acknowledged, and is not found", id)
		}
		return
	}
	if err != nil {
		w.failed(ctx, read, err)
		return
	}
	w.succeeded(read, st, "get "+id)
	w.check(i, data)
}

// batch writes four blocks, all or none.
func (w *worker) batch(ctx context.Context, first int) {
	b := w.store.NewBatch()
	defer b.Close()
	const n = 4
	var st stance
	err := func() error {
		for j := range n {
			i := (first + j) % each
			if err := b.Put(ctx, []byte(w.id(i)), w.next(i)); err != nil {
				return err
			}
		}
		st = w.begin()
		return b.Commit(ctx)
	}()
	if err != nil {
		w.failed(ctx, write, err)
		return
	}
	w.succeeded(write, st, "a batch")
	for j := range n {
		w.acknowledged((first + j) % each)
	}
}

// scan walks the worker's blocks. Each step is judged for itself: the lock may come
// between two.
func (w *worker) scan(ctx context.Context) {
	r := block.Range{Start: fmt.Appendf(nil, "%d/", w.n), End: fmt.Appendf(nil, "%d0", w.n)} // '0' follows '/'
	var seen [each]bool
	st := w.begin()
	for b, err := range w.store.Blocks(ctx, r) {
		if err != nil {
			w.failed(ctx, read, err)
			return
		}
		w.succeeded(read, st, "a step of a scan")
		var n, i int
		if _, err := fmt.Sscanf(string(b.ID), "%d/%d", &n, &i); err != nil || n != w.n || i < 0 || i >= each {
			w.violate("a scan from %q to %q came to block %q", r.Start, r.End, b.ID)
			return
		}
		w.check(i, b.Data)
		seen[i] = true
		st = w.begin()
	}
	for i, k := range w.known {
		if k.acked > 0 && !seen[i] {
			w.violate("block %s was acknowledged, and a scan passed it by", w.id(i))
		}
	}
}
