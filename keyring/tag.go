package keyring

import (
	"github.com/blockseal/blockseal/internal/inner"
)

// Tag authenticates bytes that a database keeps beside its records and must not
// believe from whoever can write the disk, such as how far a rotation has come. It is
// HMAC-SHA-256 under a key that only those can know who opened a document of this
// keyring, the same for all its epochs, KEKs and copies:
//
//	HMAC(HMAC(store secret, "blockseal tag v1 " | purpose), data)
//
// What somebody tagged before stays authentic: what must be fresh says so in data.
// Compare tags with [crypto/hmac.Equal].
func (f *holdForBlock) Tag(purpose string, data []byte) (tag [inner.TagSize]byte, err error) {
	h := (*Hold)(f)
	t, err := h.For(inner.Block{}).Tagger(purpose)
	if err != nil {
		return tag, err
	}
	defer t.Destroy()
	return t.Tag(data), nil
}

// Tagger returns what tags for a purpose.
func (f *holdForBlock) Tagger(purpose string) (*inner.Tagger, error) {
	h := (*Hold)(f)
	r := h.r
	r.docMu.Lock()
	defer r.docMu.Unlock()
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return nil, err
	}
	defer b.destroy()
	return b.tagger(purpose), nil
}

func (b *body) tagger(purpose string) *inner.Tagger {
	return inner.NewTagger(b.storeSecret[:], purpose)
}

func (b *body) tag(purpose string, data []byte) [inner.TagSize]byte {
	t := b.tagger(purpose)
	defer t.Destroy()
	return t.Tag(data)
}
