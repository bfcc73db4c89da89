package block

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/keyring"
)

// Work is a long operation that is under way, or the last that ended.
type Work struct {
	// Name says which: "rotate_epoch", "rekey", "rewrap_deks" or "verify", which is
	// what WorkNames returns. An Erase is a rotate_epoch.
	Name string
	Step
	Started time.Time
	// Ended is when it ended, and Err with what: nil if it did all it had to. Ended
	// is zero while it is under way. The text of Err may name a block.
	Ended time.Time
	Err   error
}

// Fraction is how much of the work is done, from 0 to 1; not ok as long as nobody
// knows how much there is.
func (w Work) Fraction() (f float64, ok bool) {
	switch {
	case !w.Ended.IsZero() && w.Err == nil:
		return 1, true
	case w.Total == 0:
		return 0, false
	}
	return min(1, float64(w.Done)/float64(w.Total)), true
}

const (
	workRotateEpoch = "rotate_epoch"
	workRekey       = "rekey"
	workRewrap      = "rewrap_deks"
	workVerify      = "verify"
)

// WorkNames returns every name that a [Work] can have. The names are stable: blockprom
// has them as values of a metric's label.
func WorkNames() []string { return []string{workRotateEpoch, workRekey, workRewrap, workVerify} }

// workboard is what long operations are under way, and how the last one of each
// name ended.
type workboard struct {
	mu      sync.Mutex
	running []*work
	last    map[string]Work
}

// work is one of them. Its owner counts, others read.
type work struct {
	name    string
	started time.Time
	start   time.Duration // on the keyring's clock
	done    atomic.Uint64
	bytes   atomic.Uint64
	total   atomic.Uint64 // 0: not known
	calls   atomic.Uint64 // to the vault
	paused  atomic.Bool
	stop    func() // ends counting the total
}

// begin puts a work on the board. As long as total is not known, 0, it is counted
// beside the work, at no cost to that but the reading: a progress needs an end.
func (s *Store) begin(name string, total uint64, count func(context.Context) (uint64, error)) *work {
	w := &work{name: name, started: s.keys.Now(), start: s.keys.Elapsed(), stop: func() {}}
	w.total.Store(total)
	if total == 0 && count != nil {
		ctx, cancel := context.WithCancel(s.ctx)
		ended := make(chan struct{})
		if s.spawn(func() {
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
	s.work.mu.Lock()
	defer s.work.mu.Unlock()
	s.work.running = append(s.work.running, w)
	return w
}

// end takes a work off the board, and remembers how it ended.
func (s *Store) end(w *work, err error) {
	w.stop()
	// What stops a rotation because it does not open would stop who reads it; a
	// verification counts what it finds itself.
	if w.name != workVerify && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion)) {
		s.counts.fail(failedRewrite, err)
	}
	s.work.mu.Lock()
	defer s.work.mu.Unlock()
	s.work.running = slices.DeleteFunc(s.work.running, func(o *work) bool { return o == w })
	if s.work.last == nil {
		s.work.last = map[string]Work{}
	}
	e := w.snapshot(s.keys)
	e.Ended, e.Err = s.keys.Now(), err
	s.work.last[w.name] = e
}

func (w *work) snapshot(k *keyring.Keyring) Work {
	return Work{Name: w.name, Started: w.started, Step: Step{
		Done: w.done.Load(), Bytes: w.bytes.Load(), Total: w.total.Load(),
		VaultCalls: w.calls.Load(), Paused: w.paused.Load(), Elapsed: k.Elapsed() - w.start,
	}}
}

// works returns what is under way, in the order in which it began, and then the
// last of each name, the latest first.
func (s *Store) works() (running, last []Work) {
	s.work.mu.Lock()
	defer s.work.mu.Unlock()
	for _, w := range s.work.running {
		running = append(running, w.snapshot(s.keys))
	}
	for _, w := range s.work.last {
		last = append(last, w)
	}
	slices.SortFunc(last, func(a, b Work) int {
		return cmp.Or(b.Ended.Compare(a.Ended), strings.Compare(a.Name, b.Name))
	})
	return running, last
}

// countIn counts the DEK records of a range.
func (s *Store) countIn(r Range) func(context.Context) (uint64, error) {
	return func(ctx context.Context) (n uint64, err error) {
		err = s.eachRecord(ctx, r.Start, func(id, _ []byte, _ keyring.RecordInfo) (bool, error) {
			if r.End != nil && string(id) >= string(r.End) {
				return false, nil
			}
			n++
			return true, nil
		})
		return n, err
	}
}
