package block

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// publicKey tells one KEK from another: the SHA-256 of its public key. Versions, names and
// vaults are addresses, under which the same key can be imported or restored, and destroying
// one of them destroys nothing while there is another. The zero publicKey is one that is
// not known.
type publicKey [sha256.Size]byte

// String returns 64 hexadecimal digits, or nothing if it is not known.
func (p publicKey) String() string {
	if p == (publicKey{}) {
		return ""
	}
	return hex.EncodeToString(p[:])
}

type publicKeys map[vault.KeyID]publicKey

// publicKeys returns those of all versions that the store knows: that its keyring
// document names, and that wrapped one before.
func (p pastKEKs) publicKeys(now map[vault.KeyID][sha256.Size]byte) publicKeys {
	out := publicKeys{}
	for _, k := range p.keks {
		out[k.id] = k.public
	}
	for id, public := range now {
		out[id] = public
	}
	return out
}

// same returns the other versions that are the same key as id, sorted.
func (p publicKeys) same(id vault.KeyID) (out []vault.KeyID) {
	for other := range maps.Keys(p) {
		if other != id && p[other] == p[id] && p[id] != (publicKey{}) {
			out = append(out, other)
		}
	}
	slices.SortFunc(out, func(a, b vault.KeyID) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

// uses returns what was found of the versions' use, sorted, with which of them are the
// same key.
func (p publicKeys) uses(found map[vault.KeyID]*KeyUse) (out []KeyUse) {
	for _, u := range found {
		u.PublicKey, u.SameAs = p[u.Key].String(), p.same(u.Key)
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b KeyUse) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return out
}

// tell says of the keys of a receipt which key each is. A version that is gone while
// another that is the same key is not, is not gone: what it wrapped opens with the other.
func (p publicKeys) tell(keys []ReceiptKey) {
	states := map[publicKey][]KeyState{}
	for _, k := range keys {
		states[p[k.KeyID]] = append(states[p[k.KeyID]], k.State)
	}
	for i := range keys {
		k := &keys[i]
		public := p[k.KeyID]
		k.PublicKey = public.String()
		if k.State != KeyNotFound || public == (publicKey{}) {
			continue
		}
		switch others := states[public]; {
		case slices.Contains(others, KeyExists):
			k.State = KeyElsewhere
		case slices.Contains(others, KeyUnknown):
			k.State = KeyUnknown
		}
	}
}
