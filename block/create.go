package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/pool"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// Create makes a store and opens it. Close closes it, as Store.Close does. If the vault refuses or
// does not answer, there is none. Names have 1 to 255 bytes of UTF-8 and are compared byte by byte.
// It waits for a Drop of that name which is under way in this DB; one that is not finished is
// [ErrExists], and its text says what to do. Of a name that somebody is just making or importing it is
// [ErrLocked]. Errors: [ErrExists], whether that store is open or not, [ErrName], and those of [Open].
func (d *DB) Create(ctx context.Context, name string, k *kek.KEK, opts *Options) (*Store, error) {
	return d.own(ctx, name, k, opts, "create", d.ownNew, d.createOrWithdraw)
}

// ownNew is pool.OwnNew that says of a name in use what that is.
func (d *DB) ownNew(ctx context.Context, name string, opening func(context.Context) (*Store, error)) (*Store, error) {
	s, err := d.stores.OwnNew(ctx, name, opening)
	if errors.Is(err, pool.ErrInUse) {
		err = d.taken(ctx, name, err)
	}
	return s, err
}

// taken says of a name that is in use whether there is a store of it: ErrExists, or err.
func (d *DB) taken(ctx context.Context, name string, err error) error {
	e, found := d.catalogue.Find(ctx, name)
	if found == nil {
		found = d.catalogue.Free(e, d.none(ctx))
	}
	if errors.Is(found, ErrExists) {
		return found
	}
	return err
}

// createStore makes a store in an engine that is open. Its number is given first, because its
// instance follows from it.
func (d *DB) createStore(ctx context.Context, name string, k *kek.KEK, o Options) (*Store, catalogue.Entry, error) {
	if d.opts.ReadOnly || o.ReadOnly {
		return nil, catalogue.Entry{}, ErrReadOnly
	}
	e, err := d.enter(ctx, name)
	if err != nil {
		return nil, catalogue.Entry{}, row.Damage(err)
	}
	if err := d.vacant(ctx, e); err != nil {
		return nil, e, err
	}
	s := d.newStore(name, e.Number, k, o)
	if s.keys, err = keyring.Create(ctx, s.storage, k, &s.opts.Keyring); err == nil {
		err = s.finishCreation(ctx, e)
	}
	if err != nil {
		return nil, e, errors.Join(err, s.use.Close(s.release)) // a Checkpoint may have found it
	}
	return s, e, nil
}

// createOrWithdraw is createStore, and of a creation that fails nothing is left.
func (d *DB) createOrWithdraw(ctx context.Context, name string, k *kek.KEK, o Options) (*Store, error) {
	s, e, err := d.createStore(ctx, name, k, o)
	if err != nil && e.Name != "" {
		err = errors.Join(err, d.withdraw(context.WithoutCancel(ctx), e))
	}
	return s, err
}

// none permits another creation of a store whose first one was cut off before it was one. Where
// the document is there it takes no creation away any more: whoever is told that the store exists opens
// it next, and another process may have looked before there was one. Errors: catalogue.ErrMoved, for
// such a one was faster.
func (d *DB) none(ctx context.Context) func(catalogue.Entry) (bool, error) {
	return func(e catalogue.Entry) (bool, error) {
		there, err := d.there(ctx, e)
		if there && !d.opts.ReadOnly {
			_, err = d.catalogue.Advance(ctx, e, catalogue.Present)
		}
		return !there, err
	}
}

// enter gives a store that is made its entry. Where an earlier creation was cut off, or what it left
// could not be removed, that has a partition of another number, which nobody finds once the entry has
// this one: what is in it is removed.
func (d *DB) enter(ctx context.Context, name string) (catalogue.Entry, error) {
	var left []catalogue.Entry
	e, err := d.catalogue.Add(ctx, name, func(e catalogue.Entry) (bool, error) {
		none, err := d.none(ctx)(e)
		if !none || err != nil || d.named(ctx, e) != nil { // an entry that somebody made: nothing is done for it
			return none, err
		}
		if d.shared {
			left = append(left, e) // whoever may still be at it loses the entry first
			return true, nil
		}
		return true, d.empty(ctx, e) // a crash after this leaves the entry
	})
	if err == nil {
		for _, e := range left {
			err = errors.Join(err, d.empty(ctx, e))
		}
	}
	if err != nil && e.Name != "" { // it is this one's by now
		err = errors.Join(err, d.withdraw(context.WithoutCancel(ctx), e))
	}
	return e, err
}

// withdraw removes the entry of a store whose creation has failed, unless it is one all the same.
// Where the name is free by now, or another one's creation has it, what is left is a partition that
// nobody finds.
func (d *DB) withdraw(ctx context.Context, was catalogue.Entry) error {
	e, err := d.catalogue.Find(ctx, was.Name)
	switch {
	case errors.Is(err, catalogue.ErrNone) || err == nil && e.Number != was.Number:
		if !d.shared {
			return nil
		}
		p := d.engine.Partition(was.Number)
		defer p.Release()
		return p.Clear(ctx)
	case err != nil:
		return err
	case e.State != catalogue.Creating:
		return nil
	}
	if err := d.named(ctx, e); errors.Is(err, ErrForeign) {
		return d.catalogue.Remove(ctx, e) // it was given the number of a store
	}
	if there, err := d.there(ctx, e); err != nil || there {
		return err
	}
	return d.abandon(ctx, e)
}

// add gives a store that has a keyring its entry, which has the number that the store was made for.
func (s *Store) add(ctx context.Context, number uint32) error {
	e, err := s.db.enter(ctx, s.name)
	if err == nil && e.Number != number {
		err = fmt.Errorf("block: create %s: it has stores already: %w", s.db.place.Dir(), ErrLocked)
	}
	if err != nil {
		return err
	}
	return s.finishCreation(ctx, e)
}

// finishCreation saves the keyring of a new store, with which there is one. A Checkpoint has it before
// that, and nothing of it, or after, when it is open.
func (s *Store) finishCreation(ctx context.Context, e catalogue.Entry) error {
	d := s.db
	s.part = d.engine.Partition(s.number)
	if some, err := engine.HoldsAnything(ctx, s.part); err != nil {
		return row.Damage(err)
	} else if some {
		return fmt.Errorf("block: create store %q: its partition, %d, is not empty: %w", s.name, s.number, ErrCorrupt)
	}
	if err := d.setMade(ctx, s.part); err != nil {
		return err
	}
	s.equip()
	if err := s.saveFirst(ctx); err != nil {
		return fmt.Errorf("block: create %s: %w", d.place.Dir(), err)
	}
	if err := d.present(context.WithoutCancel(ctx), e); err != nil {
		return err
	}
	s.created()
	s.proven.Store(true)
	s.start(ctx)
	return nil
}

// setMade has the directory know that a store was made in it, before there is one, so that none is
// lost unseen with the engine's files. The catalogue, which is to know of as many, may not be durable
// yet.
func (d *DB) setMade(ctx context.Context, p engine.Partition) error {
	if d.place.Stores() > 0 {
		return nil
	}
	if err := p.Sync(ctx); err != nil {
		return row.Damage(err)
	}
	return d.place.SetStores(1)
}

// saveFirst saves the first document, and makes the store one that is open.
func (s *Store) saveFirst(ctx context.Context) error {
	d := s.db
	d.listing.RLock()
	defer d.listing.RUnlock()
	if err := s.storage.Attach(ctx, s.part); err != nil {
		return err
	}
	s.made = true
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened == nil {
		d.opened = map[string]*Store{}
	}
	d.opened[s.name] = s
	return nil
}

// finish does what was left unfinished: drops, and creations of which no store has come.
func (d *DB) finish(ctx context.Context) error {
	if d.opts.ReadOnly {
		return nil
	}
	left, err := d.catalogue.Unfinished(ctx)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", d.place.Dir(), row.Damage(err))
	}
	for _, e := range left {
		there, err := d.there(ctx, e)
		if err == nil {
			err = d.named(ctx, e)
		}
		switch {
		case errors.Is(err, ErrForeign): // somebody made that entry, and nothing is done for it
			continue
		case e.State == catalogue.Dropping && (err == nil || errors.Is(row.Damage(err), ErrCorrupt)):
			_, err = d.finishDrop(ctx, e) // what is damaged can be dropped
			switch {
			case errors.Is(err, catalogue.ErrMoved): // somebody else has finished it
				err = nil
			case err == nil && !d.shared: // where it is shared, who began it may be waiting for its receipt
				d.dropFinished(e.Name)
			}
		case err != nil:
		case there:
			err = d.present(ctx, e)
		case d.shared:
			continue // somebody may be making it
		default:
			err = d.abandon(ctx, e)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("block: open %s: finish what was left of store %q: %w", d.place.Dir(), e.Name, ctx.Err())
		}
		if err != nil {
			// It is no store all the same, and the others have nothing to do with it.
			d.log(slog.LevelError, "what was left of a store was not finished; it is tried again when the DB is opened", e.Name, row.Damage(err))
		}
	}
	return nil
}

// there reports whether there is a store: its document is there.
func (d *DB) there(ctx context.Context, e catalogue.Entry) (bool, error) {
	_, err := d.document(ctx, e.Number)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// document reads the keyring document of a store that may be open.
func (d *DB) document(ctx context.Context, number uint32) ([]byte, error) {
	return d.engine.Peek(ctx, number, register.DocumentName)
}

// abandon removes the entry of a store whose creation has come to nothing, and before it what that has
// left: if that fails the entry stays, so that the next OpenDB, or Create, removes both.
func (d *DB) abandon(ctx context.Context, e catalogue.Entry) error {
	if err := d.empty(ctx, e); err != nil {
		return err
	}
	return d.catalogue.Remove(ctx, e)
}

// empty removes what is in the partition of an entry that is no store's.
func (d *DB) empty(ctx context.Context, e catalogue.Entry) error {
	p := d.engine.Partition(e.Number)
	defer p.Release()
	some, err := engine.HoldsAnything(ctx, p)
	if err != nil || !some {
		return err
	}
	return p.Clear(ctx)
}

// These are the defaults of Options.RecordCache and Options.RowCache, in bytes.
const (
	DefaultRecordCache = 32 << 20
	DefaultRowCache    = 64 << 20
)

// Options configure a store. A nil *Options, and each zero field, means the default that the field
// states.
type Options struct {
	// Keyring configures keys, lease, checks, rotation, events and logging. Its
	// ReadOnly and RequireAccess are set by the store as well.
	Keyring keyring.Options

	// Name says which store of a directory [Open] opens, if a DB has made several in it, and what
	// the store is called that it makes. A DB's own methods have it as an argument. Default: the
	// only one there is; a new one is called [DefaultName].
	Name string
	// RequireAccess makes Open fail if the vault refuses or does not answer. Default: Open returns
	// a store in state Inaccessible, with the reason.
	RequireAccess bool
	// ReadOnly opens an existing store, such as a copy, and changes nothing in its directory, but
	// makes the file LOCK if that is missing. Any number can be open at once, in one process or in
	// many, and [Inspect] beside them, but not beside a store that writes. On a read-only medium
	// LOCK may be missing. It then does not keep out who mounts the medium for writing elsewhere.
	ReadOnly bool
	// NoSync lets Put, Delete and Commit return before the write is durable: a crash of the machine
	// may lose the last of them, never part of one. Default: what they acknowledged survives.
	NoSync bool

	// VaultRate bounds RewrapDEKs and, with ByKEK, Rekey and renewal, in vault calls per 10 seconds
	// together. Default: 1,000.
	VaultRate int
	// ManualRewrap leaves DEKs that an older KEK wraps (ByKEK) to RewrapDEKs, and a copy of which
	// only such DEKs are behind to RotateKEK, ChangeKEK and ChangeCheckpointKEK. Default: the store
	// rewraps them in the background after a change of the KEK.
	ManualRewrap bool
	// RewriteRate bounds Rekey and renewal (Keyring.RekeyAfter), in bytes of blocks per second.
	// Default: unbounded.
	RewriteRate int64

	// AnchorEvery is the least time between two advances of Keyring.Anchor while the store is
	// written to. It is also advanced at Open, at Close, and when the keyring document was saved.
	// Each advance costs a synced write of a 42-byte record, and what the anchor costs. A rollback
	// of what was acknowledged since the last advance goes unnoticed. Default: 1 second.
	AnchorEvery time.Duration

	// RecordCache is the memory in bytes for wrapped DEK records, allocated at Open and filled as
	// blocks are read and written, at 73 bytes a block. It holds no secrets and survives a lock.
	// Default: 32 MiB; negative: none.
	RecordCache int64
	// RowCache is the most memory in bytes for sealed blocks that were read more than once lately,
	// allocated as it is used. A Get of one costs no look-up in Pebble. It holds no plaintext and
	// no DEKs, and survives a lock. It is not used with ByKEK. Default: 64 MiB; negative: none.
	RowCache int64
	// Pebble configures the storage engine of the directory. For a store in a DB it means nothing:
	// DBOptions.Pebble does.
	Pebble PebbleOptions

	// FileKEK opens a directory whose engine's files are sealed; see DBOptions.FileKEK, which it is for a store
	// that has its directory for itself, for [Inspect], [Relocate], [ChangeCheckpointKEK] and
	// [HoldCheckpoint]. Each of them asks its vault, and fails without access. Its keyring has Keyring's
	// Clock, Logger, Lease, CheckEvery, VaultTimeout, ManualRevalidation and PinVersion. For a store in a
	// DB it means nothing. Default: the files are not sealed.
	FileKEK *kek.KEK

	// atRest is for a copy that is moved to another KEK: the store does nothing by itself. Renewals
	// and rewraps that are due wait until somebody opens the copy to use it.
	atRest bool
	// relocate, if not nil, is what Relocate does before the keyring is opened.
	relocate func(ctx context.Context, s *Store, ko keyring.Options) error
	// moving is the copy that its store is moving; nothing else may be in its place. Nobody writes
	// to what it points to.
	moving *register.Entry
}

// PebbleOptions configure Pebble, the storage engine of a directory. Nothing else in this package's
// interface is Pebble's own.
type PebbleOptions struct {
	// BlockCache is the memory in bytes for the cache of sealed blocks as they lie in files.
	// Default: 64 MiB.
	BlockCache int64
	// MemTable is the size in bytes of one of the memtables, of which there may be four.
	// Default: 64 MiB.
	MemTable uint64
	// ValueSeparation is the least size in bytes of a sealed block that lies in a blob file, which
	// writes less and reads one step further. Default: 1,024; negative: never.
	ValueSeparation int

	// FS is the file system. Default: the operating system's. A file system that wraps the
	// operating system's has its locks too, besides its own; any other has its own alone, under
	// which a directory is open once, read only or not.
	FS vfs.FS
	// Fatal is called when the storage engine cannot go on because a write of its log failed; it
	// must end the process or the goroutine. Default: the message goes to the logger and to
	// standard error, and the process ends with status 1. Nothing acknowledged is lost.
	Fatal func(msg string)
}

// DefaultName is the name of a store that Open makes.
const DefaultName = "default"

func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if c.RecordCache == 0 {
		c.RecordCache = DefaultRecordCache
	}
	if c.RowCache == 0 {
		c.RowCache = DefaultRowCache
	}
	c.Pebble.FS = c.Pebble.fs()
	if c.VaultRate == 0 {
		c.VaultRate = DefaultVaultRate
	}
	if c.AnchorEvery == 0 {
		c.AnchorEvery = DefaultAnchorEvery
	}
	if c.Pebble.BlockCache < 0 || c.VaultRate < 0 || c.RewriteRate < 0 || c.AnchorEvery < 0 {
		return c, fmt.Errorf("block: options: Pebble.BlockCache, VaultRate, RewriteRate and AnchorEvery must not be negative")
	}
	c.Keyring.ReadOnly = c.Keyring.ReadOnly || c.ReadOnly
	c.Keyring.RequireAccess = c.Keyring.RequireAccess || c.RequireAccess
	return c, inner.RequireKEKs("block: options: Keyring.OtherKEKs", c.Keyring.OtherKEKs)
}

func (o *PebbleOptions) fs() vfs.FS {
	if o.FS == nil {
		return vfs.Default
	}
	return o.FS
}
