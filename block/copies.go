package block

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Copy is a checkpoint that a store remembers having made.
type Copy struct {
	Instance   string      `json:"instance"`      // of the copy, 32 hexadecimal digits
	Path       string      `json:"path"`          // where it was made
	Made       time.Time   `json:"made,omitzero"` // whole seconds
	KEK        vault.KeyID `json:"kek"`
	Generation uint64      `json:"generation"` // of its keyring document
	// KEKs are all KEK versions that the copy needs, sorted by their identifiers: KEK,
	// which wraps its document, and those that wrap records of it (ByKEK).
	KEKs []vault.KeyID `json:"keks"`
	// Doubt says why the store does not vouch for having made the copy; empty: it does.
	// What is in doubt is not moved to another KEK: whoever can write the disk can have
	// put it there. It counts as a use of its KEKs all the same. Without access since the
	// store was opened every copy is, because nobody can tell.
	Doubt string `json:"doubt,omitempty"`
}

// NeedsOnly reports whether the copy needs no KEK version but id.
func (c Copy) NeedsOnly(id vault.KeyID) bool {
	return register.Copy(c).NeedsOnly(id)
}

// Copies returns the checkpoints that the store remembers, with the KEK versions that
// each was last known to need, sorted by their instances. It needs no access; but without
// access since the store was opened all of them are in doubt ([Copy].Doubt).
func (s *Store) Copies(ctx context.Context) ([]Copy, error) {
	if err := s.use.Begin(); err != nil {
		return nil, fmt.Errorf("block: copies: %w", ErrClosed)
	}
	defer s.use.End()
	copies, _ := s.copies()
	return copies, nil
}

// copies is Copies for those who keep the engine open. whole is whether it is known that
// none is missing.
func (s *Store) copies() (out []Copy, whole bool) {
	r, known := s.storage.View()
	for _, c := range r.Copies {
		out = append(out, Copy(c.Copy))
	}
	return out, known && !r.Lost
}

// changeCopies saves a keyring document with other copies: which there are changes with the
// document alone, so that nobody can bring back what was before.
func (s *Store) changeCopies(ctx context.Context, f func(r register.Register) []register.Entry) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.proveNow(ctx); err != nil {
		return err
	}
	s.storage.Stage(f)
	defer s.storage.Unstage()
	return s.keys.For(inner.Block{}).Save(ctx)
}

// ForgetCopy makes the store forget a checkpoint, because it was destroyed or is
// none of the store's concern any more. If the store is moving it to another KEK, that is
// ended first: when ForgetCopy has returned the copy's files can be removed. It takes access,
// so that nobody can bring back what was forgotten: [ErrInaccessible].
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
	return nil
}

// forget takes a copy from the register, which is saved with the next document, or its
// announcement.
func (s *Store) forget(ctx context.Context, instance string) error {
	if record, ok := s.storage.Announced(instance); ok {
		if err := s.writeMeta(ctx, record, nil); err != nil {
			return err
		}
		if s.storage.Unannounce(instance) {
			return nil
		} // else a document has just taken it over
	}
	if r, _ := s.storage.View(); !r.Has(instance) {
		return nil
	}
	err := s.changeCopies(ctx, func(r register.Register) []register.Entry { return r.Without(instance) })
	if err == nil {
		s.changed()
	}
	return err
}

// writeMeta sets a meta record durably, or deletes it if value is nil.
func (s *Store) writeMeta(ctx context.Context, name string, value []byte) error {
	if err := engine.SetMeta(ctx, s.part, name, value); err != nil {
		return err
	}
	s.changed()
	return nil
}

// announce remembers a copy that is about to be made, with the KEK versions that it may
// need, so that there is none, whole or not, that the store does not remember.
func (s *Store) announce(ctx context.Context, dir string, instance inner.InstanceID) error {
	keks, active := s.keys.KEKs()
	c := s.newEntry(dir, instance)
	c.KEK, c.Generation = keks[active], s.keys.State().Generation
	c.Need(slices.Collect(maps.Values(keks))...)
	if r, _ := s.storage.View(); len(r.Copies) >= register.MaxCopies {
		return fmt.Errorf("the store remembers %d copies; forget those that are gone: %w", len(r.Copies), keyring.ErrLimit)
	}
	return s.remember(ctx, c)
}

// newEntry is a copy that this process makes now.
func (s *Store) newEntry(dir string, instance inner.InstanceID) register.Entry {
	return register.Entry{Copy: register.Copy{Instance: instance.String(), Path: dir, Made: s.keys.For(inner.Block{}).Now().UTC().Truncate(time.Second)}, Vouched: true, Mine: true}
}

// remember registers a copy, or what is known of it now. Without access it announces it: this
// process knows that it has made it, and says so with the next document; a later one can not.
func (s *Store) remember(ctx context.Context, c register.Entry) error {
	defer s.changed()
	err := s.changeCopies(ctx, func(r register.Register) []register.Entry { return r.With(c) })
	if err == nil || !noRecord(err) && !errors.Is(err, ErrCorrupt) {
		return err
	}
	return s.storage.Announce(ctx, c)
}

// register remembers a copy that was just made. Reading the document back from the
// copy shows which KEK versions it needs, whatever was rotated meanwhile, and that the
// copy opens.
func (s *Store) register(ctx context.Context, dir string, instance inner.InstanceID) error {
	document, err := s.copyDocument(ctx, dir)
	if err != nil {
		return err
	}
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	c := s.newEntry(dir, instance)
	c.Document = sha256.Sum256(document)
	c.Take(in)
	return s.remember(ctx, c)
}

// copyDocument reads the keyring document of a copy that has no identity yet.
func (s *Store) copyDocument(ctx context.Context, dir string) (document []byte, err error) {
	lock, err := pebble.LockDir(dir, s.opts.Pebble.FS, true)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	db, err := pebble.Open(dir, lock, pebble.Options{FS: s.opts.Pebble.FS, ReadOnly: true, Fatal: s.opts.Pebble.Fatal})
	if err != nil {
		return nil, row.Damage(err)
	}
	document, err = register.Document(ctx, db.Partition(s.partition))
	if err = errors.Join(err, db.Close()); err != nil {
		return nil, row.Damage(err)
	}
	return document, nil
}
