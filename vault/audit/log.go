package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// ErrNotRecorded says that a record is not where the log's promise puts it:
// written and, if the writer can sync, synced. It may get there later; see
// [Stats].
var ErrNotRecorded = errors.New("audit: not recorded")

// ErrClosed says that the log was closed.
var ErrClosed = errors.New("audit: the log is closed")

// maxPending bounds the records that wait in memory for the log to become
// writable, in bytes: enough to bridge a few hundred operations.
const maxPending = 64 << 10

// Recorder takes records. [*Log] is the one of this package; a program may put
// another between a vault and a log, to filter or to copy. It is safe for
// concurrent use. When Record returns nil the record is durable, as far as the
// recorder can tell.
type Recorder interface {
	Record(ctx context.Context, r Record) error
}

// Log chains records and writes them. It is safe for concurrent use; records are
// written one at a time, in the order in which their operations ended.
type Log struct {
	now func() time.Time

	mu      sync.Mutex
	out     sink
	closed  bool
	chained Head    // of the last record that has its place in the chain
	written Head    // of the last record that the sink has taken
	pending []entry // those between the two
	bytes   int     // of the lines in pending
	unsaid  uint64  // records lost since the log said so
	lost    uint64  // records lost in all
}

// entry is a record with its place in the chain.
type entry struct {
	record Record
	line   []byte
	head   Head // after it
}

// sink is where a log goes.
type sink interface {
	// append writes entries, in order, and returns how many of them need not be
	// handed to it again. With an error, those are not known to be durable. What
	// was not taken is handed to it again, the same bytes, before anything else.
	append(ctx context.Context, entries []entry) (taken int, err error)
	close() error
}

// LogOptions configure a [Log]. Nil is all defaults.
type LogOptions struct {
	// After is the head of the chain that the log continues. The default is the
	// zero Head: a new chain, of a log with an identity of its own ([Head.Log], which
	// [Log.Head] tells from the start).
	After Head

	// Clock tells the time of the log's own records. The default is the system's.
	Clock vault.Clock
}

func newLog(out sink, opts *LogOptions) *Log {
	l := &Log{out: out, now: time.Now}
	if opts != nil {
		l.chained = opts.After
		if opts.Clock != nil {
			l.now = opts.Clock.Now
		}
	}
	if l.chained.Log == (LogID{}) {
		l.chained.Log = newLogID()
	}
	l.written = l.chained
	return l
}

// Record gives r its place in the chain and writes it, with what could not be
// written before. The error matches [ErrNotRecorded], and what kept it from
// being written. It does not wait for ctx, which only a slog.Handler gets to
// see: an operation that was cancelled has happened too.
func (l *Log) Record(ctx context.Context, r Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("%w: %w", ErrNotRecorded, ErrClosed)
	}
	if l.bytes >= maxPending {
		if err := l.flush(ctx); l.bytes >= maxPending {
			l.lost++
			l.unsaid++
			return err
		}
	}
	if r.Time.IsZero() {
		r.Time = l.now()
	}
	l.chain(r)
	return l.flush(ctx)
}

// Flush writes what waits in memory for the log to become writable. Nil says that
// nothing waits any more, and that the log takes records. It is safe for concurrent
// use.
func (l *Log) Flush(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("%w: %w", ErrNotRecorded, ErrClosed)
	}
	return l.flush(ctx)
}

// chain appends r to pending, after a word on what was lost before it.
func (l *Log) chain(r Record) {
	if l.unsaid > 0 {
		said := Record{Time: l.now(), Event: EventLost, Count: l.unsaid}
		l.unsaid = 0
		l.chain(said)
	}
	line, head := encode(l.chained, r)
	l.pending = append(l.pending, entry{record: r, line: line, head: head})
	l.bytes += len(line)
	l.chained = head
}

// flush hands pending to the sink.
func (l *Log) flush(ctx context.Context) error {
	if len(l.pending) == 0 {
		return nil
	}
	taken, err := l.out.append(context.WithoutCancel(ctx), l.pending)
	for _, e := range l.pending[:taken] {
		l.bytes -= len(e.line)
		l.written = e.head
	}
	l.pending = append(l.pending[:0], l.pending[taken:]...)
	clear(l.pending[len(l.pending):cap(l.pending)]) // let go of the lines
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotRecorded, err)
	}
	return nil
}

// Stats is the state of a log.
type Stats struct {
	Head    Head   `json:"head"`    // of the last record that was written
	Pending int    `json:"pending"` // records that wait in memory for the log to become writable
	Lost    uint64 `json:"lost"`    // records that were lost since the log was opened
}

// Stats returns the state of the log.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Head: l.written, Pending: len(l.pending), Lost: l.lost}
}

// Head returns the head of the last record that was written: what to keep
// elsewhere, and give to [Verify].
func (l *Log) Head() Head { return l.Stats().Head }

// Close tries once more to write what waits in memory, and closes the files of a
// log that OpenDir made; a writer or handler stays the caller's. Records that
// could not be written are lost, and the error says so. After Close, Record
// fails; Close again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.unsaid > 0 {
		l.chain(Record{Time: l.now(), Event: EventLost, Count: l.unsaid})
	}
	err := l.flush(context.Background())
	l.lost += uint64(len(l.pending))
	l.pending, l.bytes = nil, 0
	return errors.Join(err, l.out.close())
}
