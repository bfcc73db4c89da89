package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/pool"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/spread"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// The defaults of DBOptions.
const (
	DefaultMaxOpen   = 1000
	DefaultIdleClose = 10 * time.Minute
	DefaultOpening   = 16
)

// DBOptions configure a DB. A nil *DBOptions, and each zero field, means the default that the field
// states.
type DBOptions struct {
	// Resolve returns the KEK and the options of a store that Acquire is about to open. It may
	// block, and is called for one store at a time only where that is the same one. The KEKs of a
	// vault that counts its calls have one client, or clients with one budget (azure.Options.Budgets),
	// in which checks of access go first. Default: none, and Acquire returns only what is open.
	//
	// Which KEK is whose it knows from elsewhere than from [DB.Stores]: who writes the disk can put a
	// store there under a KEK of theirs and another one's name, and would read what is written to it.
	Resolve func(ctx context.Context, name string) (*kek.KEK, *Options, error)
	// MaxOpen is how many stores Acquire keeps open at once. To open another one it closes the one
	// that nobody has used for longest; if all are used, it waits. Each that is open asks its vault
	// three times in each Keyring.CheckEvery, spread over it, as long as nothing is rotated: of 1,000
	// with keys in one Azure vault the checks take 500 operations in 10 seconds, of the 2,000 that
	// azure.DefaultBudget has, or 1,000 of keys in an HSM. More than twice as many in one vault take
	// a longer CheckEvery. Default: 1,000.
	MaxOpen int
	// IdleClose is how long Acquire keeps a store open that nobody uses. Default: 10 minutes.
	IdleClose time.Duration
	// Opening is how many stores Acquire opens at once. Of those, half at the most are of one vault,
	// and one of a vault that did not answer the last time. Default: 16.
	Opening int

	// FileKEK seals the engine's files ([sealfs]) under a KEK of the operator's, beneath the KEKs of the
	// stores: ids of blocks, sizes, logs and the list of stores are then hidden as well, and to read a
	// block takes both keys. Its keyring document lies beside the files (BLOCKSEAL.keyring), in clear as
	// every document. OpenDB asks its vault. It is chosen when the directory is made; the files of one that
	// there is are sealed and unsealed by blockseal's operator (files seal, files unseal), and the wrong
	// choice is [ErrFileKEK].
	//
	// When access is lost, the DB closes its engine, and all stores are Inaccessible ([ErrInaccessible],
	// [ErrFileKEK]) until access is back, when it opens the engine again: the program does nothing.
	// Calls under way return that error, and of a write then nobody knows whether it was made; batches,
	// snapshots and scans that were begun before fail. With Options.NoSync the last writes may be
	// lost, as in a crash. A directory that exists opens without access too, as [Open] says of a
	// store; stores can then be opened when access is back. Default: none.
	FileKEK *kek.KEK
	// FileKeyring configures the keyring of FileKEK, as Options.Keyring that of a store. Its Wrapping is
	// ByKeyring. A checkpoint that was made under a former FileKEK follows its stores to another KEK if that
	// one is among its OtherKEKs, or was FileKEK when the DB was opened.
	FileKeyring keyring.Options

	// ReadOnly opens an existing directory and all its stores as Options.ReadOnly does one.
	ReadOnly bool
	// RecordCache and RowCache are the sizes of the caches that the stores share, as in Options;
	// Options.RecordCache and RowCache of a store in a DB mean nothing.
	RecordCache, RowCache int64
	// Pebble configures the storage engine.
	Pebble PebbleOptions
	// Logger is told what the engine says. Default: nobody is.
	Logger *slog.Logger
	// Clock is for IdleClose. Default: the system's.
	Clock vault.Clock
}

func (o *DBOptions) withDefaults() (DBOptions, error) {
	var c DBOptions
	if o != nil {
		c = *o
	}
	c.MaxOpen = cmp.Or(c.MaxOpen, DefaultMaxOpen)
	c.IdleClose = cmp.Or(c.IdleClose, DefaultIdleClose)
	c.Opening = cmp.Or(c.Opening, DefaultOpening)
	c.RecordCache = cmp.Or(c.RecordCache, DefaultRecordCache)
	c.RowCache = cmp.Or(c.RowCache, DefaultRowCache)
	c.Pebble.FS = c.Pebble.fs()
	if c.Clock == nil {
		c.Clock = vault.SystemClock()
	}
	if c.MaxOpen < 0 || c.IdleClose < 0 || c.Opening < 0 || c.Pebble.BlockCache < 0 {
		return c, errors.New("block: options: MaxOpen, IdleClose, Opening and Pebble.BlockCache must not be negative")
	}
	return c, nil
}

// DB is one storage engine with any number of stores in it, each under a KEK of its own: in a directory
// ([OpenDB]), or where a package beneath this one has it. Its methods are safe for concurrent use.
type DB struct {
	opts      DBOptions
	place     *place.Place
	engine    engine.Engine
	files     *sealedFiles // nil: they are not sealed
	shared    bool         // other processes may have the engine too
	common    *row.Common  // of the tables of its stores
	catalogue *catalogue.Catalogue
	stores    *pool.Pool[*Store]
	use       row.Use     // by what is done to the directory, and not in a store
	one       bool        // Open made it, for one store
	clock     inner.Clock // of the keyrings of its stores
	tasks     tasks       // end when it begins to close

	// What the hot paths of all stores count.
	inFlight *spread.Room[inner.InFlight]
	counts   *tally.Room

	copying chan struct{} // admits one Checkpoint at a time
	listing sync.RWMutex  // held for reading by who adds to opened, and for writing by a Checkpoint
	copies  atomic.Uint64 // begun and ended Checkpoints

	// closing and taggers are of the stores that are closed because the DB is; see closed.
	mu      sync.Mutex
	opened  map[string]*Store // by name
	closing bool
	taggers map[uint32]*inner.Tagger
	watch   watch
}

// OpenDB opens the directory dir, which becomes one if it does not exist or is empty. It asks no
// vault, but for DBOptions.FileKEK: stores are opened by Open, Create and Acquire. A directory that [Open] made is one with a
// store in it. What an earlier DB left unfinished, such as a Drop, is finished first.
//
// One DB that writes, or any number that are read only, have a directory open. Errors:
// [ErrNotStore], [ErrLocked], [ErrVersion], [ErrCorrupt], [ErrFileKEK].
func OpenDB(ctx context.Context, dir string, opts *DBOptions) (*DB, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	d, found, err := newDB(dir, o)
	if err != nil {
		return nil, err
	}
	switch {
	case o.FileKEK != nil:
		err = d.openSealed(ctx, found)
	case found:
		err = d.open()
	default:
		err = d.create()
	}
	if err == nil && d.files == nil {
		err = d.finish(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

// newDB returns a DB without an engine, and whether there is one in dir.
func newDB(dir string, o DBOptions) (d *DB, found bool, err error) {
	// An absolute path stays right when the program changes its working directory.
	if dir, err = place.Absolute(o.Pebble.FS, dir); err != nil {
		return nil, false, fmt.Errorf("block: open: %w", err)
	}
	if found, err = place.Has(o.Pebble.FS, dir); err != nil {
		return nil, false, err
	}
	d = unopenedDB(o)
	d.place = place.New(o.Pebble.FS, dir, o.ReadOnly)
	if !found {
		d.place.Begin()
	}
	return d, found, nil
}

// unopenedDB returns a DB without an engine and without a place.
func unopenedDB(o DBOptions) *DB {
	d := &DB{opts: o, copying: make(chan struct{}, 1), inFlight: inner.NewInFlight(), counts: tally.NewRoom()}
	d.tasks.begin()
	d.stores = pool.New(pool.Options[*Store]{Prepare: d.prepare, Close: (*Store).Close, Most: o.MaxOpen, Idle: o.IdleClose, Opening: o.Opening, Clock: o.Clock})
	return d
}

// create makes the directory, and its engine.
func (d *DB) create() error {
	if err := d.createDir(); err != nil {
		return err
	}
	if err := d.openEngine(); err != nil {
		return err
	}
	return d.place.Enter(pebble.Opened)
}

// createDir makes the directory, which has no engine yet.
func (d *DB) createDir() error {
	dir := d.place.Dir()
	if d.opts.ReadOnly {
		return fmt.Errorf("block: there is no store in %s, and a read-only one cannot be created: %w", dir, ErrReadOnly)
	}
	if err := d.place.MakeDir(); err != nil {
		return fmt.Errorf("block: create %s: %w", dir, err)
	}
	if err := d.place.Lock(); err != nil {
		return err
	}
	// Somebody else may have created it between the first look and the lock.
	if found, err := place.Has(d.opts.Pebble.FS, dir); err != nil {
		return err
	} else if found {
		return fmt.Errorf("block: create %s: %w: somebody else just created it; open it again", dir, ErrLocked)
	}
	return d.place.Enter(pebble.Creating)
}

// open opens a directory that there is.
func (d *DB) open() error {
	if err := d.place.Lock(); err != nil {
		return err
	}
	e, err := d.beneath()
	if e != nil {
		d.attach(e)
	}
	return err
}

// beneath opens the engine of a directory that there is. With an error it may return one to be closed.
func (d *DB) beneath() (engine.Engine, error) {
	if err := d.place.Survey(); err != nil {
		return nil, err
	}
	if d.place.Phase() != pebble.Creating {
		if err := d.place.Enter(pebble.Opening); err != nil {
			return nil, err
		}
	}
	e, err := d.place.OpenEngine(d.engineOptions())
	if err != nil {
		return nil, d.place.NotFinished(err)
	}
	if err := d.checkCatalogue(context.Background(), catalogue.Of(e)); err != nil {
		return e, err
	}
	return e, d.place.Enter(pebble.Opened)
}

// checkCatalogue refuses an engine that has fewer stores than were made: what it has lost of the
// catalogue it may have lost of them.
func (d *DB) checkCatalogue(ctx context.Context, c *catalogue.Catalogue) error {
	given, err := c.Given(ctx)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", d.place.Dir(), row.Damage(err))
	}
	if made := d.place.Stores(); given < made {
		return fmt.Errorf("block: open %s: %d stores were made in it, and its catalogue knows of %d: %w", d.place.Dir(), made, given, ErrCorrupt)
	}
	return nil
}

func (d *DB) engineOptions() pebble.Options {
	p := d.opts.Pebble
	return pebble.Options{
		Logger: d.opts.Logger, CacheBytes: p.BlockCache, MemTableBytes: p.MemTable, ValueSeparation: p.ValueSeparation, Fatal: p.Fatal,
		NoTableStats: d.files != nil,
	}
}

func (d *DB) openEngine() error {
	e, err := d.place.OpenEngine(d.engineOptions())
	if err != nil {
		return err
	}
	d.attach(e)
	return nil
}

// attach gives the DB its engine.
func (d *DB) attach(e engine.Engine) {
	d.engine, d.shared, d.catalogue = e, isShared(e), catalogue.Of(e)
	d.common = row.NewCommon(row.Engine{Shared: d.shared, Ready: d.filesReady()}, d.opts.RecordCache, d.opts.RowCache)
}

// Close closes all stores that are open, and the DB. It waits for what is under way, as Store.Close
// does, and ends an Export, an Import, and a Checkpoint and a Drop that wait for a full disk. It may be
// called inside a walk over Stores or Dropped, which ends then, and not inside DBOptions.Resolve, whose
// ctx ends. Everything after it returns [ErrClosed]. Closing twice does nothing.
func (d *DB) Close() error {
	d.tasks.cancel()
	d.mu.Lock()
	d.closing = true
	d.mu.Unlock()
	err := d.stores.Close()
	return d.use.Close(func() error { return errors.Join(err, d.release()) })
}

// errCopied says that a Checkpoint was begun or ended while a store was being opened: what it has
// read may be from before its copy was announced.
var errCopied = errors.New("a checkpoint was made meanwhile")

// enlist makes a store one that is open, unless a Checkpoint has come in between since.
func (d *DB) enlist(s *Store, since uint64) error {
	d.listing.RLock()
	defer d.listing.RUnlock()
	if d.copies.Load() != since {
		return errCopied
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened == nil {
		d.opened = map[string]*Store{}
	}
	d.opened[s.name] = s
	return nil
}

// openStores returns those that are open.
func (d *DB) openStores() []*Store {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.opened))
}

// isOpen returns a store if it is open.
func (d *DB) isOpen(name string) *Store {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opened[name]
}

// closed is told of each store that was closed, with what tags the list of files for it, if it could
// be had.
func (d *DB) closed(s *Store, t *inner.Tagger) {
	d.mu.Lock()
	if d.opened[s.name] == s {
		delete(d.opened, s.name)
	}
	d.closedOne(s)
	if t != nil && d.closing {
		if d.taggers == nil {
			d.taggers = map[uint32]*inner.Tagger{}
		}
		d.taggers[s.number], t = t, nil
	}
	d.mu.Unlock()
	t.Destroy()
	close(s.gone)
	d.stores.Closed(s.name, s) // whoever closed it
}

// release closes the engine and lets the directory go.
func (d *DB) release() error {
	d.tasks.cancel()
	d.mu.Lock()
	taggers := maps.Clone(d.taggers)
	d.mu.Unlock()
	defer func() {
		for _, t := range taggers {
			t.Destroy()
		}
	}()
	var errs []error
	if e := d.engine; e != nil {
		d.engine = nil // to release twice does nothing
		given, err := d.catalogue.Given(context.Background())
		err = errors.Join(row.Damage(err), e.Close())
		if err == nil {
			err = d.place.Leave(given, taggers)
		}
		if d.files != nil {
			err = d.files.left(err)
		}
		errs = append(errs, err)
	}
	if d.files != nil {
		errs = append(errs, d.files.close())
	}
	return errors.Join(append(errs, d.place.Unlock())...)
}
