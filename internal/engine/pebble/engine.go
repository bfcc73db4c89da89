// Package pebble is the engine of a directory, on Pebble v2. Everything that knows Pebble by
// name is here: how rows are laid out in its keys, its options, its errors, its files and
// their lock, its logger, its quirks.
//
// Start with [LockDir], [Survey] and [Open], which returns an [engine.Engine].
package pebble

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine"
)

// ErrNone says that there is no engine in a directory.
var ErrNone = errors.New("engine: there is none")

// ErrLocked says that another process, or another DB of this one, has the
// directory open, and nothing else.
var ErrLocked = errors.New("engine: the directory is in use")

// Options configure a DB. Zero fields mean the default that they state.
type Options struct {
	FS       vfs.FS // default: the operating system's
	ReadOnly bool
	// Create makes an engine where there is none, as Pebble sees it; see Survey.
	Create bool
	Logger *slog.Logger // default: none
	// CacheBytes is the size of Pebble's block cache. Default: 64 MiB.
	CacheBytes int64
	// MemTableBytes is the size of one memtable, of which there may be four.
	// Default: 64 MiB.
	MemTableBytes uint64
	// ValueSeparation is the size of a value from which it is kept in a blob file
	// apart from the keys. Default: 1,024 bytes; negative: never.
	ValueSeparation int
	// Fatal is called when the engine cannot go on, with a message; it must not
	// return. Default: write the message to the logger and end the process.
	Fatal func(msg string)
}

// DB is an open engine. It is safe for concurrent use.
type DB struct {
	p       *pebble.DB
	purges  chan struct{} // admits one purge at a time
	purging *atomic.Bool  // see purgeFS
	guard   *guard
	lookups *lookups
	log     *logger
	room    *room
	running *running

	snapshots  snapshots
	quiet      sync.RWMutex // held for writing while nothing may be written to the log
	partitions partitions
	batches    sync.Pool // of *batch
	closed     atomic.Bool
}

// Open opens the engine in dir under a lock that the caller took. Close does not release
// the lock.
func Open(dir string, lock *Lock, o Options) (d *DB, err error) {
	// Pebble panics where its format marker cannot be moved, for one: on a full disk.
	// There is no DB yet, and so nothing that could be half changed in memory.
	defer func() {
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v", r)
			}
			d, err = nil, fmt.Errorf("engine: open: %w", cause)
		}
	}()
	files := purgeFS{FS: o.fs(), purging: new(atomic.Bool)}
	log, room, run := &logger{log: o.Logger, fatal: o.Fatal}, newRoom(o), newRunning()
	p, err := pebble.Open(dir, pebbleOptions(o, lock, files, log, room, run))
	if err != nil {
		return nil, translateOpen(err)
	}
	g := new(guard)
	return &DB{p: p, purges: make(chan struct{}, 1), purging: files.purging, guard: g, lookups: newLookups(p, g), log: log, room: room, running: run,
		partitions: partitions{of: map[uint32]*partition{}}, batches: sync.Pool{New: func() any { return new(batch) }}}, nil
}

// Close implements [engine.Engine].
func (d *DB) Close() (err error) {
	if d.closed.Swap(true) {
		return engine.ErrClosed
	}
	defer d.guard.close(&err)
	d.lookups.close()
	return translate(d.p.Close())
}

func (o Options) fs() vfs.FS {
	if o.FS == nil {
		return vfs.Default
	}
	return o.FS
}

// translate makes Pebble's errors those of this package, keeping them findable.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pebble.ErrNotFound):
		return engine.ErrNotFound
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", engine.ErrCorrupt, err)
	}
	return err
}

// translateOpen is translate for an error of Open, which finds files that are missing,
// or not of the size that they had, without calling that corruption.
func translateOpen(err error) error {
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		return fmt.Errorf("%w: %w: %w", ErrNone, engine.ErrCorrupt, err)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, pebble.ErrDBNotPristine) ||
		strings.Contains(err.Error(), "object size mismatch") || // of a table
		strings.Contains(err.Error(), " name from file ") { // of the comparer, in an OPTIONS file
		return fmt.Errorf("%w: %w", engine.ErrCorrupt, err)
	}
	return translate(err)
}

// Getter is what finds keys.
type Getter interface {
	// Get returns the value of key, valid until closer is closed, or engine.ErrNotFound.
	Get(key []byte) (value []byte, closer io.Closer, err error)
}

// Reader is what a DB and a Snapshot have in common.
type Reader interface {
	Getter
	// NewIter returns an iterator over the keys in [lower, upper).
	NewIter(lower, upper []byte) (*Iter, error)
}

// Get implements [Reader].
func (d *DB) Get(key []byte) (v []byte, c io.Closer, err error) {
	defer d.guard.read(&err)
	v, c, err = d.p.Get(key)
	return v, c, translate(err)
}

// NewIter implements [Reader].
func (d *DB) NewIter(lower, upper []byte) (*Iter, error) {
	it, err := d.p.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	return newIter(d.guard, it, err)
}

// Iter walks keys in order. It belongs to one goroutine.
type Iter struct {
	it    *pebble.Iterator
	guard *guard
}

func newIter(g *guard, it *pebble.Iterator, err error) (*Iter, error) {
	if err != nil {
		return nil, translate(err)
	}
	return &Iter{it, g}, nil
}

// Clone returns an iterator over other keys of the very same state.
func (i *Iter) Clone(lower, upper []byte) (*Iter, error) {
	it, err := i.it.Clone(pebble.CloneOptions{
		IterOptions: &pebble.IterOptions{LowerBound: lower, UpperBound: upper},
	})
	return newIter(i.guard, it, err)
}

// First, Last, Next, Prev, SeekGE and SeekLT move to a key and report whether there is one. A
// false may also be an error: see Err.

func (i *Iter) First() bool            { return i.it.First() }
func (i *Iter) Last() bool             { return i.it.Last() }
func (i *Iter) Next() bool             { return i.it.Next() }
func (i *Iter) Prev() bool             { return i.it.Prev() }
func (i *Iter) SeekGE(key []byte) bool { return i.it.SeekGE(key) }
func (i *Iter) SeekLT(key []byte) bool { return i.it.SeekLT(key) }
func (i *Iter) Valid() bool            { return i.it.Valid() }

// Key returns the current key, valid until the next move.
func (i *Iter) Key() []byte { return i.it.Key() }

// Value returns the current value, valid until the next move.
func (i *Iter) Value() (v []byte, err error) {
	defer i.guard.read(&err)
	v, err = i.it.ValueAndErr()
	return v, translate(err)
}

// ValueSize returns the size of the current value without reading it, if it is apart from
// the keys.
func (i *Iter) ValueSize() int {
	v := i.it.LazyValue()
	return v.Len()
}

// Err returns what stopped the iterator, nil at the end of the keys.
func (i *Iter) Err() error { return translate(i.it.Error()) }

// Close releases the iterator and returns its error.
func (i *Iter) Close() error { return translate(i.it.Close()) }
