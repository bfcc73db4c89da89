package keyring

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
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
	t, err := h.Tagger(purpose)
	if err != nil {
		return tag, err
	}
	defer t.Destroy()
	return t.Tag(data), nil
}

// Tagger is Tag for one purpose, without a hold: for what is to be tagged after the
// keyring was closed. It opens no DEK and no document. Destroy it. A nil Tagger can be
// destroyed. It is safe for concurrent use until then.
type Tagger struct{ key [TagSize]byte }

// Tagger returns what tags for a purpose.
func (h *Hold) Tagger(purpose string) (*Tagger, error) {
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

func (b *body) tagger(purpose string) *Tagger {
	t := new(Tagger)
	mac := hmac.New(sha256.New, b.storeSecret[:])
	mac.Write([]byte("blockseal tag v1 " + purpose))
	mac.Sum(t.key[:0])
	return t
}

func (b *body) tag(purpose string, data []byte) [TagSize]byte {
	t := b.tagger(purpose)
	defer t.Destroy()
	return t.Tag(data)
}

// Tag returns what Hold.Tag does.
func (t *Tagger) Tag(data []byte) (tag [TagSize]byte) {
	mac := hmac.New(sha256.New, t.key[:])
	mac.Write(data)
	mac.Sum(tag[:0])
	return tag
}

// Destroy erases the key.
func (t *Tagger) Destroy() {
	if t != nil {
		clear(t.key[:])
	}
}

// A Tagger prints as what it is, whatever the verb, and never as its key.

const redactedTagger = "keyring.Tagger(redacted)"

func (Tagger) String() string { return redactedTagger }

func (Tagger) GoString() string { return redactedTagger }

// Format implements [fmt.Formatter], for the verbs that look at neither of the two.
func (Tagger) Format(f fmt.State, _ rune) { io.WriteString(f, redactedTagger) }

// LogValue implements [slog.LogValuer].
func (Tagger) LogValue() slog.Value { return slog.StringValue(redactedTagger) }
