package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// The meta space's records: the store's id (version byte 1, then 16 bytes), and
// the keyring document. They are first written in one batch.

func metaKey(name string) []byte { return append([]byte{spaceMeta}, name...) }

const (
	metaStore   = "store"
	metaKeyring = "keyring"

	storeRecordVersion = 1
)

// metaStorage keeps the keyring document in the engine. A new store makes its
// keyring before it touches the directory, so that a vault that refuses leaves
// nothing behind: until attach, the document waits in memory.
type metaStorage struct {
	mu      sync.Mutex
	db      *engine.DB
	pending []byte
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
	if m.pending == nil {
		return nil
	}
	return m.write(m.pending)
}

func (m *metaStorage) write(document []byte) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	b := m.db.NewBatch()
	defer b.Close()
	record := append([]byte{storeRecordVersion}, in.StoreID[:]...)
	if err := errors.Join(b.Set(metaKey(metaStore), record), b.Set(metaKey(metaKeyring), document)); err != nil {
		return err
	}
	return m.db.Commit(b, true)
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
