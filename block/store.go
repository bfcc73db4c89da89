package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
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
	// What each Get and Put looks at. Of a thousand stores that are used in turns, none is in a core's cache when
	// it is used next; so this is small, and many of them lie in one page of memory.
	keys   *keyring.Keyring
	counts tally.Counts // for Stats
	table  row.Table
	// proven says that the keyring has opened records of this store. Anyone who has the KEK's
	// public key can make a keyring document, which would open nothing here. Nothing may be written
	// under it.
	proven   atomic.Bool
	readOnly bool          // opts.ReadOnly
	writes   *appliedCount // the sequence number

	*cold
}

// cold is the rest of a store.
type cold struct {
	opts     Options
	db       *DB
	alone    bool // Open made db for this store: it is closed with it
	name     string
	number   uint32           // of the partition
	part     engine.Partition // the store's rows and meta records; nil: there is none yet
	use      row.Use
	gone     chan struct{} // closed when nothing of this store uses the partition any more
	storage  *register.Storage
	rewriter *rewrite.Rewriter
	board    *progress.Board // the long operations that are under way
	made     bool            // its document is in the engine; one whose creation fails has none, and vouches for nothing

	tasks
	copyTurns
	upkeep   upkeep // what the store does by itself
	sequence sequence
	recent   recent // for RecentEvents
	given    given  // the KEKs that Open and ChangeKEK were given
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
	do, err := o.alone().withDefaults()
	if err != nil {
		return nil, err
	}
	d, found, err := newDB(dir, do)
	if err != nil {
		return nil, err
	}
	d.one = true
	s, err := d.openAlone(ctx, found, k, o)
	if err != nil {
		return nil, errors.Join(err, d.release())
	}
	return s, nil
}

// alone returns the options of a DB that a store has for itself.
func (o *Options) alone() *DBOptions {
	k := o.Keyring
	return &DBOptions{ReadOnly: o.ReadOnly, RecordCache: o.RecordCache, RowCache: o.RowCache, Pebble: o.Pebble, Logger: k.Logger, FileKEK: o.FileKEK,
		FileKeyring: keyring.Options{Clock: k.Clock, Logger: k.Logger, Lease: k.Lease, AllowLongLease: k.AllowLongLease, CheckEvery: k.CheckEvery,
			VaultTimeout: k.VaultTimeout, ManualRevalidation: k.ManualRevalidation, PinVersion: k.PinVersion}}
}

// openAlone opens or makes the only store of a directory.
func (d *DB) openAlone(ctx context.Context, found bool, k *kek.KEK, o Options) (s *Store, err error) {
	if !found {
		// First its keyring, in memory: a vault that refuses leaves nothing behind.
		if d.opts.ReadOnly {
			return nil, d.create()
		}
		s = d.newStore(cmp.Or(o.Name, DefaultName), 0, k, o)
		if s.keys, err = keyring.Create(ctx, s.storage, k, &s.opts.Keyring); err != nil {
			return nil, fmt.Errorf("block: create %s: %w", d.place.Dir(), err)
		}
		s.alone = true
		if d.opts.FileKEK != nil {
			err = d.openSealed(ctx, false)
		} else {
			err = d.create()
		}
		if err == nil {
			err = s.add(ctx, 0)
		}
	} else {
		if d.opts.FileKEK != nil {
			err = d.openSealed(ctx, true)
		} else {
			err = d.open()
		}
		if err != nil {
			return nil, err
		}
		s, err = d.openOnly(ctx, k, o)
	}
	if err != nil {
		if s != nil {
			err = errors.Join(err, s.release())
		}
		return nil, err
	}
	s.alone = true
	return s, nil
}

// openOnly opens the only store of a directory, or that of a name; in a directory that never had one
// it makes it.
func (d *DB) openOnly(ctx context.Context, k *kek.KEK, o Options) (*Store, error) {
	name, some, err := d.only(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	if some {
		if err := d.finish(ctx); err != nil {
			return nil, err
		}
		return d.openStore(ctx, name, k, o)
	}
	if o.ReadOnly {
		return nil, fmt.Errorf("block: open %s: its creation was not finished: %w", d.place.Dir(), ErrReadOnly)
	}
	s, _, err := d.createStore(ctx, name, k, o)
	return s, err
}

// only returns the name of the store that is meant by name, which may be "", and whether it is
// there. Where it is not, none ever was.
func (d *DB) only(ctx context.Context, name string) (string, bool, error) {
	var names []string
	enough := errors.New("enough")
	err := d.catalogue.Each(ctx, func(e catalogue.Entry, err error) error {
		if err != nil || name != "" && e.Name != name {
			return err
		}
		if names = append(names, e.Name); len(names) > 1 {
			return enough
		}
		return nil
	})
	if err != nil && !errors.Is(err, enough) {
		return "", false, fmt.Errorf("block: open %s: %w", d.place.Dir(), row.Damage(err))
	}
	switch len(names) {
	case 1:
		e, err := d.find(ctx, names[0])
		if errors.Is(err, ErrNoStore) && e.State == catalogue.Creating {
			return names[0], false, nil
		}
		return names[0], err == nil, err
	case 0:
		if d.place.Stores() > 0 {
			return "", false, fmt.Errorf("block: open: %w: %s has no store %s; open it with OpenDB", ErrNoStore, d.place.Dir(), row.Shown([]byte(cmp.Or(name, DefaultName))))
		}
		return cmp.Or(name, DefaultName), false, nil
	}
	return "", false, fmt.Errorf("block: open: %w: %s has several stores; say which by Options.Name, or open it with OpenDB", ErrNoStore, d.place.Dir())
}

// newStore returns a store that has no keyring yet.
func (d *DB) newStore(name string, number uint32, k *kek.KEK, o Options) *Store {
	o.ReadOnly = o.ReadOnly || d.opts.ReadOnly
	o.Keyring.ReadOnly = o.Keyring.ReadOnly || o.ReadOnly
	s := &Store{readOnly: o.ReadOnly, writes: new(appliedCount), cold: &cold{opts: o, db: d, name: name, number: number, gone: make(chan struct{}), storage: &register.Storage{StoreName: name}, upkeep: newUpkeep(),
		copyTurns: copyTurns{following: make(chan struct{}, 1), copying: make(chan struct{}, 1)}}}
	s.storage.Own = place.StoreInstance(d.place.Instance(), number)
	s.opts.Keyring.For(inner.Block{}).Instance = s.storage.Own
	s.opts.Keyring.For(inner.Block{}).Spread = !d.one
	s.opts.Keyring.For(inner.Block{}).Many = d.shared
	s.opts.Keyring.For(inner.Block{}).Clock = &d.clock
	s.opts.Keyring.For(inner.Block{}).Room = d.inFlight
	s.counts.Begin(d.counts)
	s.given.add(append(slices.Clone(o.Keyring.OtherKEKs), k)...)
	s.begin()
	s.watchKEK()
	s.watchSequence()
	return s
}

// equip gives a store that has a keyring and a partition what its operations need. That is before the
// DB has it among its open ones, where others find it: a Drop, for one.
func (s *Store) equip() {
	s.table.Init(row.Config{Part: s.part, Number: s.number, Keys: s.keys, Use: &s.use,
		Common: s.db.common, NoSync: s.opts.NoSync, Wrote: s.wrote})
	s.rewriter = s.newRewriter()
}

// start has a store do what it does by itself.
func (s *Store) start(ctx context.Context) {
	s.startUpkeep()
	s.startAnchoring(ctx)
	s.startFollowing()
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

// openStore opens a store in an engine that is open.
func (d *DB) openStore(ctx context.Context, name string, k *kek.KEK, o Options) (_ *Store, err error) {
	defer func() { d.wasOpened(name, err) }()
	e, err := d.find(ctx, name)
	if err != nil {
		return nil, err
	}
	for {
		since := d.copies.Load()
		s := d.newStore(name, e.Number, k, o)
		err := s.openExisting(ctx, e, k)
		if err == nil {
			s.equip()
			err = d.enlist(s, since)
		}
		if err == nil {
			s.start(ctx)
			return s, nil
		}
		err = errors.Join(err, s.release())
		if errors.Is(err, ErrExists) { // under another number by now
			if e, err = d.find(ctx, name); err == nil {
				continue
			}
		}
		if !errors.Is(err, errCopied) {
			return nil, err
		}
	}
}

func (s *Store) openExisting(ctx context.Context, e catalogue.Entry, k *kek.KEK) error {
	dir := s.db.place.Dir()
	s.part = s.db.engine.Partition(s.number)
	doc, err := register.Document(ctx, s.part)
	if errors.Is(err, engine.ErrNotFound) {
		if _, err := s.db.find(ctx, e.Name); errors.Is(err, ErrNoStore) { // it was dropped since it was found
			return err
		}
		return fmt.Errorf("block: open %s: the keyring document is missing: %w", dir, ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("block: open %s: %w", dir, row.Damage(err))
	}
	s.made = true
	if e.State == catalogue.Creating && !s.opts.ReadOnly {
		if err := s.db.present(ctx, e); err != nil {
			return err
		}
	}
	if err := register.CheckStoreID(ctx, s.part, doc); err != nil {
		return err
	}
	if err := s.storage.Attach(ctx, s.part); err != nil {
		return fmt.Errorf("block: open %s: %w", dir, row.Damage(err))
	}
	if err := s.findSequence(ctx); err != nil {
		return fmt.Errorf("block: open %s: %w", dir, err)
	}
	ko := s.opts.Keyring
	ko.For(inner.Block{}).AwaitRevalidate = ko.For(inner.Block{}).AwaitRevalidate || s.isCopy()
	// The first document that is saved, perhaps by Open, has the copies in the register, and their
	// announcements go.
	ko.For(inner.Block{}).Shared = ko.For(inner.Block{}).Shared || s.storage.MayBeShared()
	if s.opts.relocate != nil {
		if err := s.opts.relocate(ctx, s, ko); err != nil {
			return err
		}
	}
	if s.keys, err = keyring.Open(ctx, s.storage, k, &ko); err != nil {
		return fmt.Errorf("block: open %s: %w", dir, err)
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
		return nil // nothing will be written, and each block that is read is authenticated
	}
	if err := s.prove(ctx, &h); err != nil {
		return fmt.Errorf("block: open %s: %w; what opens of it can be read with ReadOnly", dir, err)
	}
	return nil
}

// isCopy reports whether the store is a copy that has not been revalidated.
func (s *Store) isCopy() bool {
	_, is := s.storage.IsCopy()
	return is
}

// tagger returns the Tagger for an identity file, which also works after the keyring was closed;
// nil if the keys are not accessible.
func (s *Store) tagger() *inner.Tagger {
	if s.keys == nil || s.opts.ReadOnly || !s.made {
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
func (s *Store) Instance() string { return s.storage.Own.String() }

// Fingerprint is for an anchor; see [keyring.Keyring.Fingerprint].
func (s *Store) Fingerprint() string { return s.keys.Fingerprint() }

// VaultCalls returns the number of calls to the vault since Open.
func (s *Store) VaultCalls() keyring.Calls { return s.keys.VaultCalls() }

// State returns whether the store serves, and why not. It calls no vault. While the engine's files are
// closed for want of their KEK (DBOptions.FileKEK), a store whose own keys are accessible is Inaccessible
// with a Cause that matches [ErrFileKEK].
func (s *Store) State() keyring.State {
	st := s.keys.State()
	if s.db.files != nil {
		s.db.files.overlay(&st)
	}
	return st
}

// Close waits for the operations in flight, closes open snapshots and scans, and closes the store.
// Their next use, and everything else, then returns [ErrClosed]. Closing twice does nothing. Close
// ends a Checkpoint and an Erase that wait for a full disk, but not a write; see [Store.Put].
func (s *Store) Close() error {
	if s.alone {
		s.db.tasks.cancel()
	}
	s.end()
	err := s.endSequence()
	return s.use.Close(func() error { return withoutFiles(errors.Join(err, s.release())) })
}

// release closes what is open, in the order that makes each step safe.
func (s *Store) release() error {
	var errs []error
	tagger := s.tagger()
	if s.keys != nil {
		err := s.closeKeys()
		if s.db.shared && errors.Is(err, keyring.ErrNoDocument) {
			err = nil // it was dropped, and there is nothing left to write to
		}
		errs = append(errs, err)
	}
	errs = append(errs, s.use.CloseAll()...)
	if s.part != nil {
		s.part.Release()
	}
	if s.alone {
		s.db.mu.Lock()
		s.db.closing = true
		s.db.mu.Unlock()
	}
	s.db.closed(s, tagger)
	if s.alone {
		errs = append(errs, s.db.release())
	}
	return errors.Join(errs...)
}

// String, GoString and Format print the directory, and not what the store holds, through which a print
// would otherwise walk while it is in use.

func (s *Store) String() string {
	if s == nil || s.db == nil {
		return "block.Store(none)"
	}
	return "block.Store(" + s.db.place.Dir() + ")"
}

func (s *Store) GoString() string { return s.String() }

func (s *Store) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }
