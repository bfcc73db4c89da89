package bench

import (
	"crypto/cipher"
	"crypto/rand"
	"testing"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
)

const (
	nonceSize   = 12
	storeIDSize = 16
	// What the standard library expands a key to, in bytes: an AES block cipher and a GCM
	// (Go 1.26).
	blockSize, gcmSize = 488, 760
	// lease is one that no benchmark outlives.
	lease = 24 * time.Hour
)

// promised is the floor with the least that blockseal's promises take beyond it, and
// nothing around that: the block's key is wrapped under another key or unwrapped, the time
// is looked at for the lease, and as much is overwritten as the key was expanded to. It is
// what blockseal could come down to, and no scheme: it cannot lock, keeps no count and
// belongs to one goroutine.
type promised struct {
	epoch           cipher.AEAD
	aad, wrapAAD    []byte
	key             [dek.Size + nonceSize]byte // and the nonce of the wrap and of the block, drawn at once
	wrapped, sealed []byte
	plaintext       []byte
	began           time.Time
	block           [blockSize]byte
	gcm             [gcmSize]byte
}

func newPromised(b testing.TB, size int) *promised {
	const head = keyring.RecordSize - dek.WrappedSize // of a record, in clear
	return &promised{epoch: plainGCM(b, random(dek.Size)), aad: []byte(aad), wrapAAD: random(head + storeIDSize + len(aad)),
		wrapped: make([]byte, 0, dek.WrappedSize), sealed: make([]byte, 0, size+dek.Overhead), plaintext: make([]byte, 0, size), began: time.Now()}
}

// plainGCM is the standard library's AES-256-GCM with nonces that are given.
func plainGCM(b testing.TB, key []byte) cipher.AEAD { return setUp(b, key, cipher.NewGCM) }

func (p *promised) seal(b testing.TB, data []byte) {
	p.checkLease(b)
	rand.Read(p.key[:])
	key, nonce := p.key[:dek.Size], p.key[dek.Size:]
	p.wrapped = p.epoch.Seal(append(p.wrapped[:0], nonce...), nonce, key, p.wrapAAD)
	p.sealed = plainGCM(b, key).Seal(append(p.sealed[:0], nonce...), nonce, data, p.aad)
	p.erase()
}

func (p *promised) open(b testing.TB) (err error) {
	p.checkLease(b)
	if _, err := p.epoch.Open(p.key[:0], p.wrapped[:nonceSize], p.wrapped[nonceSize:], p.wrapAAD); err != nil {
		return err
	}
	p.plaintext, err = plainGCM(b, p.key[:dek.Size]).Open(p.plaintext[:0], p.sealed[:nonceSize], p.sealed[nonceSize:], p.aad)
	p.erase()
	return err
}

func (p *promised) checkLease(b testing.TB) {
	if time.Since(p.began) > lease {
		b.Fatal("the lease is over")
	}
}

func (p *promised) erase() {
	clear(p.key[:])
	clear(p.block[:])
	clear(p.gcm[:])
}
