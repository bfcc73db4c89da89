package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

const (
	workers  = 4  // goroutines
	each     = 32 // blocks a worker reads and writes
	shown    = 20 // violations that are told one by one
	patience = time.Minute
)

// target is what the load uses of a [block.Store]. The tests give it stores that
// break their promises.
type target interface {
	State() keyring.State
	Put(ctx context.Context, id, data []byte) error
	Get(ctx context.Context, id, dst []byte) ([]byte, error)
	Blocks(ctx context.Context, r block.Range) scan
	NewBatch() *block.Batch
}

// load is goroutines that read and write, and check what they see.
type load struct {
	store   target
	workers []*worker
	pause   time.Duration // that a worker makes
	burst   int           // after so many operations

	// cut is odd while the vault refuses: between two looks at the same odd value
	// the store cannot have come back.
	cut      atomic.Uint64
	degraded atomic.Int64 // operations served while Degraded

	stopping atomic.Bool
	running  sync.WaitGroup

	mu         sync.Mutex
	violations []string
	more       int // violations beyond those shown
}

// worker is one goroutine of the load, and the owner of its blocks.
type worker struct {
	*load
	n     int
	known [each]knowledge
	tally
}

// knowledge is what a worker knows of a block of its own. Versions begin at 1.
type knowledge struct {
	acked uint64 // the version acknowledged last; 0: none yet
	// tried says that a write of the next version was not acknowledged. The store
	// then has either of the two.
	tried bool
}

// kind is reading or writing.
type kind int

const (
	read kind = iota
	write
	kinds
)

// tally counts a worker's operations since the rehearsal began.
type tally struct{ served, refused [kinds]atomic.Int64 }

func newLoad(s *block.Store, real bool) *load {
	l := &load{store: storeTarget{s}, pause: time.Millisecond, burst: 8}
	if real {
		l.pause, l.burst = 10*time.Millisecond, 1 // for minutes on end
	}
	for n := range workers {
		l.workers = append(l.workers, &worker{load: l, n: n})
	}
	return l
}

// start starts the load with its counts at zero; stop stops it.
func (l *load) start(ctx context.Context) {
	l.stopping.Store(false)
	l.degraded.Store(0)
	for _, w := range l.workers {
		for k := range kinds {
			w.served[k].Store(0)
			w.refused[k].Store(0)
		}
		l.running.Go(func() { w.run(ctx) })
	}
}

func (l *load) stop() {
	l.stopping.Store(true)
	l.running.Wait()
}

// violate notes that a promise was broken.
func (l *load) violate(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.violations) == shown {
		l.more++
		return
	}
	l.violations = append(l.violations, fmt.Sprintf(format, args...))
}

// count adds up a count of all workers.
func (l *load) count(of func(*worker) *atomic.Int64) (sum int64) {
	for _, w := range l.workers {
		sum += of(w).Load()
	}
	return sum
}

// await waits in real time until every worker has counted n more of each kind.
func (l *load) await(ctx context.Context, n int64, of func(*worker, kind) *atomic.Int64) error {
	for _, w := range l.workers {
		for k := range kinds {
			least := of(w, k).Load() + n
			for end := time.Now().Add(patience); of(w, k).Load() < least; {
				if time.Now().After(end) {
					return errors.New("the load does not get on")
				}
				if err := sleep(ctx, time.Millisecond); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// whileDegraded waits in real time until an operation was served while the store is
// Degraded, if it is: on a simulated clock the lease may else be over before there is one.
func (l *load) whileDegraded(ctx context.Context) {
	for end := time.Now().Add(patience); l.degraded.Load() == 0 && l.store.State().Status == keyring.Degraded; {
		if time.Now().After(end) || sleep(ctx, time.Millisecond) != nil {
			return // what comes next notices both
		}
	}
}

func served(w *worker, k kind) *atomic.Int64  { return &w.served[k] }
func refused(w *worker, k kind) *atomic.Int64 { return &w.refused[k] }

// readBack reads all blocks that were acknowledged, and returns how many.
func (l *load) readBack(ctx context.Context) (n int, err error) {
	for _, w := range l.workers {
		for i, k := range w.known {
			if k.acked == 0 {
				continue
			}
			n++
			data, err := l.store.Get(ctx, []byte(w.id(i)), nil)
			if ctx.Err() != nil {
				return n, fmt.Errorf("drill: %w", ctx.Err())
			}
			if err != nil {
				l.violate("block %s was acknowledged, and reading it back says: %v", w.id(i), err)
			} else {
				w.check(i, data)
			}
		}
	}
	return n, nil
}

// stance is how things stood when an operation began.
type stance struct {
	cut    uint64
	status keyring.Status
}

func (l *load) begin() stance {
	cut := l.cut.Load()
	return stance{cut, l.store.State().Status}
}

// succeeded judges an operation that succeeded. If the state said Inaccessible
// before it began, and nobody has begun to give access back since, it must not have.
func (w *worker) succeeded(k kind, st stance, what string) {
	w.served[k].Add(1)
	if st.status == keyring.Degraded {
		w.degraded.Add(1)
	}
	if st.cut%2 == 1 && st.status == keyring.Inaccessible && w.cut.Load() == st.cut {
		w.violate("%s succeeded while the store was Inaccessible", what)
	}
}

// failed judges an operation that failed.
func (w *worker) failed(ctx context.Context, k kind, err error) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, block.ErrInaccessible):
		w.refused[k].Add(1)
		time.Sleep(time.Millisecond) // there is no use in asking faster
	default:
		w.violate("an operation failed, and not because the store is Inaccessible: %v", err)
	}
}
