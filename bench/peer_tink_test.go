package bench

import (
	"encoding/binary"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// tinkEnvelope is the KMSEnvelopeAEAD of tink-go v2.9.0 with DEKs for AES-256-GCM. In the
// place of a KMS is Tink's own AES-256-GCM with a key in memory, so that no network is in
// the figures. Its newer constructor, with a context for the KMS, does the same work. The
// wrapped DEK stands in front of the ciphertext and, unlike a keyring's, is not bound to
// the AAD, which the block alone is. Its API takes no memory for results.
type tinkEnvelope struct {
	*aead.KMSEnvelopeAEAD
	aad    []byte
	sealed []byte
}

func newTink(b testing.TB) *tinkEnvelope {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		b.Fatal(err)
	}
	var local tink.AEAD
	if local, err = aead.New(handle); err != nil {
		b.Fatal(err)
	}
	return &tinkEnvelope{KMSEnvelopeAEAD: aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), local), aad: []byte(aad)}
}

func (e *tinkEnvelope) seal(data []byte) (err error) {
	e.sealed, err = e.Encrypt(data, e.aad)
	return err
}

func (e *tinkEnvelope) open() ([]byte, error) { return e.Decrypt(e.sealed, e.aad) }

func (e *tinkEnvelope) alter() { e.sealed[len(e.sealed)-1] ^= 1 }

// alterKey changes a byte of the wrapped DEK, which follows its length in 4 bytes.
func (e *tinkEnvelope) alterKey() { e.sealed[4+binary.BigEndian.Uint32(e.sealed)/2] ^= 1 }
