package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Forge makes of a document one that says that it is later by so many generations, is wrapped by
// a version with that fingerprint (what is zero stays as it is), and has another wrap, and a body of
// noise: what somebody can who has no key.
func Forge(document []byte, later uint64, version string, fingerprint [32]byte, wrapped []byte) ([]byte, error) {
	h, _, sealed, err := splitDocument(bytes.Clone(document))
	if err != nil {
		return nil, err
	}
	h.generation += later
	for i := range h.keks {
		e := &h.keks[i]
		if e.id != h.active {
			continue
		}
		if version != "" {
			e.key = vault.KeyID{Vault: e.key.Vault, Name: e.key.Name, Version: version}
		}
		if fingerprint != ([32]byte{}) {
			e.fingerprint = fingerprint
		}
	}
	h.wrapped = wrapped
	noise := make([]byte, len(sealed))
	rand.Read(noise)
	return append(h.encode(), noise...), nil
}

// Replace makes document what a storage holds, whatever it held.
func Replace(ctx context.Context, s Storage, document []byte) error {
	_, was, err := s.Load(ctx)
	if err != nil && !errors.Is(err, ErrNoDocument) {
		return err
	}
	_, err = s.Swap(ctx, was, document)
	return err
}

// Document is what a storage holds.
func Document(ctx context.Context, s Storage) ([]byte, error) {
	document, _, err := s.Load(ctx)
	return document, err
}

// Forget makes a storage in memory hold nothing.
func (m *MemStorage) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.document = nil
}

// Reserved returns how many DEKs an open keyring's document says were reserved, by epoch.
func (r *Keyring) Reserved() (map[uint32]uint64, error) {
	h, err := r.Acquire()
	if err != nil {
		return nil, err
	}
	defer h.Release()
	r.docMu.Lock()
	defer r.docMu.Unlock()
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return nil, err
	}
	defer b.destroy()
	out := map[uint32]uint64{}
	for _, e := range b.epochs {
		out[e.id] = e.reserved
	}
	return out, nil
}

// FillEpochs begins epochs, in one save, until there are n.
func (r *Keyring) FillEpochs(ctx context.Context, n int) error {
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	return r.mutate(ctx, &h, func(b *body) error {
		// Not addEpoch, which leaves no key behind and copies all of them each time.
		for created := r.wallNow().UTC().Truncate(time.Second); len(b.epochs) < n; b.nextEpoch++ {
			k := epochKey{id: b.nextEpoch, created: created}
			rand.Read(k.key[:])
			b.epochs = append(b.epochs, k)
		}
		return nil
	}, func(b *body) error {
		set, err := h.s.epochs.Load().follow(b)
		if err == nil {
			h.s.epochs.Store(set)
		}
		return err
	})
}
