package keyring

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/secret"
)

// secretSize is the size of a document's secret: the AES-256 key of its body,
// and what the KEK wraps.
const secretSize = dek.Size

// sealBody returns the body sealed under the document's secret with aad, the
// encoded header. A secret seals the documents between two KEK rotations, a few
// thousand at the very most, each with a random 96-bit nonce: far from the 2^32
// of NIST SP 800-38D, section 8.3.
func sealBody(b *body, docSecret *[secretSize]byte, aad []byte) (sealed []byte, err error) {
	sealed = make([]byte, 0, fixedBody+epochEntry*len(b.epochs)+dek.Overhead)
	secret.Do(func() {
		plain := b.encode()
		defer clear(plain)
		aead, e := dek.NewAEAD(docSecret[:])
		if e != nil {
			err = e
			return
		}
		defer aead.Destroy()
		sealed = aead.Seal(sealed, plain, aad)
	})
	return sealed, err
}

// openBody opens a sealed body. Its callers keep it only as long as they need it,
// and destroy it.
func openBody(sealed []byte, docSecret *[secretSize]byte, aad []byte) (b *body, err error) {
	secret.Do(func() { b, err = openBodyPlainly(sealed, docSecret, aad) })
	return b, err
}

func openBodyPlainly(sealed []byte, docSecret *[secretSize]byte, aad []byte) (*body, error) {
	aead, err := dek.NewAEAD(docSecret[:])
	if err != nil {
		return nil, err
	}
	defer aead.Destroy()
	plain, err := aead.Open(nil, sealed, aad)
	if err != nil {
		return nil, corrupt("the document does not authenticate under the secret that the KEK unwrapped: " +
			"its header or body was altered, or it was forged")
	}
	defer clear(plain)
	return decodeBody(plain)
}

// newBody returns the body of a new keyring: a store secret and one epoch.
func newBody(p policy, now time.Time) *body {
	b := &body{policy: p, nextEpoch: 1, nextKEK: 1}
	rand.Read(b.storeSecret[:])
	b.addEpoch(now)
	return b
}

// addEpoch appends a fresh epoch, which becomes the current one.
func (b *body) addEpoch(now time.Time) {
	// Not append: growing would leave the old array behind with its keys.
	secret.Do(func() {
		grown := make([]epochKey, len(b.epochs)+1)
		copy(grown, b.epochs)
		for i := range b.epochs {
			clear(b.epochs[i].key[:])
		}
		rand.Read(grown[len(b.epochs)].key[:])
		b.epochs = grown
	})
	e := b.current()
	e.id, e.created = b.nextEpoch, now.UTC().Truncate(time.Second)
	b.nextEpoch++
}

// fingerprint names the keyring to the outside: a hash of the store secret, which
// is 256 random bits, so that the hash gives nothing away, and which nobody who
// cannot open a document of this store can put into another.
func (b *body) fingerprint() string {
	h := sha256.New()
	h.Write([]byte("blockseal fingerprint v1"))
	h.Write(b.storeSecret[:])
	return hex.EncodeToString(h.Sum(nil))
}

// randomSecret fills b with a fresh document secret.
func randomSecret(b *[secretSize]byte) { rand.Read(b[:]) }
