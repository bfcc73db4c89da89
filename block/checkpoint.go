package block

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Checkpoint makes a copy of the store in dir, which must not exist, with every write that was
// acknowledged before the call, while the store serves. It links files that do not change any more
// where the file system can, so that a copy beside the store costs little. It copies them to
// another file system, and writes wait for as long: make the copy beside the store, and copy it
// from there (see [HoldCheckpoint]). Checkpoint needs no access: an Inaccessible store can be
// copied.
//
// The copy is a store with the same keys and an instance of its own. It opens Inaccessible and
// waits for [Store.Revalidate] with the vault client that its Open was given; from then on
// [Store.ChangeKEK] can give it another KEK, so that the source's can be destroyed.
//
// What either of the two writes from then on is wrapped by an epoch that the other does not have:
// one begins here with the next write, and there with Revalidate. Each epoch is 52 bytes of the
// keyring document until RotateEpoch. When there are nearly keyring.MaxEpochs, none begins any
// more: an event says so, and the copy can open what is written here until one of the two rotates.
//
// The store remembers the copy and the absolute path where it was made ([Store.Copies]), at most
// 4,096 copies (keyring.ErrLimit). Without access it cannot sign that: if it is closed before
// access comes back, the copy is in doubt and is not moved to another KEK.
//
// Checkpoint waits until memory is written out. While that fails, as on a full disk, ctx and Close
// end it. It refuses a store that was opened read only ([ErrReadOnly]), whose log the engine would
// have to write out: open that for writing.
//
// It is [DB.Checkpoint] of a directory with one store. Of a directory with several, the files of a
// copy would be those of all of them: of a store that a DB has opened, Checkpoint is
// errors.ErrUnsupported. DB.Checkpoint copies all, and [DB.Export] writes one and nothing of the
// others.
func (s *Store) Checkpoint(ctx context.Context, dir string) error {
	if err := s.checkpoint(ctx, dir); err != nil {
		return fmt.Errorf("block: checkpoint: %w", s.ending(row.Damage(err)))
	}
	return nil
}

func (s *Store) checkpoint(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return fmt.Errorf("%w: the store was opened read only, and a copy of it takes writing out its log and remembering the copy; open it for writing", ErrReadOnly)
	}
	// Who has the store for itself has the DB for as long.
	if err := s.use.Begin(); err != nil {
		return ErrClosed
	}
	defer s.use.End()
	if err := s.onlyOne(ctx); err != nil {
		return err
	}
	return s.db.checkpoint(ctx, dir)
}

// onlyOne refuses to copy a directory in which there are other stores too, as one store's.
func (s *Store) onlyOne(ctx context.Context) error {
	if s.alone {
		_, _, err := s.db.only(ctx, "")
		if err == nil || !errors.Is(err, ErrNoStore) {
			return err
		}
	}
	return fmt.Errorf("the files of a copy would be those of all stores: copy all of them with DB.Checkpoint, or write out this one with DB.Export: %w", errors.ErrUnsupported)
}

// apart is called when a copy has its files, before anything else is applied. From then on all that
// is applied is wrapped by an epoch that the copy does not have, even by an operation that already
// has its DEK (see judge). The document says that the store shares its epochs when the copy is
// registered, before the copy is whole.
func (s *Store) apart(raise func(partition, epoch uint32)) {
	if epoch := s.keys.For(inner.Block{}).Share(); epoch > 0 {
		raise(s.number, epoch+1)
	}
}

// isFree refuses a directory that exists, and says what is in it if a store that is open knows that.
func (d *DB) isFree(dir string) error {
	if _, err := d.opts.Pebble.FS.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, s := range d.openStores() {
		copies, _ := s.copies()
		for _, c := range copies {
			if c.Path != dir {
				continue
			}
			if found, err := place.Has(d.opts.Pebble.FS, dir); err != nil || !found {
				return fmt.Errorf("%s: %w: a checkpoint to it was cut off; remove the directory and forget copy %s, or name another directory", dir, fs.ErrExist, c.Instance)
			}
		}
	}
	return fmt.Errorf("%s: %w: name a directory that does not exist", dir, fs.ErrExist)
}

// HoldCheckpoint keeps the files of a copy, or of any store that is closed, unchanged until release
// is called, while somebody copies them elsewhere. Meanwhile nobody can open it for writing. A
// store that would move the copy to another KEK gets [ErrLocked], and tries again later. Other
// readers are not affected. Of opts only FS matters, and FileKEK, as in [InspectKeyring], where the files are
// sealed: what says how they must be is sealed too. A copy of a sealed directory has its BLOCKSEAL.keyring.
//
// It refuses a copy that is not whole. So what arrives elsewhere is whole if every file but LOCK
// was copied; Open, [Inspect] and [InspectKeyring] check that. Copy the identity file, BLOCKSEAL,
// last: without it the directory is not a store.
//
// To release twice does nothing. Errors: [ErrNotStore], [ErrLocked], [ErrVersion], [ErrCorrupt],
// and one for a store that was not closed.
func HoldCheckpoint(dir string, opts *Options) (release func() error, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	do, err := o.alone().withDefaults()
	if err != nil {
		return nil, err
	}
	do.ReadOnly = true
	d, found, err := newDB(dir, do)
	if err == nil && !found {
		err = fmt.Errorf("block: hold %s: there is no store: %w", dir, ErrNotStore)
	}
	if err != nil {
		return nil, err
	}
	if err = d.survey(context.Background()); err == nil && d.place.Phase() != pebble.Closed {
		err = fmt.Errorf("block: hold %s: it was not closed; open it and close it again", dir)
	}
	if err != nil {
		return nil, errors.Join(err, d.release())
	}
	return sync.OnceValue(d.release), nil
}

// Copy is a checkpoint that a store has made.
type Copy struct {
	Instance   string      `json:"instance"`      // of the copy, 32 hexadecimal digits
	Path       string      `json:"path"`          // where it was made
	Made       time.Time   `json:"made,omitzero"` // whole seconds
	KEK        vault.KeyID `json:"kek"`
	Generation uint64      `json:"generation"` // of its keyring document
	// KEKs are all KEK versions that the copy needs, sorted by their identifiers: KEK, which wraps
	// its document, and those that wrap DEK records of it (ByKEK).
	KEKs []vault.KeyID `json:"keks"`
	// Doubt says why the store does not vouch for having made the copy; empty: it does. Whoever can
	// write the disk may have put a doubtful copy there, so that the store does not move it to
	// another KEK. It counts as a use of its KEKs all the same. Until the store was available once
	// since Open every copy is in doubt.
	Doubt string `json:"doubt,omitempty"`
}

// NeedsOnly reports whether the copy needs no KEK version but id.
func (c Copy) NeedsOnly(id vault.KeyID) bool {
	return register.Copy(c).NeedsOnly(id)
}

// Copies returns the checkpoints that the store has made, with the KEK versions that each was last
// known to need, sorted by their instances. It needs no access, but see [Copy].Doubt.
func (s *Store) Copies(ctx context.Context) ([]Copy, error) {
	if err := s.use.Begin(); err != nil {
		return nil, fmt.Errorf("block: copies: %w", ErrClosed)
	}
	defer s.use.End()
	copies, _ := s.copies()
	return copies, nil
}

// copies is Copies for callers that keep the engine open. whole reports whether it is known that
// none is missing.
func (s *Store) copies() (out []Copy, whole bool) {
	r, known := s.storage.View()
	for _, c := range r.Copies {
		out = append(out, Copy(c.Copy))
	}
	return out, known && !r.Lost
}

// saveCopies saves a keyring document with other copies. Which copies there are changes only with
// the document, so that nobody can bring an old list back. It does not wait for the anchor.
func (s *Store) saveCopies(ctx context.Context, f func(r register.Register) []register.Entry) error {
	s.listing.Lock()
	defer s.listing.Unlock()
	if err := s.proveNow(ctx); err != nil {
		return err
	}
	s.storage.Stage(f)
	defer s.storage.Unstage()
	return s.keys.For(inner.Block{}).Save(ctx)
}

// ForgetCopy makes the store forget a checkpoint, because it was destroyed or is no concern of the
// store's any more. If the store is moving it to another KEK, ForgetCopy first ends that: when it
// has returned, the copy's files can be removed. It needs access, so that nobody can bring back
// what was forgotten: [ErrInaccessible].
func (s *Store) ForgetCopy(ctx context.Context, instance string) error {
	if err := s.use.Begin(); err != nil {
		return fmt.Errorf("block: forget copy: %w", ErrClosed)
	}
	defer s.use.End()
	if s.opts.ReadOnly {
		return fmt.Errorf("block: forget copy: %w", ErrReadOnly)
	}
	err := s.endMove(ctx, instance, func() error { return s.forget(ctx, instance) })
	if err != nil {
		return fmt.Errorf("block: forget copy: %w", err)
	}
	s.keys.For(inner.Block{}).AwaitAnchor(ctx)
	return nil
}

// forget removes a copy from the register, by saving the next document, or removes its
// announcement.
func (s *Store) forget(ctx context.Context, instance string) error {
	if name, ok := s.storage.Announced(instance); ok {
		if err := s.writeMeta(ctx, name, nil); err != nil {
			return err
		}
		if s.storage.Unannounce(instance) {
			return nil
		} // else a document has just adopted it
	}
	if r, _ := s.storage.View(); !r.Has(instance) {
		return nil
	}
	err := s.saveCopies(ctx, func(r register.Register) []register.Entry { return r.Without(instance) })
	if err == nil {
		s.wrote()
	}
	return err
}

// writeMeta sets a meta record durably, or deletes it if value is nil.
func (s *Store) writeMeta(ctx context.Context, name string, value []byte) error {
	if err := engine.SetMeta(ctx, s.part, name, value); err != nil {
		return err
	}
	s.wrote()
	return nil
}

// announce remembers a copy that is about to be made, with the KEK versions that it may need. So
// there is no copy, whole or not, that the store does not remember.
func (s *Store) announce(ctx context.Context, c register.Entry) error {
	if r, _ := s.storage.View(); len(r.Copies) >= register.MaxCopies {
		return tooManyCopies(len(r.Copies))
	}
	return s.remember(ctx, c)
}

// aboutToBe is a copy that is about to be made.
func (s *Store) aboutToBe(dir string, instance inner.InstanceID) register.Entry {
	keks, active := s.keys.KEKs()
	c := s.newEntry(dir, instance)
	c.KEK, c.Generation = keks[active], s.keys.State().Generation
	c.Need(slices.Collect(maps.Values(keks))...)
	return c
}

func tooManyCopies(n int) error {
	return fmt.Errorf("the store remembers %d copies; forget those that are gone: %w", n, keyring.ErrLimit)
}

// newEntry is a copy that this process makes now.
func newEntry(dir string, instance inner.InstanceID, now time.Time) register.Entry {
	return register.Entry{Copy: register.Copy{Instance: instance.String(), Path: dir, Made: now.UTC().Truncate(time.Second)}, Vouched: true, Mine: true}
}

func (s *Store) newEntry(dir string, instance inner.InstanceID) register.Entry {
	return newEntry(dir, instance, s.keys.For(inner.Block{}).Now())
}

// remember registers a copy, or what is known of it now. Without access it announces the copy: this
// process vouches for it with the next document, and a later process cannot.
func (s *Store) remember(ctx context.Context, c register.Entry) error {
	defer s.wrote()
	err := s.saveCopies(ctx, func(r register.Register) []register.Entry { return r.With(c) })
	if err == nil || !cannotWrite(err) && !errors.Is(err, ErrCorrupt) {
		return err
	}
	return s.storage.Announce(ctx, c)
}

// registerCopy remembers a copy that was just made, with the document that was read back from it: it
// says which KEK versions the copy needs, whatever was rotated meanwhile.
func (s *Store) registerCopy(ctx context.Context, dir string, instance inner.InstanceID, document []byte) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	c := s.newEntry(dir, instance)
	c.Document = sha256.Sum256(document)
	c.Update(in)
	return s.remember(ctx, c)
}
