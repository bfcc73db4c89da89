package register

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/blockseal/blockseal/vault"
)

// PublicKey tells one KEK from another: the SHA-256 of its public key. Versions, names and
// vaults are addresses, under which the same key can be imported or restored, and destroying
// one of them destroys nothing while there is another. The zero PublicKey is one that is
// not known.
type PublicKey [sha256.Size]byte

// String returns 64 hexadecimal digits, or nothing if it is not known.
func (p PublicKey) String() string {
	if p == (PublicKey{}) {
		return ""
	}
	return hex.EncodeToString(p[:])
}

// PublicKeys are those of KEK versions.
type PublicKeys map[vault.KeyID]PublicKey

// PublicKeys returns those of all versions that the store knows: that its keyring
// document names, and that wrapped one before.
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
