package bench

import (
	"context"
	"testing"

	wrapping "github.com/hashicorp/go-kms-wrapping/v2"
	"github.com/hashicorp/go-kms-wrapping/wrappers/aead/v2"
)

// hashicorpEnvelope is the envelope of go-kms-wrapping v2.0.18: EnvelopeEncrypt seals with
// AES-256-GCM under a fresh key and returns the key, which a wrapper then encrypts, as that
// project's wrappers for a KMS do. The wrapper here is its own for a key in memory,
// wrappers/aead v2.0.10. Its API takes no memory for results.
type hashicorpEnvelope struct {
	*aead.Wrapper
	env *wrapping.EnvelopeInfo
	key *wrapping.BlobInfo
	aad wrapping.Option
}

func newHashicorp(b testing.TB) *hashicorpEnvelope {
	w := aead.NewWrapper()
	if err := w.SetAesGcmKeyBytes(random(32)); err != nil {
		b.Fatal(err)
	}
	return &hashicorpEnvelope{Wrapper: w, aad: wrapping.WithAad([]byte(aad))}
}

func (e *hashicorpEnvelope) seal(data []byte) (err error) {
	if e.env, err = wrapping.EnvelopeEncrypt(data, e.aad); err != nil {
		return err
	}
	e.key, err = e.Encrypt(context.Background(), e.env.Key, e.aad)
	e.env.Key = nil
	return err
}

func (e *hashicorpEnvelope) open() ([]byte, error) {
	key, err := e.Decrypt(context.Background(), e.key, e.aad)
	if err != nil {
		return nil, err
	}
	return wrapping.EnvelopeDecrypt(&wrapping.EnvelopeInfo{Ciphertext: e.env.Ciphertext, Key: key, Iv: e.env.Iv}, e.aad)
}

func (e *hashicorpEnvelope) alter() { e.env.Ciphertext[0] ^= 1 }

func (e *hashicorpEnvelope) alterKey() { e.key.Ciphertext[len(e.key.Ciphertext)/2] ^= 1 }
