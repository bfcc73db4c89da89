package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// Relocation is what [Relocate] did.
type Relocation struct {
	// Moved are the KEK versions that have another address now, in the order of their ids in
	// the document; none if each was where it was looked for.
	Moved []Relocated `json:"moved"`
	// Kept are the versions that are needed and stayed where they are, because the key is not
	// in the new place, and one of Options.OtherKEKs can be used where it is.
	Kept []vault.KeyID `json:"kept"`
	// Generation of the document.
	Generation uint64 `json:"generation"`
}

// Relocated is a KEK version that has another address.
type Relocated struct {
	From      vault.KeyID       `json:"from"`
	To        vault.KeyID       `json:"to"`
	PublicKey [sha256.Size]byte `json:"publicKey"` // SHA-256 of its SubjectPublicKeyInfo, the same in both places
}

// Relocate makes a keyring whose KEK is in another place now open there: the same key, which
// was restored from a backup or imported, in another vault or under another name, as after
// the loss of a vault. The vault of before is not asked, and may be gone. To move to another
// key, or while the vault of before answers, [Keyring.ChangeKEK] is the usual way.
//
// For each KEK version that the document names, Relocate looks in k's vault, under k's name,
// for a version with the same public key: under the same version first, then the current one,
// then all of them, if the vault is a [vault.VersionLister]. Each must show that it has the
// private key, by an unwrap; the one that wraps the document must be usable as a KEK, as at
// every Open. Then the identifiers are replaced, and the document is wrapped anew by the same
// key in its new place, in one Save. [Open] with k works from then on. The version of k is not
// looked at.
//
// A version that is needed (the one that wraps the document; those that wrap DEK records,
// ByKEK) and is not there is refused, with an error that names it and matches
// [vault.ErrKeyNotFound], unless one of Options.OtherKEKs is that key and can be used where
// it is. unused are the ids of KEKs that no DEK record is wrapped by, which the caller has made
// sure of: they leave the document. After an error nothing has changed, unless it was Swap's,
// which leaves the document of before or the new one. If everything is in place already,
// nothing is written.
//
// A keyring that has s open takes the change up at its next check, if k is among its
// Options.OtherKEKs; else it locks when its lease ends. An anchor (Options.Anchor) is looked at, and advanced by
// the next Open. Of the options, those of a policy mean nothing here.
func Relocate(ctx context.Context, s Storage, k *kek.KEK, opts *Options, unused ...uint32) (Relocation, error) {
	rel, err := relocate(ctx, s, k, opts, unused)
	for tries := 1; errors.Is(err, ErrConflict) && tries < maxMoves; tries++ {
		rel, err = relocate(ctx, s, k, opts, unused)
	}
	if err != nil {
		return Relocation{}, fmt.Errorf("keyring: relocate: %w", err)
	}
	return rel, nil
}

func relocate(ctx context.Context, s Storage, k *kek.KEK, opts *Options, unused []uint32) (rel Relocation, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return rel, err
	}
	if err := requireBoth(s, k); err != nil {
		return rel, err
	}
	if o.ReadOnly {
		return rel, ErrReadOnly
	}
	least, err := loadAnchor(ctx, &o)
	if err != nil {
		return rel, err
	}
	doc, revision, err := s.Load(ctx)
	if err != nil {
		return rel, fmt.Errorf("load: %w", err)
	}
	d, err := parseStored(doc, revision)
	if err != nil {
		return rel, err
	}
	if err := generationExpected(d.header.generation, least); err != nil {
		return rel, err
	}
	r := newKeyring(s, k.WithVersion(""), o)
	defer r.abandon()
	r.anchoring.least, r.anchoring.at = least, least
	r.storeID = d.header.storeID
	r.take(d)
	m := &relocator{r: r, k: r.kek, header: d.header.clone(), known: map[vault.KeyID]vault.Key{}}
	m.header.keks = slices.DeleteFunc(m.header.keks, func(e kekEntry) bool { return e.id != d.header.active && slices.Contains(unused, e.id) })
	return m.run(ctx)
}

// relocator is one Relocate.
type relocator struct {
	r      *Keyring
	k      *kek.KEK // without a version
	header header   // of the document to be
	rel    Relocation

	known    map[vault.KeyID]vault.Key // versions in the new place that were looked at
	versions []vault.KeyID             // all of them, the newest first; nil: not asked for yet
	listErr  error                     // why they are not known
}

func (m *relocator) run(ctx context.Context) (Relocation, error) {
	r := m.r
	m.rel.Generation = m.header.generation
	if m.k.ID().Vault == "" {
		// Without it a key of the same name in another vault could not be told apart.
		key, err := r.getKey(ctx, m.k)
		if key.ID == (vault.KeyID{}) {
			return m.rel, err
		}
		m.k = inVault(m.k, key.ID.Vault)
	}
	if m.inPlace() {
		return m.rel, nil
	}
	active := m.header.current()
	found, err := m.counterpart(ctx, active, "wraps the keyring")
	if err != nil {
		return m.rel, err
	}
	if err := kek.Admit(found, r.wallNow()); err != nil {
		return m.rel, err
	}
	b, err := m.open(ctx, found.ID)
	if err != nil {
		return m.rel, err
	}
	defer b.destroy()
	// From here on the header is known to be the keyring's own.
	for i, e := range m.header.keks {
		to := found.ID
		if e.id != active.id {
			if to, err = m.recordsKEK(ctx, e); err != nil {
				return m.rel, err
			}
		}
		if to != e.key {
			m.rel.Moved = append(m.rel.Moved, Relocated{From: e.key, To: to, PublicKey: e.fingerprint})
			m.header.keks[i].key = to
		}
	}
	if len(m.rel.Moved) == 0 {
		return m.rel, nil
	}
	return m.rel, m.save(ctx, b, active, found.ID)
}

// inPlace reports whether each version is a key of the new place by its name.
func (m *relocator) inPlace() bool {
	return !slices.ContainsFunc(m.header.keks, func(e kekEntry) bool { return !sameKey(m.k.ID(), e.key) })
}

// open opens the document with the version that is its KEK in the new place, and looks at it
// as Open does.
func (m *relocator) open(ctx context.Context, id vault.KeyID) (*body, error) {
	r := m.r
	got, err := r.unwrap(ctx, kek.New(m.k.Vault(), id), vault.Wrapped{KeyID: id, Ciphertext: m.header.wrapped})
	if err != nil {
		return nil, err
	}
	defer clear(got)
	if len(got) != secretSize {
		return nil, r.wrongSecret(fmt.Sprintf("it unwrapped to %d bytes, want %d", len(got), secretSize))
	}
	b, err := openBody(r.sealed, (*[secretSize]byte)(got), r.aad)
	if err != nil {
		return nil, err
	}
	if err := r.admit(b, r.header.generation); err != nil {
		b.destroy()
		return nil, err
	}
	return b, nil
}

// recordsKEK returns where a version is from now on that wraps DEK records, and not the document.
func (m *relocator) recordsKEK(ctx context.Context, e kekEntry) (vault.KeyID, error) {
	if sameKey(m.k.ID(), e.key) {
		return e.key, nil
	}
	found, err := m.counterpart(ctx, e, "wraps DEK records")
	if err == nil {
		err = m.proveKey(ctx, m.k, found)
	}
	if err == nil {
		return found.ID, nil
	}
	if vault.Transient(err) {
		return vault.KeyID{}, err
	}
	// Not in the new place, and perhaps where it was.
	for _, other := range m.r.opts.OtherKEKs {
		if !sameKey(other.ID(), e.key) {
			continue
		}
		at := kek.New(other.Vault(), e.key)
		key, otherErr := m.r.getKey(ctx, at)
		if key.ID == (vault.KeyID{}) {
			return vault.KeyID{}, fmt.Errorf("%w; and where it was: %w", err, otherErr)
		}
		if !isKey(key, e) {
			continue
		}
		if otherErr := m.proveKey(ctx, at, key); otherErr != nil {
			return vault.KeyID{}, fmt.Errorf("%w; and where it was: %w", err, otherErr)
		}
		m.rel.Kept = append(m.rel.Kept, e.key)
		return e.key, nil
	}
	return vault.KeyID{}, err
}

// isKey reports whether a version that a vault has is the key of an entry.
func isKey(key vault.Key, e kekEntry) bool {
	if kek.AdmitPublic(key.Public) != nil {
		return false
	}
	fp, err := kek.Fingerprint(key.Public)
	return err == nil && fp == e.fingerprint
}

// proveKey has the vault undo what was encrypted to the public key here: a version that is out
// of date, as an old one may well be, wraps nothing.
func (m *relocator) proveKey(ctx context.Context, k *kek.KEK, key vault.Key) error {
	probe := make([]byte, secretSize)
	rand.Read(probe)
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.Public, probe, nil)
	if err != nil {
		return err
	}
	got, err := m.r.unwrap(ctx, kek.New(k.Vault(), key.ID), vault.Wrapped{KeyID: key.ID, Ciphertext: c})
	if err != nil {
		return err
	}
	defer clear(got)
	if !bytes.Equal(got, probe) { // which is of no worth to anybody
		return &vault.Error{Op: vault.OpUnwrapKey, Key: key.ID, Kind: vault.ErrUnsupportedKey,
			Detail: "the vault unwrapped to another secret than was encrypted to its public key"}
	}
	return nil
}

// counterpart looks in the new place for the key of an entry, by its public key.
func (m *relocator) counterpart(ctx context.Context, e kekEntry, what string) (vault.Key, error) {
	for _, version := range []string{e.key.Version, ""} {
		if key, ok, err := m.look(ctx, m.k.WithVersion(version), e); err != nil || ok {
			return key, err
		}
	}
	m.list(ctx)
	for _, id := range m.versions {
		if key, ok, err := m.look(ctx, kek.New(m.k.Vault(), id), e); err != nil || ok {
			return key, err
		}
	}
	detail := fmt.Sprintf("no version of it has the public key of %s, which %s (SHA-256 %x); restore that version there, or import it", e.key, what, e.fingerprint)
	if m.listErr != nil {
		detail += fmt.Sprintf("; the same version and the current one were looked at, because the vault did not list the others: %v", m.listErr)
	}
	return vault.Key{}, &vault.Error{Op: vault.OpGet, Key: m.k.ID(), Kind: vault.ErrKeyNotFound, Detail: detail}
}

// look reports whether a version in the new place is the key of an entry. That there is no such
// version is no error, and what the version may be used for is asked later.
func (m *relocator) look(ctx context.Context, k *kek.KEK, e kekEntry) (vault.Key, bool, error) {
	key, ok := m.known[k.ID()]
	if !ok {
		var err error
		key, err = m.r.getKey(ctx, k)
		if key.ID == (vault.KeyID{}) {
			if errors.Is(err, vault.ErrKeyNotFound) {
				return key, false, nil
			}
			return key, false, err
		}
		m.known[k.ID()], m.known[key.ID] = key, key
	}
	return key, isKey(key, e), nil
}

// list asks once which versions there are. A vault that does not say leaves it at those that
// were looked at.
func (m *relocator) list(ctx context.Context) {
	if m.versions != nil || m.listErr != nil {
		return
	}
	lister, ok := m.k.Vault().(vault.VersionLister)
	if !ok {
		m.listErr = errors.ErrUnsupported
		return
	}
	ids, err := vaultCall(ctx, m.r, vault.OpGet, m.k.ID(), func(ctx context.Context) ([]vault.KeyID, error) {
		return lister.KeyVersions(ctx, m.k.ID())
	}, func([]vault.KeyID) {})
	if err != nil {
		m.listErr = err
		return
	}
	m.versions = []vault.KeyID{}
	for _, id := range slices.Backward(ids) {
		if id.Version != "" && sameKey(m.k.ID(), id) {
			m.versions = append(m.versions, id)
		}
	}
}

// save wraps the document anew, with the key in its new place, and saves it.
func (m *relocator) save(ctx context.Context, b *body, active kekEntry, to vault.KeyID) error {
	r := m.r
	t, err := r.prepare(ctx, kek.New(m.k.Vault(), to))
	if err != nil {
		return err
	}
	defer t.destroy()
	if t.fingerprint != active.fingerprint {
		return &vault.Error{Op: vault.OpGet, Key: to, Kind: vault.ErrUnsupportedKey, Detail: "its public key is another than a moment ago"}
	}
	if err := r.claim(b); err != nil {
		return err
	}
	m.header.generation++
	m.header.wrapped = t.wrapped
	d, err := sealStored(m.header, b, &t.secret)
	if err != nil {
		return err
	}
	if err := r.swapAlone(ctx, &d, b); err != nil {
		return err
	}
	m.rel.Generation = m.header.generation
	r.emit(Event{Kind: KEKChanged, Key: to, Detail: fmt.Sprintf("relocated: its public key is that of %s, which it takes the place of", active.key)})
	return nil
}
