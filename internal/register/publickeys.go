package register

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/blockseal/blockseal/vault"
)

// PublicKey is the SHA-256 of a KEK's public key; zero: not known. It tells keys apart, where
// versions, names and vaults are addresses: one key can be imported or restored under several, and
// it is destroyed only when all of them are.
type PublicKey [sha256.Size]byte

// String returns 64 hexadecimal digits; "" if the key is not known.
func (p PublicKey) String() string {
	if p == (PublicKey{}) {
		return ""
	}
	return hex.EncodeToString(p[:])
}

// PublicKeys has the public keys of KEK versions.
type PublicKeys map[vault.KeyID]PublicKey

// PublicKeys returns the public keys of all versions that the store knows: the past ones, and those
// that its keyring document names, which now has.
func (p PastKEKs) PublicKeys(now map[vault.KeyID][sha256.Size]byte) PublicKeys {
	out := PublicKeys{}
	for _, k := range p.KEKs {
		out[k.ID] = k.Public
	}
	for id, public := range now {
		out[id] = public
	}
	return out
}

// Same returns the other versions that are the same key as id, sorted.
func (p PublicKeys) Same(id vault.KeyID) (out []vault.KeyID) {
	for other := range maps.Keys(p) {
		if other != id && p[other] == p[id] && p[id] != (PublicKey{}) {
			out = append(out, other)
		}
	}
	slices.SortFunc(out, byIdentifier)
	return out
}
