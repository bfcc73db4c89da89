package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// Store is an open store. All its methods are safe for concurrent use.
//
// Every use of the engine happens inside a hold of the keyring or under usage, so
// that Close, which ends both, finds the engine at rest.
type Store struct {
	opts    Options
	place   *place.Place
	db      engine.Engine
	part    engine.Partition // the store's rows and meta records in it
	keys    *keyring.Keyring
	storage *register.Storage
	records *recordCache
	rows    *rowCache
	scratch sync.Pool
	// partition is the number of part, which each block is bound to.
	partition uint32

	// proven is whether the keyring was seen to open a record of this store. A
	// keyring document can be made by anyone who has the KEK's public key; it
	// would open nothing that is here, and must not be written under.
	proven atomic.Bool

	// background is what the store does by itself, under ctx, which ends with Close.
	background sync.WaitGroup
	ctx        context.Context
	cancel     context.CancelFunc
	spawning   sync.Mutex       // orders the start of background work and Close
	following  chan struct{}    // admits one look at the copies at a time
	changing   sync.Mutex       // held by who changes which copies there are
	copiesTold map[string]error // why a copy was not moved, by instance, as it was told last; guarded by that turn
	moves      copyMoves
	// copying admits one Checkpoint at a time, from before it takes the files until the
	// copy is registered: whoever has this turn knows of every copy that was begun before.
	copying chan struct{}
	// rewriting admits one rewriting operation at a time.
	rewriting chan struct{}
	steps     steps
	rotations uint64  // of the epoch, begun since Open; guarded by the turn of rewriting
	aged      uint32  // how far dek-age is known to reach; guarded likewise
	budget    *budget // of vault calls for what rewrites
	pausing   pausing // of RewrapDEKs
	upkeep    upkeep  // what the store does by itself
	sequence  sequence

	counts  counts       // what Stats counts
	work    workboard    // what long operations are under way
	telling atomic.Int32 // how many of those are in their Progress
	recent  recent       // events, for RecentEvents

	// usage is held for reading by what uses the engine without the keyring, such
	// as Checkpoint, and for writing by Close.
	usage  sync.RWMutex
	closed bool // guarded by usage

	openMu sync.Mutex
	open   map[io.Closer]struct{} // snapshots and scans, for Close

	given given // the KEKs that Open and ChangeKEK were given
}

// Open opens the store in dir, creating it if dir does not exist or is empty, with
// k as the KEK that wraps its keyring.
//
// If the vault refuses or does not answer, an existing store opens all the same, in
// state Inaccessible and with the reason, unless Options.RequireAccess; a new one
// is not created and dir is left as it was. A copy made by Checkpoint waits in
// state Inaccessible for Revalidate.
//
// One store that writes, or any number that are read only, have a directory open, in all
// processes and under all its names together (see [Options].FS). Open does not wait for
// the others: [ErrLocked] says that they are there and nothing else. A lock that cannot be
// taken for another reason (a read-only medium, a full disk, permissions, too many open
// files) is that reason, for errors.Is.
//
// Errors: [ErrNotStore], [ErrLocked], [ErrVersion], [ErrForeign], [ErrCorrupt],
// keyring.ErrWrongKEK, keyring.ErrUnexpected, and those of package vault.
func Open(ctx context.Context, dir string, k *kek.KEK, opts *Options) (*Store, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if k == nil {
		return nil, errors.New("block: open: a KEK is required")
	}
	// So that a program that goes to another directory later takes none of it along.
	if dir, err = place.Absolute(o.FS, dir); err != nil {
		return nil, fmt.Errorf("block: open: %w", err)
	}
	found, err := place.Has(o.FS, dir)
	if err != nil {
		return nil, err
	}
	s := newStore(o, dir, k)
	if !found {
		err = s.create(ctx, k, s.storage)
	} else {
		err = s.openExisting(ctx, k, s.storage)
	}
	if err != nil {
		return nil, errors.Join(err, s.release())
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// newStore returns a store that has neither a keyring nor an engine yet.
func newStore(o Options, dir string, k *kek.KEK) *Store {
	s := &Store{opts: o, storage: &register.Storage{}, place: place.New(o.FS, dir, o.ReadOnly), open: map[io.Closer]struct{}{},
		following: make(chan struct{}, 1), copying: make(chan struct{}, 1), rewriting: make(chan struct{}, 1),
		steps: defaultSteps(), upkeep: newUpkeep()}
	s.given.add(append(slices.Clone(o.Keyring.OtherKEKs), k)...)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.watchKEK()
	s.watchSequence()
	s.scratch.New = func() any { return new(scratch) }
	return s
}

// start makes a store that has both ready for use, or closes it.
func (s *Store) start(ctx context.Context) error {
	s.records, s.rows = newRecordCache(s.opts.RecordCache), newRowCache(s.opts.RowCache)
	s.budget = newBudget(s.keys, s.opts.VaultRate)
	if err := s.loadPause(ctx); err != nil {
		return errors.Join(err, s.Close())
	}
	s.startUpkeep()
	s.startAnchoring(ctx)
	return nil
}

// spawn runs f in the background, unless the store is being closed, and reports
// whether it does.
func (s *Store) spawn(f func()) bool {
	s.spawning.Lock()
	defer s.spawning.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.background.Go(f)
	return true
}

// watchKEK puts the store's own ear before the caller's OnEvent.
func (s *Store) watchKEK() {
	given := s.opts.Keyring.OnEvent
	s.opts.Keyring.OnEvent = func(e keyring.Event) {
		s.recent.add(e)
		// Events may be dropped: what follows is done at the next look in any case.
		if e.Kind == keyring.KEKChanged || e.Kind == keyring.StateChanged && e.To == keyring.Available {
			s.upkeep.hurry()
		}
		if given != nil {
			given(e)
		}
	}
}

// create makes a new store: first its keyring, in memory, then the directory.
func (s *Store) create(ctx context.Context, k *kek.KEK, storage *register.Storage) error {
	if s.opts.ReadOnly {
		return fmt.Errorf("block: there is no store in %s, and a read-only one cannot be created: %w", s.place.Dir(), ErrReadOnly)
	}
	s.place.Begin()
	s.be()
	var err error
	if s.keys, err = keyring.Create(ctx, storage, k, &s.opts.Keyring); err != nil {
		return fmt.Errorf("block: create %s: %w", s.place.Dir(), err)
	}
	if err := s.place.MakeDir(); err != nil {
		return fmt.Errorf("block: create %s: %w", s.place.Dir(), err)
	}
	if err := s.place.Lock(); err != nil {
		return err
	}
	// Somebody else may have created a store between the first look and the lock.
	if found, err := place.Has(s.opts.FS, s.place.Dir()); err != nil {
		return err
	} else if found {
		return fmt.Errorf("block: create %s: %w: somebody else just created it; open it again", s.place.Dir(), ErrLocked)
	}
	if err := s.place.Enter(pebble.Creating); err != nil {
		return err
	}
	if err := s.openEngine(); err != nil {
		return err
	}
	return s.finishCreation(ctx, storage)
}

// finishCreation saves the keyring of a new store, with which there is one.
func (s *Store) finishCreation(ctx context.Context, storage *register.Storage) error {
	if err := storage.Attach(ctx, s.part); err != nil {
		return fmt.Errorf("block: create %s: %w", s.place.Dir(), err)
	}
	s.created()
	s.proven.Store(true)
	return s.place.Enter(pebble.Opened)
}

func (s *Store) openExisting(ctx context.Context, k *kek.KEK, storage *register.Storage) error {
	if err := s.place.Lock(); err != nil {
		return err
	}
	if err := s.survey(); err != nil {
		return err
	}
	creating := s.place.Phase() == pebble.Creating
	if !creating {
		if err := s.place.Enter(pebble.Opening); err != nil {
			return err
		}
	}
	if err := s.openEngine(); err != nil {
		return s.place.NotFinished(err)
	}
	doc, err := register.Document(ctx, s.part)
	if errors.Is(err, engine.ErrNotFound) {
		return s.goOnCreating(ctx, k, storage)
	}
	if err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), s.damage(err))
	}
	if err := s.place.Enter(pebble.Opened); err != nil {
		return err
	}
	if err := register.CheckStoreID(ctx, s.part, doc); err != nil {
		return err
	}
	if err := storage.Attach(ctx, s.part); err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), s.damage(err))
	}
	if err := s.findSequence(ctx); err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), err)
	}
	ko := s.opts.Keyring
	ko.AwaitRevalidate = ko.AwaitRevalidate || s.place.IsCopy()
	// With the first document that is saved, as Open may do, the copies are in the register and
	// announced no more.
	ko.Shared = ko.Shared || storage.MayBeShared()
	if s.opts.relocate != nil {
		if err := s.opts.relocate(ctx, s, ko); err != nil {
			return err
		}
	}
	if s.keys, err = keyring.Open(ctx, storage, k, &ko); err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), err)
	}
	if err := s.expectClaimed(); err != nil {
		return err
	}
	h, err := s.keys.Acquire()
	if err != nil {
		return nil // inaccessible: proven before the first write
	}
	defer h.Release()
	if s.opts.ReadOnly {
		return nil // nothing is going to be written, and each block that is read is authenticated
	}
	if err := s.prove(ctx, &h); err != nil {
		return fmt.Errorf("block: open %s: %w; what opens of it can be read with ReadOnly", s.place.Dir(), err)
	}
	return nil
}

// goOnCreating makes the keyring of a store whose creation was cut off before it was
// saved. Nothing can have been written before; if something is there, or the creation had
// come to its end, the keyring has been lost.
func (s *Store) goOnCreating(ctx context.Context, k *kek.KEK, storage *register.Storage) error {
	some, err := engine.HoldsAnything(ctx, s.part)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), s.damage(err))
	}
	switch {
	case some || s.place.Phase() != pebble.Creating:
		return fmt.Errorf("block: open %s: the keyring document is missing: %w", s.place.Dir(), ErrCorrupt)
	case s.opts.ReadOnly:
		return fmt.Errorf("block: open %s: its creation was not finished: %w", s.place.Dir(), ErrReadOnly)
	}
	if s.keys, err = keyring.Create(ctx, storage, k, &s.opts.Keyring); err != nil {
		return fmt.Errorf("block: create %s: %w", s.place.Dir(), err)
	}
	return s.finishCreation(ctx, storage)
}

// damage makes the engine's corruption the store's, and its unknown version.
func (s *Store) damage(err error) error {
	switch {
	case errors.Is(err, engine.ErrCorrupt):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.Is(err, engine.ErrVersion):
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	return err
}

// StoreID returns the store's id, which its copies share.
func (s *Store) StoreID() keyring.StoreID { return s.keys.StoreID() }

// Instance returns 32 hexadecimal digits that tell this store from its copies.
func (s *Store) Instance() string { return s.place.Instance().String() }

// Fingerprint is for an anchor; see [keyring.Keyring.Fingerprint].
func (s *Store) Fingerprint() string { return s.keys.Fingerprint() }

// VaultCalls counts the calls to the vault since Open.
func (s *Store) VaultCalls() keyring.Calls { return s.keys.VaultCalls() }

// State returns whether the store serves, and why not. It reaches no vault.
func (s *Store) State() keyring.State { return s.keys.State() }

// Close waits for the operations in flight, closes snapshots and scans that are
// open, and closes the store. Their next use, and everything else, then returns
// [ErrClosed]. Closing twice does nothing. A Checkpoint and an Erase that wait for a full
// disk end; of changes, see [Store.Put].
func (s *Store) Close() error {
	s.spawning.Lock()
	s.cancel()
	s.spawning.Unlock()
	s.background.Wait()
	err := s.endSequence()
	s.usage.Lock()
	defer s.usage.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(err, s.release())
}

// release closes what is open, in the order that makes each step safe.
func (s *Store) release() error {
	var errs []error
	tagger := s.tagger()
	defer tagger.Destroy()
	if s.keys != nil {
		errs = append(errs, s.keys.Close())
	}
	s.openMu.Lock()
	for c := range s.open {
		errs = append(errs, c.Close())
	}
	s.open = nil
	s.openMu.Unlock()
	if s.db != nil {
		err := s.db.Close()
		if err == nil {
			err = s.place.Leave(s.recordedSequence(), tagger)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.place.Unlock())...)
}

// track registers something for Close to close. Inside a hold.
func (s *Store) track(c io.Closer) {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	s.open[c] = struct{}{}
}

// finish closes something that was tracked, unless Close has.
func (s *Store) finish(c io.Closer) error {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if _, ok := s.open[c]; !ok {
		return nil
	}
	delete(s.open, c)
	return c.Close()
}

// tracked reports whether something is open still.
func (s *Store) tracked(c io.Closer) bool {
	s.openMu.Lock()
	defer s.openMu.Unlock()
	_, ok := s.open[c]
	return ok
}
