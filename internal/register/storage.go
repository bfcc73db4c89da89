package register

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// Package block exports these errors.
var (
	ErrIncomplete = errors.New("what is known of the store's copies is not all, or not known to be")
	ErrForeign    = errors.New("another store's keyring")
)

// These meta records are saved together. On disk, and must not change:
//
//	store         version byte 1, then the store's id, 16 bytes
//	keyring       the keyring document
//	register      see [Register]
//	instance      see who.go; saved with the first document
//	name          likewise
//
// The announcements copy/... are saved without them; see [Register].
const (
	storeName = "store"
	// DocumentName is the name of the document's record.
	DocumentName = "keyring"

	storeRecordVersion = 1
)

// Storage keeps the keyring document and the register in the engine. A new store makes its keyring
// before it touches the directory, so that a vault that refuses leaves nothing behind: until
// Attach, both wait in memory. Storage has SwapTagged, with which a keyring saves more than its
// document, and is safe for concurrent use. Its exported fields are set before the keyring is made
// or opened.
type Storage struct {
	Own       inner.InstanceID // the store's
	StoreName string           // that it was found by
	Saved     func()           // called when a document was saved in the engine; nil: nothing

	mu sync.Mutex // guards what follows; held while a save waits for the disk

	// These change under mu and short, so that Load waits for no disk.
	short   sync.Mutex
	part    engine.Partition
	pending []byte           // the document
	saving  *saving          // nil: no document is being saved in the engine
	was     inner.InstanceID // see IsCopy
	waits   bool

	revision uint64 // of the document's meta record; the next save replaces this one
	tagged   []byte // the register beside the document
	name     []byte // likewise, the store's name, tagged

	reg       Register
	staged    func(Register) []Entry // sets the copies that the next document is saved with; nil: as they are
	announced []string               // names of announcements, which the next document replaces
	known     bool                   // the register was judged, or is the store's own
	doubt     string                 // why the register was not believed; "": it was, or was not judged yet
	told      bool                   // Wrong has returned doubt
	found     [][]byte               // tag and content of the register that was found
	foundName []byte                 // the record of the name that was found
	document  [sha256.Size]byte      // of the document
}

// saving is a document on its way to the disk, and the one that it replaces; nil: none.
type saving struct{ before, document []byte }

// Load implements [keyring.Storage]. An engine returns a document before it is durable; while one
// is being saved, Load returns the one before.
func (m *Storage) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	document, _, err := m.load(ctx)
	if err != nil {
		return nil, "", err
	}
	m.short.Lock()
	s := m.saving
	m.short.Unlock()
	if s != nil && bytes.Equal(document, s.document) {
		if document = bytes.Clone(s.before); document == nil {
			return nil, "", fmt.Errorf("block: %w", keyring.ErrNoDocument)
		}
	}
	return document, revisionOf(document), nil
}

// revisionOf is the revision of a document, or of none.
func revisionOf(document []byte) keyring.Revision {
	if document == nil {
		return ""
	}
	return keyring.ContentRevision(document)
}

// load returns the present document, durable or not, and the revision of its meta record.
func (m *Storage) load(ctx context.Context) (document []byte, record uint64, err error) {
	m.short.Lock()
	part, pending := m.part, m.pending
	m.short.Unlock()
	if part == nil {
		document = bytes.Clone(pending)
	} else if document, record, err = part.LoadMeta(ctx, DocumentName); err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, 0, err
	}
	if document == nil {
		return nil, 0, fmt.Errorf("block: %w", keyring.ErrNoDocument)
	}
	return document, record, nil
}

// Swap implements [keyring.Storage]. It fails: a document is saved with the register, which needs a
// tag.
func (m *Storage) Swap(context.Context, keyring.Revision, []byte) (keyring.Revision, error) {
	return "", errors.New("block: a keyring document is saved with the register, which needs a tag")
}

// SwapTagged is called by a keyring in the place of Swap.
func (m *Storage) SwapTagged(ctx context.Context, was keyring.Revision, document []byte, is inner.Opened) (keyring.Revision, error) {
	in, err := keyring.Inspect(document)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, at, err := m.load(ctx)
	switch {
	case err != nil && !errors.Is(err, keyring.ErrNoDocument):
		return "", err
	case revisionOf(now) != was:
		return "", fmt.Errorf("block: %w", keyring.ErrConflict)
	}
	m.revision = at // the engine replaces this one, and none that came meanwhile
	if err := m.catchUp(ctx, was, is); err != nil {
		return "", err
	}
	next := m.reg
	if m.staged != nil {
		next.Copies = m.staged(next)
	}
	next.Instance, next.Generation = is.Instance, is.Generation
	next.Past = next.Past.With(in.KEK, in.PublicKeys[in.KEK])
	content := next.Encode()
	beside := tagged.Join(is.Tag(Name, content), content)
	if at == 0 { // a new store
		m.name = tagged.Join(is.Tag(NameRecord, []byte(m.StoreName)), []byte(m.StoreName))
	}
	if m.part == nil {
		m.tagged = beside
		m.short.Lock()
		m.pending = bytes.Clone(document)
		m.short.Unlock()
	} else if err := m.save(ctx, in, now, document, beside, !is.Counts); err != nil {
		return "", err
	}
	m.reg, m.staged, m.known = next, nil, true
	m.document = sha256.Sum256(document)
	return keyring.ContentRevision(document), nil
}

// Attach gives the storage its engine, and then saves what waited for it, or reads what the engine
// has.
func (m *Storage) Attach(ctx context.Context, part engine.Partition) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.short.Lock()
	m.part = part
	m.short.Unlock()
	if m.pending != nil {
		in, err := keyring.Inspect(m.pending)
		if err == nil {
			err = m.save(ctx, in, nil, m.pending, m.tagged, true)
		}
		return err
	}
	document, revision, err := part.LoadMeta(ctx, DocumentName)
	if err != nil {
		return err
	}
	m.revision = revision
	if err := m.loadWho(ctx); err != nil {
		return err
	}
	return m.loadRegister(ctx, document)
}

// save writes, and lets Load know meanwhile. before is the document that is replaced; tell says that
// other processes are told. m.mu is held.
func (m *Storage) save(ctx context.Context, in keyring.Info, before, document, tagged []byte, tell bool) error {
	set := func(s *saving) {
		m.short.Lock()
		defer m.short.Unlock()
		m.saving = s
	}
	set(&saving{before: before, document: document})
	defer set(nil)
	return m.write(ctx, in, document, tagged, tell, drops(before, in))
}

// drops reports whether a KEK that is in the document before is not in the next one. That is of who
// has the turn of rewriting operations, who has had the floor refuse it and has found no record of it:
// the next one who has the turn takes the refusal back.
func drops(before []byte, next keyring.Info) bool {
	if before == nil {
		return false
	}
	in, err := keyring.Inspect(before)
	if err != nil {
		return false // it was looked at before
	}
	for id := range in.KEKs {
		if _, stays := next.KEKs[id]; !stays {
			return true
		}
	}
	return false
}

// write replaces the document, if its meta record still has m.revision, and what belongs to it.
// m.mu is held.
func (m *Storage) write(ctx context.Context, in keyring.Info, document, tagged []byte, tell, turned bool) error {
	record := append([]byte{storeRecordVersion}, in.StoreID[:]...)
	swaps := []engine.Swap{
		{Name: DocumentName, Revision: m.revision, Value: document, Tell: tell, Turned: turned},
		{Name: storeName, Revision: engine.AnyRevision, Value: record},
		{Name: Name, Revision: engine.AnyRevision, Value: tagged},
	}
	if m.revision == 0 { // a new store
		swaps = append(swaps, engine.Swap{Name: instanceName, Value: m.instanceRecord()}, engine.Swap{Name: NameRecord, Value: m.name})
	}
	for _, name := range m.announced {
		swaps = append(swaps, engine.Swap{Name: name, Revision: engine.AnyRevision})
	}
	if _, shared := m.part.(engine.Turner); !shared {
		// Whether it was saved must become known, even to a caller that has stopped waiting. A server may
		// never say so: a lock, and Close, wait for this.
		ctx = context.WithoutCancel(ctx)
	}
	revisions, err := m.part.SwapMeta(ctx, swaps...)
	if errors.Is(err, engine.ErrConflict) {
		return fmt.Errorf("block: %w: %w", keyring.ErrConflict, err)
	}
	if err != nil {
		return err
	}
	if m.revision == 0 {
		m.was = m.Own
	}
	m.revision, m.announced = revisions[0], nil
	if m.Saved != nil {
		m.Saved()
	}
	return nil
}

// Document reads the keyring document of a store, or returns engine.ErrNotFound.
func Document(ctx context.Context, p engine.Meta) ([]byte, error) {
	return engine.ReadMeta(ctx, p, DocumentName)
}

// CheckStoreID checks that a keyring document has the id of its store.
func CheckStoreID(ctx context.Context, p engine.Meta, document []byte) error {
	record, err := engine.ReadMeta(ctx, p, storeName)
	if err != nil {
		return fmt.Errorf("block: the store's own id: %w: %w", keyring.ErrCorrupt, err)
	}
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	switch {
	case len(record) == 0 || record[0] != storeRecordVersion:
		return fmt.Errorf("block: the store's own id: %w", keyring.ErrVersion)
	case !bytes.Equal(record[1:], in.StoreID[:]):
		return fmt.Errorf("block: the store is %x and its keyring is of %v: %w", record[1:], in.StoreID, ErrForeign)
	}
	return nil
}
