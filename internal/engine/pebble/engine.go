// Package pebble is the engine of a directory, on Pebble v2. Everything that knows Pebble by name
// is here: the rows in its keys, its options, errors, files, lock and logger, and its quirks.
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

// ErrLocked says that another process, or another DB of this one, has the directory open. It has no
// other meaning.
var ErrLocked = errors.New("engine: the directory is in use")

// Options configure a DB. A zero field means its default.
type Options struct {
	FS       vfs.FS // default: the operating system's
	ReadOnly bool
	// Create makes an engine where Pebble sees none; see Survey.
	Create bool
	Logger *slog.Logger // default: none
	// CacheBytes is the size of Pebble's block cache. Default: 64 MiB.
	CacheBytes int64
	// MemTableBytes is the size of a memtable; there may be four. Default: 64 MiB.
	MemTableBytes uint64
	// ValueSeparation is the least size of a value that lies in a blob file, apart from its key.
	// Default: 1,024 bytes; negative: never.
	ValueSeparation int
	// NoTableStats is for files that may be cut off while the engine is opened. Where Pebble v2.1 has
	// written out a log that it replays, and Open fails after that, the goroutine that looks at the new
	// tables for Pebble's plans goes on, meets a cache that is closed, and panics. Compactions then are
	// planned without counts of what they would remove, and Stats has no Tombstones.
	NoTableStats bool
	// Fatal is called with a message when the engine cannot go on. It must not return. Default: log
	// the message and end the process.
	Fatal func(msg string)
}

// DB is an open engine. It is safe for concurrent use.
type DB struct {
	p       *pebble.DB
	purges  chan struct{} // admits one purge at a time
	guard   *guard
	lookups *lookups
	log     *logger
	room    *room
	running *running
	dir     string
	files   purgeFS
	options func() *pebble.Options // with the defaults filled in
	loads   atomic.Uint64          // that were begun

	snapshots  snapshots
	quiet      sync.RWMutex // locked while nothing may be written to the log
	partitions partitions
	batches    sync.Pool // of *batch
	closed     atomic.Bool
}

// Open opens the engine in dir, whose lock the caller has. Close does not release the lock.
func Open(dir string, lock *Lock, o Options) (d *DB, err error) {
	// Pebble panics if it cannot move its format marker: on a full disk, for one. No DB exists yet
	// that could be half changed in memory.
	defer func() {
		if r := recover(); r != nil {
			cause, ok := r.(error)
			if !ok {
				cause = fmt.Errorf("%v", r)
			}
			d, err = nil, fmt.Errorf("engine: open: %w", cause)
		}
	}()
	files := purgeFS{FS: o.fs(), logs: new(oldLogs)}
	log, room, run, compactions := &logger{log: o.Logger, fatal: o.Fatal}, newRoom(o), newRunning(), newScheduler()
	if !o.ReadOnly {
		if err := removeLoads(dir, files); err != nil {
			log.Errorf("what is left of a load could not be removed: %v", err)
		}
	}
	options := sync.OnceValue(func() *pebble.Options {
		p := pebbleOptions(o, lock, files, log, room, run, compactions)
		p.EnsureDefaults()
		return p
	})
	p, err := pebble.Open(dir, pebbleOptions(o, lock, files, log, room, run, compactions))
	if err != nil {
		return nil, translateOpen(err)
	}
	compactions.start()
	g := new(guard)
	return &DB{p: p, purges: make(chan struct{}, 1), guard: g, lookups: newLookups(p, g), log: log, room: room, running: run, dir: dir, files: files, options: options,
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

// translate adds this package's error to Pebble's.
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

// translateOpen is translate for Open, where Pebble does not report missing files, and files of a
// wrong size, as corruption.
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

// Getter finds keys.
type Getter interface {
	// Get returns the value of key, valid until closer is closed, or engine.ErrNotFound.
	Get(key []byte) (value []byte, closer io.Closer, err error)
}

// Reader is a DB or a Snapshot.
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

// Clone returns an iterator over other keys of the same state.
func (i *Iter) Clone(lower, upper []byte) (*Iter, error) {
	it, err := i.it.Clone(pebble.CloneOptions{
		IterOptions: &pebble.IterOptions{LowerBound: lower, UpperBound: upper},
	})
	return newIter(i.guard, it, err)
}

// First, Last, Next, Prev, SeekGE and SeekLT move to a key and report whether there is one. After
// false, see Err.

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

// ValueSize returns the size of the current value; it does not read a value in a blob file.
func (i *Iter) ValueSize() int {
	v := i.it.LazyValue()
	return v.Len()
}

// Err returns what stopped the iterator; nil at the end of the keys.
func (i *Iter) Err() error { return translate(i.it.Error()) }

// Close releases the iterator and returns its error.
func (i *Iter) Close() error { return translate(i.it.Close()) }
