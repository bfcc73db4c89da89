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
// Every use of the engine happens inside a hold of the keyring or under use, so
// that Close, which ends both, finds the engine at rest.
type Store struct {
	opts  Options
	place *place.Place
	db    engine.Engine
	part  engine.Partition // the store's rows and meta records in it
	// partition is the number of part, which each block is bound to.
	partition uint32
	use       row.Use
	keys      *keyring.Keyring
	storage   *register.Storage
	table     *row.Table
	rewriter  *rewrite.Rewriter
	board     *progress.Board // the long operations that are under way

	// proven is whether the keyring was seen to open a record of this store. A
	// keyring document can be made by anyone who has the KEK's public key; it
	// would open nothing that is here, and must not be written under.
	proven atomic.Bool

	tasks
	copyTurns
	upkeep   upkeep // what the store does by itself
	sequence sequence
	counts   tally.Counts // what Stats counts
	recent   recent       // events, for RecentEvents
	given    given        // the KEKs that Open and ChangeKEK were given
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

// newStore returns a store that has neither a keyring nor an engine yet.
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
		RecordCache: s.opts.RecordCache, RowCache: s.opts.RowCache, NoSync: s.opts.NoSync, Changed: s.changed})
	s.rewriter = s.newRewriter()
	s.startUpkeep()
	s.startAnchoring(ctx)
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
	// With the first document that is saved, as Open may do, the copies are in the register and
	// announced no more.
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

// survey looks at the directory, and makes the store whose it is.
func (s *Store) survey() error {
	if err := s.place.Survey(); err != nil {
		return err
	}
	s.be()
	s.storage.Waits = s.place.IsCopy()
	return nil
}

// be makes the keyring one of the store's instance.
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

// tagger returns what tags an identity, also after the keyring was closed; nil if the
// keys are not accessible.
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
			err = s.place.Leave(s.recordedSequence(), tagger)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.place.Unlock())...)
}
