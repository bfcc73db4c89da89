package block

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// The meta space's records. They are on disk and must not change.
//
//	store         version byte 1, then the store's id, 16 bytes
//	keyring       the keyring document
//	register      see register
//	copy/...      see register
//	erased        when Erase last ran, RFC 3339, for people
//	rotate-epoch  see marker
//	rekey         see marker
//	sequence      see sequence
//
// The first three are written together.

func metaKey(name string) []byte { return append([]byte{spaceMeta}, name...) }

const (
	metaStore   = "store"
	metaKeyring = "keyring"
	metaErased  = "erased"

	storeRecordVersion = 1
)

// metaStorage keeps the keyring document in the engine, and with it the register. A new
// store makes its keyring before it touches the directory, so that a vault that refuses
// leaves nothing behind: until attach, both wait in memory.
type metaStorage struct {
	own   keyring.InstanceID // the store's; set before the keyring is made or opened, as the next is
	waits bool               // it is a copy that has not been revalidated
	saved func()             // called when a document was saved in the engine; nil: nothing

	mu      sync.Mutex // what follows
	db      *engine.DB
	pending []byte // the document
	tagged  []byte // the register beside it

	reg       register
	staged    func(register) []copyEntry // the copies that the next document is saved with; nil: as they are
	announced []string                   // records of copies without a tag, which the next document takes over
	known     bool                       // the register was judged, or is the store's own
	doubt     string                     // why what was found is not believed; "": it is, or was not judged
	told      bool                       // that
	found     [][]byte                   // its tag and record
	document  [sha256.Size]byte          // SHA-256 of the document
}

// Load implements [keyring.Storage].
func (m *metaStorage) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.db == nil {
		if m.pending == nil {
			return nil, fmt.Errorf("block: %w", keyring.ErrNoDocument)
		}
		return bytes.Clone(m.pending), nil
	}
	doc, err := readMeta(m.db, metaKeyring)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, fmt.Errorf("block: %w", keyring.ErrNoDocument)
	}
	return doc, err
}

// Save implements [keyring.Storage]. What is saved with a document is tagged: there is no
// saving without.
func (m *metaStorage) Save(context.Context, []byte) error {
	return errors.New("block: a keyring document is saved with the register, which needs a tag")
}

// SaveTagged implements [keyring.TaggingStorage].
func (m *metaStorage) SaveTagged(_ context.Context, document []byte, is keyring.Opened) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.reg
	if m.staged != nil {
		next.copies = m.staged(next)
	}
	next.instance, next.generation = is.Instance, is.Generation
	next.past = next.past.with(in.KEK, in.PublicKeys[in.KEK])
	record := next.encode()
	tagged := joinTagged(is.Tag(metaRegister, record), record)
	if m.db == nil {
		m.pending, m.tagged = bytes.Clone(document), tagged
	} else if err := m.write(in, document, tagged); err != nil {
		return err
	}
	m.reg, m.staged, m.known = next, nil, true
	m.document = sha256.Sum256(document)
	return nil
}

// attach gives the storage its engine, writes what waited for it, or looks what is there.
func (m *metaStorage) attach(db *engine.DB) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.db = db
	if m.pending != nil {
		in, err := keyring.Inspect(m.pending)
		if err == nil {
			err = m.write(in, m.pending, m.tagged)
		}
		return err
	}
	document, err := readMeta(db, metaKeyring)
	if err != nil {
		return err
	}
	return m.loadRegister(document)
}

func (m *metaStorage) write(in keyring.Info, document, tagged []byte) error {
	b := m.db.NewBatch()
	defer b.Close()
	record := append([]byte{storeRecordVersion}, in.StoreID[:]...)
	err := errors.Join(b.Set(metaKey(metaStore), record), b.Set(metaKey(metaKeyring), document), b.Set(metaKey(metaRegister), tagged))
	for _, name := range m.announced {
		err = errors.Join(err, b.Delete(metaKey(name)))
	}
	if err != nil {
		return err
	}
	if err := m.db.Commit(b, true); err != nil {
		return err
	}
	m.announced = nil
	if m.saved != nil {
		m.saved()
	}
	return nil
}

func readMeta(r engine.Reader, name string) ([]byte, error) {
	v, closer, err := r.Get(metaKey(name))
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return bytes.Clone(v), nil
}

// checkStoreID checks that a store's keyring document is of this store.
func checkStoreID(r engine.Reader, document []byte) error {
	record, err := readMeta(r, metaStore)
	if err != nil {
		return fmt.Errorf("block: the store's own id: %w: %w", ErrCorrupt, err)
	}
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	switch {
	case len(record) == 0 || record[0] != storeRecordVersion:
		return fmt.Errorf("block: the store's own id: %w", ErrVersion)
	case !bytes.Equal(record[1:], in.StoreID[:]):
		return fmt.Errorf("block: the store is %x and its keyring is of %v: %w", record[1:], in.StoreID, ErrForeign)
	}
	return nil
}
