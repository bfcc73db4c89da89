package keyring

import (
	"crypto/hmac"
	"crypto/sha256"
)

// TagSize is the size in bytes of what Tag returns.
const TagSize = sha256.Size

// Tag authenticates bytes that a database keeps beside its records and must not
// believe from whoever can write the disk, such as how far a rotation has come. It is
// HMAC-SHA-256 under a key that only those can know who opened a document of this
// keyring, the same for all its epochs, KEKs and copies:
//
//	HMAC(HMAC(store secret, "blockseal tag v1 " | purpose), data)
//
// What somebody tagged before stays authentic: what must be fresh says so in data.
// Compare tags with [crypto/hmac.Equal].
func (h *Hold) Tag(purpose string, data []byte) (tag [TagSize]byte, err error) {
	r := h.r
	r.docMu.Lock()
	defer r.docMu.Unlock()
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return tag, err
	}
	defer b.destroy()
	key := hmac.New(sha256.New, b.storeSecret[:])
	key.Write([]byte("blockseal tag v1 " + purpose))
	k := key.Sum(nil)
	defer clear(k)
	mac := hmac.New(sha256.New, k)
	mac.Write(data)
	mac.Sum(tag[:0])
	return tag, nil
}
