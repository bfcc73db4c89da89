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
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

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
