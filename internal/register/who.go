package register

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// Two more meta records say who a store is. On disk, and must not change:
//
//	instance      version byte 1, then the instance that the store was when it was made, or when it
//	              was revalidated last, 16 bytes
//	name          the store's name, tagged
//
// The instance that a store is follows from where it is. Where the record has another, the store is
// a copy, or was moved: it waits for Revalidate, after which it is a store of its own. The document
// cannot say so, because one that is moved to another KEK while it waits is saved too. Nobody with
// the disk gains by another record: what waits serves nothing, and what does not was not kept from
// being opened.
//
// The name is what the store is found by. A list of names has no key, so that who can write the
// disk can have a name lead to another store; that store says so.
const (
	instanceName = "instance"
	// NameRecord is the name of the record of the store's name.
	NameRecord = "name"

	instanceRecordVersion = 1
)

// loadWho reads both records of a store that has a document. m.mu is held.
func (m *Storage) loadWho(ctx context.Context) error {
	b, err := engine.ReadMeta(ctx, m.part, instanceName)
	switch {
	case errors.Is(err, engine.ErrNotFound):
	case err != nil:
		return err
	case len(b) > 0 && b[0] != instanceRecordVersion:
		return fmt.Errorf("block: the store's instance: %w", keyring.ErrVersion)
	case len(b) != 1+len(m.was):
		return fmt.Errorf("block: the store's instance: %w", keyring.ErrCorrupt)
	default:
		m.was = inner.InstanceID(b[1:])
	}
	m.waits = m.was != m.Own
	m.foundName, err = engine.ReadMeta(ctx, m.part, NameRecord)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

// Arrived returns the meta records of a store that arrives from elsewhere, where it is own. Without
// the record of its instance it is a copy of nobody knows what; that is left out where it says that
// the store has been here all along, which whoever made the export may have written.
func Arrived(meta []engine.Swap, own inner.InstanceID) []engine.Swap {
	return slices.DeleteFunc(meta, func(m engine.Swap) bool {
		return m.Name == instanceName && bytes.HasSuffix(m.Value, own[:])
	})
}

// IsCopy reports whether the store is a copy that was not revalidated, and of which instance; that
// is zero if it is not known.
func (m *Storage) IsCopy() (of inner.InstanceID, is bool) {
	m.short.Lock()
	defer m.short.Unlock()
	return m.was, m.waits
}

// Settle saves that the store is a copy no more.
func (m *Storage) Settle(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := engine.SetMeta(ctx, m.part, instanceName, m.instanceRecord()); err != nil {
		return err
	}
	m.short.Lock()
	defer m.short.Unlock()
	m.was, m.waits = m.Own, false
	return nil
}

func (m *Storage) instanceRecord() []byte {
	return append([]byte{instanceRecordVersion}, m.Own[:]...)
}

// CheckName refuses a store that has another name than the one that it was found by. The document
// is authentic.
func (m *Storage) CheckName(o inner.Opened) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.part == nil || m.known {
		return nil // it is being made, or was checked
	}
	tag, name, ok := tagged.Split(m.foundName)
	want := o.Tag(NameRecord, name)
	if !ok || !hmac.Equal(tag, want[:]) {
		return fmt.Errorf("block: the name that store %q has for itself is missing, or was not written by it: %w", m.StoreName, keyring.ErrCorrupt)
	}
	if !bytes.Equal(name, []byte(m.StoreName)) {
		return fmt.Errorf("block: what is found as store %q is store %q: %w", m.StoreName, name, ErrForeign)
	}
	return nil
}

// NameOf returns the name that a store's meta records have, which is not authentic.
func NameOf(record []byte) (string, error) {
	_, name, ok := tagged.Split(record)
	if !ok {
		return "", fmt.Errorf("block: the store's name: %w", keyring.ErrCorrupt)
	}
	return string(name), nil
}
