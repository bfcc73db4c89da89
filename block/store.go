package block

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/rewrite"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// Store is an open store. All its methods are safe for concurrent use.
//
// Every use of the engine is inside a hold of the keyring or under use. Close ends both and then
// finds the engine at rest.
type Store struct {
	opts  Options
	place *place.Place
	db    engine.Engine
	part  engine.Partition // the store's rows and meta records in db
	// partition is the number of part, to which each block is bound.
	partition uint32
	use       row.Use
	keys      *keyring.Keyring
	storage   *register.Storage
	table     *row.Table
	rewriter  *rewrite.Rewriter
	board     *progress.Board // the long operations that are under way

	// proven says that the keyring has opened records of this store. Anyone who has the KEK's
	// public key can make a keyring document, which would open nothing here. Nothing may be written
	// under it.
	proven atomic.Bool

	tasks
	copyTurns
	upkeep   upkeep // what the store does by itself
	sequence sequence
	counts   tally.Counts // for Stats
	recent   recent       // for RecentEvents
	given    given        // the KEKs that Open and ChangeKEK were given
}

// Open opens the store in dir, with k as the KEK that wraps its keyring. It creates a store if dir
// does not exist or is empty.
//
// If the vault refuses or does not answer, an existing store opens in state Inaccessible with the
// reason, unless Options.RequireAccess is set; a new one is not created, and dir is left as it was.
// A copy made by Checkpoint waits in state Inaccessible for Revalidate.
//
// One store that writes, or any number that are read only, have a directory open, in all processes
// and under all its names together (see [PebbleOptions].FS). Open does not wait for the others:
// [ErrLocked] says that they exist, and nothing else. If the directory cannot be locked for another
// reason (a read-only medium, a full disk, permissions, too many open files), errors.Is finds that
// reason.
//
// Errors: [ErrNotStore], [ErrLocked], [ErrVersion], [ErrForeign], [ErrCorrupt],
// keyring.ErrWrongKEK, keyring.ErrUnexpected, and those of package vault.
func Open(ctx context.Context, dir string, k *kek.KEK, opts *Options) (*Store, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := inner.RequireKEK(k); err != nil {
		return nil, fmt.Errorf("block: open: %w", err)
	}
	// An absolute path stays right when the program changes its working directory.
	if dir, err = place.Absolute(o.Pebble.FS, dir); err != nil {
		return nil, fmt.Errorf("block: open: %w", err)
	}
	found, err := place.Has(o.Pebble.FS, dir)
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
	s.start(ctx)
	return s, nil
}

// newStore returns a store without a keyring and an engine.
func newStore(o Options, dir string, k *kek.KEK) *Store {
	s := &Store{opts: o, storage: &register.Storage{}, place: place.New(o.Pebble.FS, dir, o.ReadOnly), upkeep: newUpkeep(),
		copyTurns: copyTurns{following: make(chan struct{}, 1), copying: make(chan struct{}, 1)}}
	s.given.add(append(slices.Clone(o.Keyring.OtherKEKs), k)...)
	s.begin()
	s.watchKEK()
	s.watchSequence()
	return s
}

// start makes a store that has both ready for use.
func (s *Store) start(ctx context.Context) {
	s.table = row.New(row.Config{Part: s.part, Number: s.partition, Keys: s.keys, Use: &s.use,
		RecordCache: s.opts.RecordCache, RowCache: s.opts.RowCache, NoSync: s.opts.NoSync, Wrote: s.wrote})
	s.rewriter = s.newRewriter()
	s.startUpkeep()
	s.startAnchoring(ctx)
}

// watchKEK puts the store's own listener before the caller's OnEvent.
func (s *Store) watchKEK() {
	given := s.opts.Keyring.OnEvent
	s.opts.Keyring.OnEvent = func(e keyring.Event) {
		s.recent.add(e)
		// Events may be dropped; the next look does this in any case.
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
	if found, err := place.Has(s.opts.Pebble.FS, s.place.Dir()); err != nil {
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

// finishCreation saves the keyring of a new store. From then on there is a store.
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
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), row.Damage(err))
	}
	if err := s.place.Enter(pebble.Opened); err != nil {
		return err
	}
	if err := register.CheckStoreID(ctx, s.part, doc); err != nil {
		return err
	}
	if err := storage.Attach(ctx, s.part); err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), row.Damage(err))
	}
	if err := s.findSequence(ctx); err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), err)
	}
	ko := s.opts.Keyring
	ko.For(inner.Block{}).AwaitRevalidate = ko.For(inner.Block{}).AwaitRevalidate || s.place.IsCopy()
	// The first save, which may be Open's, registers the announced copies and ends their
	// announcements.
	ko.For(inner.Block{}).Shared = ko.For(inner.Block{}).Shared || storage.MayBeShared()
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
		return nil // Inaccessible: prove runs before the first write
	}
	defer h.Release()
	if s.opts.ReadOnly {
		return nil // nothing is written, and each block that is read authenticates
	}
	if err := s.prove(ctx, &h); err != nil {
		return fmt.Errorf("block: open %s: %w; what opens of it can be read with ReadOnly", s.place.Dir(), err)
	}
	return nil
}

// goOnCreating makes the keyring of a store whose creation was cut off before it was saved. Nothing
// can have been written before. If something is there, or the creation had ended, the keyring is
// lost.
func (s *Store) goOnCreating(ctx context.Context, k *kek.KEK, storage *register.Storage) error {
	some, err := engine.HoldsAnything(ctx, s.part)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", s.place.Dir(), row.Damage(err))
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

// survey checks the directory, and sets the store's instance from it.
func (s *Store) survey() error {
	if err := s.place.Survey(); err != nil {
		return err
	}
	s.be()
	s.storage.Waits = s.place.IsCopy()
	return nil
}

// be sets the instance of the store's keyring.
func (s *Store) be() {
	s.storage.Own = s.place.Instance()
	s.opts.Keyring.For(inner.Block{}).Instance = s.storage.Own
}

func (s *Store) openEngine() error {
	db, err := s.place.OpenEngine(pebble.Options{
		Logger: s.opts.Keyring.Logger, CacheBytes: s.opts.Pebble.BlockCache, MemTableBytes: s.opts.Pebble.MemTable,
		ValueSeparation: s.opts.Pebble.ValueSeparation, Fatal: s.opts.Pebble.Fatal,
	})
	if err != nil {
		return err
	}
	s.db, s.part = db, db.Partition(s.partition)
	return nil
}

// tagger returns the Tagger for an identity file, which also works after the keyring was closed;
// nil if the keys are not accessible.
func (s *Store) tagger() *inner.Tagger {
	if s.keys == nil || s.opts.ReadOnly {
		return nil
	}
	t, err := s.taggerFor(place.TagPurpose)
	if err != nil {
		return nil
	}
	return t
}

func (s *Store) taggerFor(purpose string) (*inner.Tagger, error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return nil, err
	}
	defer h.Release()
	return h.For(inner.Block{}).Tagger(purpose)
}

// StoreID returns the store's id. Copies have the same.
func (s *Store) StoreID() keyring.StoreID { return s.keys.StoreID() }

// Instance returns 32 hexadecimal digits that tell this store from its copies.
func (s *Store) Instance() string { return s.place.Instance().String() }

// Fingerprint is for an anchor; see [keyring.Keyring.Fingerprint].
func (s *Store) Fingerprint() string { return s.keys.Fingerprint() }

// VaultCalls returns the number of calls to the vault since Open.
func (s *Store) VaultCalls() keyring.Calls { return s.keys.VaultCalls() }

// State returns whether the store serves, and why not. It calls no vault.
func (s *Store) State() keyring.State { return s.keys.State() }

// Close waits for the operations in flight, closes open snapshots and scans, and closes the store.
// Their next use, and everything else, then returns [ErrClosed]. Closing twice does nothing. Close
// ends a Checkpoint and an Erase that wait for a full disk, but not a write; see [Store.Put].
func (s *Store) Close() error {
	s.end()
	err := s.endSequence()
	return s.use.Close(func() error { return errors.Join(err, s.release()) })
}

// release closes what is open, in the order that makes each step safe.
func (s *Store) release() error {
	var errs []error
	tagger := s.tagger()
	defer tagger.Destroy()
	if s.keys != nil {
		errs = append(errs, s.keys.Close())
	}
	errs = append(errs, s.use.CloseAll()...)
	if s.db != nil {
		err := s.db.Close()
		if err == nil {
			err = s.place.Leave(s.savedSequence(), tagger)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.place.Unlock())...)
}
