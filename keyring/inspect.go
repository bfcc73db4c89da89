package keyring

import (
	"crypto/sha256"

	"github.com/blockseal/blockseal/vault"
)

// Info is what a keyring document says in clear. Without opening the document
// none of it is authenticated.
type Info struct {
	StoreID    StoreID     `json:"storeID"`
	Generation uint64      `json:"generation"`
	KEK        vault.KeyID `json:"kek"` // the version that wraps the document
	// KEKs are the KEK versions that the document, or a ByKEK record, is wrapped
	// by, under the ids that records use.
	KEKs map[uint32]vault.KeyID `json:"keks"`
	// PublicKeys are the SHA-256 of their public keys (SubjectPublicKeyInfo, DER). Two
	// versions with the same are one key, wherever they are and whatever they are called.
	PublicKeys map[vault.KeyID][sha256.Size]byte `json:"publicKeys"`
	Size       int                               `json:"size"` // of the whole document, in bytes
}

// Inspect reads the clear part of a keyring document, without any key. It matches
// [ErrCorrupt] or [ErrVersion].
func Inspect(document []byte) (Info, error) {
	h, _, _, err := splitDocument(document)
	if err != nil {
		return Info{}, err
	}
	in := Info{StoreID: h.storeID, Generation: h.generation, KEK: h.current().key,
		KEKs: map[uint32]vault.KeyID{}, PublicKeys: h.publicKeys(), Size: len(document)}
	for _, e := range h.keks {
		in.KEKs[e.id] = e.key
	}
	return in, nil
}

// KEKs returns the KEK versions that something is wrapped by, under the ids that
// ByKEK records use, and which of them wraps the document.
func (r *Keyring) KEKs() (keks map[uint32]vault.KeyID, active uint32) {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	keks = map[uint32]vault.KeyID{}
	for _, e := range r.header.keks {
		keks[e.id] = e.key
	}
	return keks, r.header.active
}

// PublicKeys returns the SHA-256 of the public keys of those versions; see
// [Info.PublicKeys].
func (f *forBlock) PublicKeys() map[vault.KeyID][sha256.Size]byte {
	r := (*Keyring)(f)
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.header.publicKeys()
}

func (h *header) publicKeys() map[vault.KeyID][sha256.Size]byte {
	out := map[vault.KeyID][sha256.Size]byte{}
	for _, e := range h.keks {
		out[e.key] = e.fingerprint
	}
	return out
}
