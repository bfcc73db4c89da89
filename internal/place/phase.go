package place

import (
	"crypto/hmac"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// The identity file says which phase the store is in, so that the next Open knows what must be
// there:
//
//	creating ── the document is in the engine ──> open
//	open     ── Close ──> closed, with a list of the files
//	closed   ── Open ──> opening ── the engine is open ──> open
//
// A closed store has exactly the files of its list. Any other has what a crash leaves of an engine
// in use. No engine is made where there is none, except while creating: what Pebble takes for an
// empty directory may be one that has lost a file.

// Survey reads the identity file and checks the engine's files against it, before the engine sees
// them. The directory is locked.
func (p *Place) Survey() error {
	id, err := readIdentity(p.fs, p.dir)
	if err != nil {
		return err
	}
	log, err := pebble.Survey(p.dir, p.fs, id.engine)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", p.dir, row.Damage(err))
	}
	p.found = id
	id.engine.Log = log
	if copiedByHand(p.fs, p.dir, id) {
		if id.copyOf == (inner.InstanceID{}) {
			id.copyOf = id.instance
		}
		id.instance = NewInstance()
	}
	p.set(id)
	return nil
}

// Enter saves the phase of the store.
func (p *Place) Enter(phase pebble.Phase) (err error) {
	if p.readOnly {
		return nil
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	id := p.identity()
	if phase == pebble.Opened {
		if id.engine.Log, id.engine.Manifest, err = pebble.Position(p.dir, p.fs); err != nil {
			return fmt.Errorf("block: open %s: %w", p.dir, row.Damage(err))
		}
	}
	id.engine.Phase = phase
	id.engine.Files, id.tag, id.path = nil, nil, resolved(p.fs, p.dir)
	p.set(id) // written or not, the engine is in this phase
	if err := writeIdentity(p.fs, p.dir, id); err != nil {
		return fmt.Errorf("block: open %s: %w", p.dir, err)
	}
	return nil
}

// Revalidated saves that the store is not a copy any more.
func (p *Place) Revalidated() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	id := p.identity()
	id.copyOf = inner.InstanceID{}
	if err := writeIdentity(p.fs, p.dir, id); err != nil {
		return err
	}
	p.set(id)
	return nil
}

// Leave saves that the store is closed, with its sequence number and the list of its files. The
// engine is closed. tagger is nil if the keys were not accessible.
func (p *Place) Leave(sequence uint64, tagger *inner.Tagger) error {
	id := p.identity()
	if p.readOnly || id.engine.Phase < pebble.Opening {
		return nil // nothing has changed, or the next Open goes on with the creation
	}
	if p.refused.Load() {
		// The list that was found is put back, so that the next Open refuses it too.
		return writeIdentity(p.fs, p.dir, p.found)
	}
	id.sequence = sequence
	if err := p.list(&id, p.dir, tagger); err != nil {
		return fmt.Errorf("block: close %s: %w", p.dir, row.Damage(err))
	}
	if err := writeIdentity(p.fs, p.dir, id); err != nil {
		return fmt.Errorf("block: close %s: %w", p.dir, err)
	}
	return nil
}

// LeaveCopy makes a closed store of a checkpoint in dir that has everything else: a copy of this
// store, with the sequence number sequence.
func (p *Place) LeaveCopy(dir string, instance inner.InstanceID, sequence uint64, tagger *inner.Tagger) error {
	now := p.identity()
	id := identity{instance: instance, copyOf: now.instance, engine: now.engine, sequence: sequence}
	if err := p.list(&id, dir, tagger); err != nil {
		return err
	}
	return writeIdentity(p.fs, dir, id)
}

// list makes an identity that of a closed store, with the files in dir.
func (p *Place) list(i *identity, dir string, tagger *inner.Tagger) (err error) {
	// What the engine removed must not come back after a crash that keeps the list.
	if err := syncDir(p.fs, dir); err != nil {
		return err
	}
	e := &i.engine
	if e.Log, err = pebble.Survey(dir, p.fs, *e); err != nil {
		return err
	}
	if _, e.Manifest, err = pebble.Position(dir, p.fs); err != nil {
		return err
	}
	if e.Files, err = pebble.Inventory(dir, p.fs); err != nil {
		return err
	}
	e.Phase = pebble.Closed
	i.path = resolved(p.fs, dir)
	if tagger != nil {
		tag := tagger.Tag(i.untagged())
		i.tag = tag[:]
	}
	return nil
}

// TagPurpose is the purpose of an identity's tag; see inner.Tagger.
const TagPurpose = "identity"

// CheckTag checks that the list of files that was found is the store's own, if it has a tag.
func (p *Place) CheckTag(tag func(purpose string, data []byte) [inner.TagSize]byte) error {
	if p.found.tag == nil {
		return nil
	}
	if want := tag(TagPurpose, p.found.untagged()); !hmac.Equal(want[:], p.found.tag) {
		p.refused.Store(true)
		return fmt.Errorf("block: open %s: the list of files in %s was not made by this store: %w", p.dir, identityName, keyring.ErrCorrupt)
	}
	return nil
}

// NotFinished replaces err, if the store's creation was cut off, by an error for callers that must
// not finish it.
func (p *Place) NotFinished(err error) error {
	if p.Phase() == pebble.Creating && errors.Is(err, pebble.ErrNone) {
		return fmt.Errorf("block: open %s: its creation was not finished: %w", p.dir, keyring.ErrReadOnly)
	}
	return err
}
