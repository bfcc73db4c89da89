package bench

import (
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// tinkEnvelope is Tink's KMSEnvelopeAEAD with DEKs for AES-256-GCM. In the place of a KMS
// is Tink's own AES-256-GCM with a key in memory, so that no network is in the figures.
// The wrapped DEK stands in front of the ciphertext. Its API takes no memory for results.
type tinkEnvelope struct {
	*aead.KMSEnvelopeAEAD
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
	return &tinkEnvelope{KMSEnvelopeAEAD: aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), local)}
}

func (e *tinkEnvelope) seal(data []byte) (err error) {
	e.sealed, err = e.Encrypt(data, []byte(aad))
	return err
}

func (e *tinkEnvelope) open() ([]byte, error) { return e.Decrypt(e.sealed, []byte(aad)) }

func (e *tinkEnvelope) alter() { e.sealed[len(e.sealed)-1] ^= 1 }
