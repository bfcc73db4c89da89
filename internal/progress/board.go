// Package progress reports how far a store's long operations have come, to their callers and to
// people who look at the store.
package progress

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Step is how far an operation has come.
type Step struct {
	Done, Bytes, Total uint64 // Total is 0 if it is not known
	VaultCalls         uint64
	Elapsed            time.Duration
}

// Work is an operation that is under way, or one that has ended; then Ended is not zero.
type Work struct {
	Name string
	Step
	Started, Ended time.Time
	Err            error
}

// Clock is the store's clock.
type Clock interface {
	Now() time.Time
	Elapsed() time.Duration // since any moment
}

// Board lists the operations that are under way, and how the last one of each name ended. It is
// safe for concurrent use.
type Board struct {
	clock Clock
	ctx   context.Context // ends with the store
	spawn func(func()) bool
	ended func(name string, err error)

	telling atomic.Int32 // operations that are in their Report

	mu      sync.Mutex
	running []*work
	last    map[string]Work
}

// NewBoard returns an empty board. ctx ends with the store. spawn runs a function on a goroutine
// that Close waits for, or returns false if Close has begun. ended is called when an operation has
// ended.
func NewBoard(ctx context.Context, clock Clock, spawn func(func()) bool, ended func(name string, err error)) *Board {
	return &Board{clock: clock, ctx: ctx, spawn: spawn, ended: ended, last: map[string]Work{}}
}

// work is an operation that is under way. Its owner counts, others read.
type work struct {
	name    string
	started time.Time
	start   time.Duration
	done    atomic.Uint64
	bytes   atomic.Uint64
	total   atomic.Uint64 // 0: not known
	calls   atomic.Uint64 // to the vault
	stop    func()        // ends the count of the total
}

// begin puts a work on the board. If total is 0, not known, count runs beside the work.
func (b *Board) begin(name string, total uint64, count func(context.Context) (uint64, error)) *work {
	w := &work{name: name, started: b.clock.Now(), start: b.clock.Elapsed(), stop: func() {}}
	w.total.Store(total)
	if total == 0 && count != nil {
		ctx, cancel := context.WithCancel(b.ctx)
		ended := make(chan struct{})
		if b.spawn(func() {
			defer close(ended)
			if n, err := count(ctx); err == nil {
				w.total.CompareAndSwap(0, n)
			}
		}) {
			w.stop = func() { cancel(); <-ended }
		} else {
			cancel()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = append(b.running, w)
	return w
}

// end removes a work from the board and keeps how it ended.
func (b *Board) end(w *work, err error) {
	w.stop()
	b.ended(w.name, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = slices.DeleteFunc(b.running, func(o *work) bool { return o == w })
	e := w.snapshot(b.clock)
	e.Ended, e.Err = b.clock.Now(), err
	b.last[w.name] = e
}

func (w *work) snapshot(c Clock) Work {
	return Work{Name: w.name, Started: w.started, Step: Step{
		Done: w.done.Load(), Bytes: w.bytes.Load(), Total: w.total.Load(), VaultCalls: w.calls.Load(), Elapsed: c.Elapsed() - w.start,
	}}
}

// Works returns the works that are under way, in the order in which they began, and the last of
// each name, the latest first.
func (b *Board) Works() (running, last []Work) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.running {
		running = append(running, w.snapshot(b.clock))
	}
	for _, w := range b.last {
		last = append(last, w)
	}
	slices.SortFunc(last, func(a, b Work) int {
		return cmp.Or(b.Ended.Compare(a.Ended), strings.Compare(a.Name, b.Name))
	})
	return running, last
}
