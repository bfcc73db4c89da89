package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// The meta space's records. They are on disk and must not change.
//
//	store         version byte 1, then the store's id, 16 bytes
//	keyring       the keyring document
//	past-keks     see pastKEKs
//	erased        when Erase last ran, RFC 3339; see attach
//	copy/...      see Copy
//	rotate-epoch  see marker
//	rekey         see marker
//	sequence      see sequence
//
// The first three are written together.

func metaKey(name string) []byte { return append([]byte{spaceMeta}, name...) }

const (
	metaStore   = "store"
	metaKeyring = "keyring"
	metaPast    = "past-keks"
	metaErased  = "erased"

	storeRecordVersion = 1
)

// metaStorage keeps the keyring document in the engine. A new store makes its
// keyring before it touches the directory, so that a vault that refuses leaves
// nothing behind: until attach, the document waits in memory.
type metaStorage struct {
	mu      sync.Mutex
	db      *engine.DB
	pending []byte
	past    pastKEKs
	saved   func() // called when a document was saved in the engine; nil: nothing
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

// Save implements [keyring.Storage].
func (m *metaStorage) Save(_ context.Context, document []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.db == nil {
		m.pending = bytes.Clone(document)
		return nil
	}
	return m.write(document)
}

// attach gives the storage its engine and writes what waited for it.
func (m *metaStorage) attach(db *engine.DB) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.db = db
	if m.pending != nil {
		return m.write(m.pending)
	}
	record, err := readMeta(db, metaPast)
	if err == nil {
		m.past, err = decodePast(record)
	}
	if err == nil && len(record) > 0 && record[0] == pastVersion1 {
		// Its writer forgot, at each Erase, all but the version of that moment.
		switch _, err := readMeta(db, metaErased); {
		case err == nil:
			m.past.incomplete = true
		case !errors.Is(err, engine.ErrNotFound):
			return err
		}
	}
	return err
}

func (m *metaStorage) write(document []byte) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	past := m.past.with(in.KEK, in.PublicKeys[in.KEK])
	b := m.db.NewBatch()
	defer b.Close()
	record := append([]byte{storeRecordVersion}, in.StoreID[:]...)
	err = errors.Join(b.Set(metaKey(metaStore), record), b.Set(metaKey(metaKeyring), document),
		b.Set(metaKey(metaPast), past.encode()))
	if err != nil {
		return err
	}
	if err := m.db.Commit(b, true); err != nil {
		return err
	}
	m.past = past
	if m.saved != nil {
		m.saved()
	}
	return nil
}

// pastKEKs returns the KEK versions that wrapped a document.
func (m *metaStorage) pastKEKs() pastKEKs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.past.clone()
}

// noteKEKs writes down what the vaults said of past KEK versions.
func (m *metaStorage) noteKEKs(said map[vault.KeyID]KeyState, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	past, changed := m.past.after(said, now)
	if !changed {
		return nil
	}
	return m.writePast(past)
}

// replacePast writes down the table anew, to which versions were added.
func (m *metaStorage) replacePast(past pastKEKs) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(past.keks) == len(m.past.keks) {
		return nil
	}
	return m.writePast(past)
}

func (m *metaStorage) writePast(past pastKEKs) error {
	b := m.db.NewBatch()
	defer b.Close()
	if err := b.Set(metaKey(metaPast), past.encode()); err != nil {
		return err
	}
	if err := m.db.Commit(b, true); err != nil {
		return err
	}
	m.past = past
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
