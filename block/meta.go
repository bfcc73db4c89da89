package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// The meta space's records. They are on disk and must not change.
//
//	store         version byte 1, then the store's id, 16 bytes
//	keyring       the keyring document
//	past-keks     version byte 1, then the identifiers of the KEK versions that
//	              wrapped a document since the last Erase, each ended by a newline
//	erased        when Erase last ran, RFC 3339; nothing reads it
//	copy/...      see Copy
//	rotate-epoch  see marker
//	rekey         see marker
//
// The first three are written together.

func metaKey(name string) []byte { return append([]byte{spaceMeta}, name...) }

const (
	metaStore   = "store"
	metaKeyring = "keyring"
	metaPast    = "past-keks"
	metaErased  = "erased"

	storeRecordVersion = 1
	pastVersion        = 1
)

// metaStorage keeps the keyring document in the engine. A new store makes its
// keyring before it touches the directory, so that a vault that refuses leaves
// nothing behind: until attach, the document waits in memory.
type metaStorage struct {
	mu      sync.Mutex
	db      *engine.DB
	pending []byte
	past    []vault.KeyID // the KEK versions of the past-keks record
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
	return err
}

func (m *metaStorage) write(document []byte) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	past := m.past
	if !slices.Contains(past, in.KEK) {
		past = append(slices.Clone(past), in.KEK)
	}
	b := m.db.NewBatch()
	defer b.Close()
	record := append([]byte{storeRecordVersion}, in.StoreID[:]...)
	err = errors.Join(b.Set(metaKey(metaStore), record), b.Set(metaKey(metaKeyring), document),
		b.Set(metaKey(metaPast), encodePast(past)))
	if err != nil {
		return err
	}
	if err := m.db.Commit(b, true); err != nil {
		return err
	}
	m.past = past
	return nil
}

// pastKEKs returns the KEK versions that wrapped a document since forgetKEKs.
func (m *metaStorage) pastKEKs() []vault.KeyID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.past)
}

// forgetKEKs forgets all of them but the one that wraps the document now.
func (m *metaStorage) forgetKEKs() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	document, err := readMeta(m.db, metaKeyring)
	if err != nil {
		return err
	}
	m.past = nil
	return m.write(document)
}

func encodePast(ids []vault.KeyID) []byte {
	b := []byte{pastVersion}
	for _, id := range ids {
		b = append(append(b, id.String()...), '\n')
	}
	return b
}

func decodePast(b []byte) (ids []vault.KeyID, err error) {
	if len(b) > 0 && b[0] != pastVersion {
		return nil, fmt.Errorf("block: the record of past KEKs: %w", ErrVersion)
	}
	lines := strings.Split(string(b), "\n")
	if len(b) == 0 || lines[len(lines)-1] != "" && len(b) > 1 {
		return nil, fmt.Errorf("block: the record of past KEKs is cut off: %w", ErrCorrupt)
	}
	lines[0] = lines[0][1:]
	for _, line := range lines[:len(lines)-1] {
		id, err := vault.ParseKeyID(line)
		if err != nil {
			return nil, fmt.Errorf("block: the record of past KEKs: %w: %w", ErrCorrupt, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
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
