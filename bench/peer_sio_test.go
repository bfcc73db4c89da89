package bench

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"io"
	"testing"

	"github.com/minio/sio"
)

// sioEnvelope is MinIO's DARE 2.0 format with AES-256-GCM under a fresh key, which
// AES-256-GCM of the standard library wraps, as MinIO's server does with object keys. The
// format has no AAD: it is bound to the wrapped key alone. Results go into memory that is
// used again.
type sioEnvelope struct {
	wrap            cipher.AEAD
	key             [32]byte
	aad             []byte
	record, record2 []byte
	sealed          []byte
	plaintext       []byte
}

func newSIO(b testing.TB, size int) *sioEnvelope {
	return &sioEnvelope{wrap: gcm(b, random(32)), aad: []byte(aad), sealed: make([]byte, 0, 2*size+1024), plaintext: make([]byte, 0, size)}
}

func (e *sioEnvelope) config(key []byte) sio.Config {
	return sio.Config{MinVersion: sio.Version20, MaxVersion: sio.Version20, CipherSuites: []byte{sio.AES_256_GCM}, Key: key}
}

func (e *sioEnvelope) seal(data []byte) error {
	rand.Read(e.key[:])
	e.record = e.wrap.Seal(e.record[:0], nil, e.key[:], e.aad)
	// EncryptReader into memory that is there: sio.Encrypt takes a buffer of 64 KiB each
	// time, for a stream whose length it does not know.
	r, err := sio.EncryptReader(bytes.NewReader(data), e.config(e.key[:]))
	if err != nil {
		return err
	}
	size, err := sio.EncryptedSize(uint64(len(data)))
	if err != nil {
		return err
	}
	e.sealed = e.sealed[:size]
	_, err = io.ReadFull(r, e.sealed)
	return err
}

func (e *sioEnvelope) open() (_ []byte, err error) {
	if e.record2, err = e.wrap.Open(e.record2[:0], nil, e.record, e.aad); err != nil {
		return nil, err
	}
	e.plaintext, err = sio.DecryptBuffer(e.plaintext[:0], e.sealed, e.config(e.record2))
	return e.plaintext, err
}

func (e *sioEnvelope) alter() { e.sealed[len(e.sealed)/2] ^= 1 }
