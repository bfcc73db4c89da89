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
//	creating ── the engine is open ──> open
//	open     ── Close ──> closed, with a list of the files
//	closed   ── Open ──> opening ── the engine is open ──> open
//
// A closed store has exactly the files of its list. Any other has what a crash leaves of an engine
// in use. No engine is made where there is none, except while creating: what Pebble takes for an
// empty directory may be one that has lost a file.

// Read reads the identity file of a locked directory, and refuses one whose files are sealed, unless
// SealFiles was called; or the other way round.
func (p *Place) Read() error {
	id, err := readIdentity(p.fs, p.dir)
	if err != nil {
		return err
	}
	found := id
	if copiedByHand(p.fs, p.dir, id) {
		id.instance = NewInstance() // so that its stores are copies
	}
	if err := p.checkSealed(id); err != nil {
		return fmt.Errorf("block: open %s: %w", p.dir, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found, p.id = &found, id
	return nil
}

// Survey reads the identity file, unless Read has, and checks the engine's files against it, before the
// engine sees them. The directory is locked.
func (p *Place) Survey() error {
	p.mu.Lock()
	read := p.found != nil
	p.mu.Unlock()
	if !read {
		if err := p.Read(); err != nil {
			return err
		}
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	id := p.identity()
	log, err := pebble.Survey(p.dir, p.engineFS(), id.engine)
	if err != nil {
		return fmt.Errorf("block: open %s: %w", p.dir, row.Damage(err))
	}
	id.engine.Log = log
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
		if id.engine.Log, id.engine.Manifest, err = pebble.Position(p.dir, p.engineFS()); err != nil {
			return fmt.Errorf("block: open %s: %w", p.dir, row.Damage(err))
		}
	}
	id.engine.Phase = phase
	id.engine.Files, id.tags, id.path = nil, nil, resolved(p.fs, p.dir)
	p.set(id) // written or not, the engine is in this phase
	if err := writeIdentity(p.fs, p.dir, id); err != nil {
		return fmt.Errorf("block: open %s: %w", p.dir, err)
	}
	return nil
}

// Leave saves that the directory is closed, with how many stores were made in it and the list of its
// files, which the stores of the given taggers tag. The engine is closed.
func (p *Place) Leave(stores uint32, taggers map[uint32]*inner.Tagger) error {
	id := p.identity()
	id.stores = max(id.stores, stores)
	if p.readOnly || id.engine.Phase < pebble.Opening {
		return nil // nothing has changed, or the next Open goes on with the creation
	}
	if err := p.list(&id, p.dir, taggers); err != nil {
		return fmt.Errorf("block: close %s: %w", p.dir, row.Damage(err))
	}
	// A tag that was refused is left, so that the next Open refuses it too.
	p.mu.Lock()
	for _, number := range p.refused {
		id.tag(number, p.found.tags[number]) // it was found there
	}
	p.mu.Unlock()
	if err := writeIdentity(p.fs, p.dir, id); err != nil {
		return fmt.Errorf("block: close %s: %w", p.dir, err)
	}
	return nil
}

// LeaveCopy makes a closed directory of a checkpoint in dir that has everything else. The stores in
// it are copies of this directory's.
func (p *Place) LeaveCopy(dir string, instance inner.InstanceID, taggers map[uint32]*inner.Tagger) error {
	now := p.identity()
	id := identity{instance: instance, stores: now.stores, engine: now.engine}
	if err := p.list(&id, dir, taggers); err != nil {
		return err
	}
	return writeIdentity(p.fs, dir, id)
}

func (i *identity) tag(number uint32, tag Tag) {
	if i.tags == nil {
		i.tags = map[uint32]Tag{}
	}
	i.tags[number] = tag
}

// list makes an identity that of a closed store, with the files in dir.
func (p *Place) list(i *identity, dir string, taggers map[uint32]*inner.Tagger) (err error) {
	// What the engine removed must not come back after a crash that keeps the list.
	if err := syncDir(p.fs, dir); err != nil {
		return err
	}
	if err := p.syncLogs(dir); err != nil {
		return err
	}
	e := &i.engine
	if e.Log, err = pebble.Survey(dir, p.engineFS(), *e); err != nil {
		return err
	}
	if _, e.Manifest, err = pebble.Position(dir, p.engineFS()); err != nil {
		return err
	}
	if e.Files, err = pebble.Inventory(dir, p.engineFS()); err != nil {
		return err
	}
	e.Phase = pebble.Closed
	i.path = resolved(p.fs, dir)
	lines := i.untagged()
	for number, tagger := range taggers {
		if tagger != nil {
			i.tag(number, Tag(tagger.Tag(lines)))
		}
	}
	return nil
}

// TagPurpose is the purpose of an identity's tag; see inner.Tagger.
const TagPurpose = "identity"

// CheckTag checks that the list of files that was found is as the store in a partition tagged it, if
// it did.
func (p *Place) CheckTag(number uint32, tag func(purpose string, data []byte) [inner.TagSize]byte) error {
	p.mu.Lock()
	all := p.found
	p.mu.Unlock()
	if all == nil {
		return nil
	}
	found, ok := all.tags[number]
	if !ok {
		return nil
	}
	if want := tag(TagPurpose, all.untagged()); !hmac.Equal(want[:], found[:]) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.refused = append(p.refused, number)
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
