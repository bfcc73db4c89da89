package inner

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"

	"github.com/blockseal/blockseal/internal/secret"
)

// TagSize is the size in bytes of a tag.
const TagSize = sha256.Size

// Tagger tags for one purpose, without a hold: for what is to be tagged after the
// keyring was closed. It opens no DEK and no document. Destroy it. A nil Tagger can be
// destroyed. It is safe for concurrent use until then.
type Tagger struct{ key [TagSize]byte }

// NewTagger returns what tags for a purpose, under a keyring's store secret.
func NewTagger(storeSecret []byte, purpose string) *Tagger {
	t := new(Tagger)
	mac := hmac.New(sha256.New, storeSecret)
	defer secret.WipeHMAC(mac)
	mac.Write([]byte("blockseal tag v1 " + purpose))
	mac.Sum(t.key[:0])
	return t
}

// Tag returns what a hold's Tag does.
func (t *Tagger) Tag(data []byte) (tag [TagSize]byte) {
	mac := hmac.New(sha256.New, t.key[:])
	defer secret.WipeHMAC(mac)
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

const redactedTagger = "inner.Tagger(redacted)"

func (Tagger) String() string { return redactedTagger }

func (Tagger) GoString() string { return redactedTagger }

// Format implements [fmt.Formatter], for the verbs that look at neither of the two.
func (Tagger) Format(f fmt.State, _ rune) { io.WriteString(f, redactedTagger) }

// LogValue implements [slog.LogValuer].
func (Tagger) LogValue() slog.Value { return slog.StringValue(redactedTagger) }
