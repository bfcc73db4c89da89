package block

import (
	"crypto/hmac"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// A store says in its identity file how far it is, so that the next Open knows what must
// be there:
//
//	creating ── the document is in the engine ──> open
//	open     ── Close ──> closed, with a list of the files
//	closed   ── Open ──> opening ── the engine is open ──> open
//
// A closed store has exactly the files of its list. One that is not closed has what a
// crash leaves of an engine that was in use. In neither case is an engine made where there
// is none: what Pebble takes for an empty directory is one that has lost a file.

// survey reads the directory's identity and looks whether its files are those that it
// speaks of, before the engine sees them. The caller has the directory's lock.
func (s *Store) survey() error {
	id, err := readIdentity(s.opts.FS, s.dir)
	if err != nil {
		return err
	}
	log, err := pebble.Survey(s.dir, s.opts.FS, id.engine)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", s.dir, row.Damage(err))
	}
	s.found, s.id = id, id
	s.id.engine.Log = log
	if copiedByHand(s.opts.FS, s.dir, id) {
		if s.id.copyOf == (instanceID{}) {
			s.id.copyOf = id.instance
		}
		s.id.instance = newInstance()
	}
	s.be(s.id.instance)
	s.storage.waits = s.id.copyOf != (instanceID{})
	return nil
}

// be makes the store an instance, for itself and for its keyring.
func (s *Store) be(instance instanceID) {
	s.instance, s.id.instance = instance, instance
	s.storage.own, s.opts.Keyring.Instance = keyring.InstanceID(instance), keyring.InstanceID(instance)
}

// enter writes down that the store is in another phase.
func (s *Store) enter(phase pebble.Phase) (err error) {
	if s.opts.ReadOnly {
		return nil
	}
	if phase == pebble.Opened {
		if s.id.engine.Log, s.id.engine.Manifest, err = pebble.Position(s.dir, s.opts.FS); err != nil {
			return fmt.Errorf("block: open %s: %w", s.dir, row.Damage(err))
		}
	}
	s.id.engine.Phase = phase
	s.id.engine.Files, s.id.tag, s.id.path = nil, nil, place(s.opts.FS, s.dir)
	if err := writeIdentity(s.opts.FS, s.dir, s.id); err != nil {
		return fmt.Errorf("block: open %s: %w", s.dir, err)
	}
	return nil
}

// leave writes down that the store is closed, and which files it has. The engine is
// closed, and tagger nil if the keys were not accessible.
func (s *Store) leave(tagger *keyring.Tagger) error {
	if s.opts.ReadOnly || s.id.engine.Phase < pebble.Opening {
		return nil // nothing has changed; or its creation goes on with the next Open
	}
	if s.refused.Load() {
		// The list that was found is put back, so that the next Open refuses it too.
		return writeIdentity(s.opts.FS, s.dir, s.found)
	}
	id := s.id
	id.sequence = s.recordedSequence()
	if err := id.list(s, s.dir, tagger); err != nil {
		return fmt.Errorf("block: close %s: %w", s.dir, row.Damage(err))
	}
	if err := writeIdentity(s.opts.FS, s.dir, id); err != nil {
		return fmt.Errorf("block: close %s: %w", s.dir, err)
	}
	return nil
}

// list makes an identity that of a closed store, with the files in dir.
func (i *identity) list(s *Store, dir string, tagger *keyring.Tagger) (err error) {
	// What the engine removed must not come back after a crash that keeps the list.
	if err := syncDir(s.opts.FS, dir); err != nil {
		return err
	}
	e := &i.engine
	if e.Log, err = pebble.Survey(dir, s.opts.FS, *e); err != nil {
		return err
	}
	if _, e.Manifest, err = pebble.Position(dir, s.opts.FS); err != nil {
		return err
	}
	if e.Files, err = pebble.Inventory(dir, s.opts.FS); err != nil {
		return err
	}
	e.Phase = pebble.Closed
	i.path = place(s.opts.FS, dir)
	if tagger != nil {
		tag := tagger.Tag(i.untagged())
		i.tag = tag[:]
	}
	return nil
}

// tagIdentity is what an identity's tag is for; see [keyring.Hold.Tag].
const tagIdentity = "identity"

// tagger returns what tags an identity, also after the keyring was closed; nil if the
// keys are not accessible.
func (s *Store) tagger() *keyring.Tagger {
	if s.keys == nil || s.opts.ReadOnly {
		return nil
	}
	t, err := s.taggerFor(tagIdentity)
	if err != nil {
		return nil
	}
	return t
}

func (s *Store) taggerFor(purpose string) (*keyring.Tagger, error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return nil, err
	}
	defer h.Release()
	return h.Tagger(purpose)
}

// checkTag checks that the list of files that the store was found with is the store's
// own, if it is tagged.
func (s *Store) checkTag(tag func(purpose string, data []byte) [keyring.TagSize]byte) error {
	if s.found.tag == nil {
		return nil
	}
	if want := tag(tagIdentity, s.found.untagged()); !hmac.Equal(want[:], s.found.tag) {
		s.refused.Store(true)
		return fmt.Errorf("block: open %s: the list of files in %s was not made by this store: %w", s.dir, identityName, ErrCorrupt)
	}
	return nil
}

// notFinished is the error of a store whose creation was cut off, for those who must not
// finish it.
func (s *Store) notFinished(err error) error {
	if s.id.engine.Phase == pebble.Creating && errors.Is(err, pebble.ErrNone) {
		return fmt.Errorf("block: open %s: its creation was not finished: %w", s.dir, ErrReadOnly)
	}
	return err
}
