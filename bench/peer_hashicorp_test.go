package bench

import (
	"context"
	"testing"

	wrapping "github.com/hashicorp/go-kms-wrapping/v2"
	"github.com/hashicorp/go-kms-wrapping/wrappers/aead/v2"
)

// hashicorpEnvelope is go-kms-wrapping's envelope: EnvelopeEncrypt seals with AES-256-GCM
// under a fresh key and returns the key, which a wrapper then encrypts; every wrapper of
// that module for a KMS works so. The wrapper here is the module's own for a key in memory.
// Its API takes no memory for results.
type hashicorpEnvelope struct {
	*aead.Wrapper
	env *wrapping.EnvelopeInfo
	key *wrapping.BlobInfo
}

func newHashicorp(b testing.TB) *hashicorpEnvelope {
	w := aead.NewWrapper()
	if err := w.SetAesGcmKeyBytes(random(32)); err != nil {
		b.Fatal(err)
	}
	return &hashicorpEnvelope{Wrapper: w}
}

func (e *hashicorpEnvelope) seal(data []byte) (err error) {
	if e.env, err = wrapping.EnvelopeEncrypt(data, wrapping.WithAad([]byte(aad))); err != nil {
		return err
	}
	e.key, err = e.Encrypt(context.Background(), e.env.Key, wrapping.WithAad([]byte(aad)))
	e.env.Key = nil
	return err
}

func (e *hashicorpEnvelope) open() ([]byte, error) {
	key, err := e.Decrypt(context.Background(), e.key, wrapping.WithAad([]byte(aad)))
	if err != nil {
		return nil, err
	}
	return wrapping.EnvelopeDecrypt(&wrapping.EnvelopeInfo{Ciphertext: e.env.Ciphertext, Key: key, Iv: e.env.Iv}, wrapping.WithAad([]byte(aad)))
}

func (e *hashicorpEnvelope) alter() { e.env.Ciphertext[0] ^= 1 }
