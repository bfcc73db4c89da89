package bench

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"io"
	"testing"

	"github.com/minio/sio"
)

// sioEnvelope is MinIO's sio v0.4.1: DARE 2.0 with AES-256-GCM under a fresh key, which
// AES-256-GCM of the standard library wraps, as MinIO's server does with object keys. The
// format has no AAD: it is bound to the wrapped key alone, and the wrap has the AAD.
// Results go into memory that is used again.
type sioEnvelope struct {
	wrap            cipher.AEAD
	key             [32]byte
	aad             []byte
	record, record2 []byte
	sealed          []byte
	plaintext       []byte
	src             bytes.Reader
	end             [1]byte
}

func newSIO(b testing.TB, size int) *sioEnvelope {
	return &sioEnvelope{wrap: gcm(random(32)), aad: []byte(aad), sealed: make([]byte, 0, 2*size+1024), plaintext: make([]byte, 0, size)}
}

func (e *sioEnvelope) config(key []byte) sio.Config {
	return sio.Config{MinVersion: sio.Version20, MaxVersion: sio.Version20, CipherSuites: []byte{sio.AES_256_GCM}, Key: key}
}

func (e *sioEnvelope) seal(data []byte) error {
	rand.Read(e.key[:])
	e.record = e.wrap.Seal(e.record[:0], nil, e.key[:], e.aad)
	// EncryptReader into memory that is there: sio.Encrypt takes a buffer of 64 KiB each
	// time, for a stream whose length it does not know.
	e.src.Reset(data)
	r, err := sio.EncryptReader(&e.src, e.config(e.key[:]))
	if err != nil {
		return err
	}
	size, err := sio.EncryptedSize(uint64(len(data)))
	if err != nil {
		return err
	}
	e.sealed = e.sealed[:size]
	if _, err = io.ReadFull(r, e.sealed); err != nil {
		return err
	}
	// To the end: only there the reader gives its own 64 KiB back for the next one, which
	// would else be allocated for each block and cost several times the sealing.
	if n, err := r.Read(e.end[:]); n != 0 || err != io.EOF {
		return fmt.Errorf("sio: not at the end after %d bytes: %v", size, err)
	}
	return nil
}

func (e *sioEnvelope) open() (_ []byte, err error) {
	if e.record2, err = e.wrap.Open(e.record2[:0], nil, e.record, e.aad); err != nil {
		return nil, err
	}
	e.plaintext, err = sio.DecryptBuffer(e.plaintext[:0], e.sealed, e.config(e.record2))
	return e.plaintext, err
}

func (e *sioEnvelope) alter() { e.sealed[len(e.sealed)/2] ^= 1 }

func (e *sioEnvelope) alterKey() { e.record[len(e.record)/2] ^= 1 }
