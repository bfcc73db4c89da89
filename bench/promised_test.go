package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"testing"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
)

// promised is the floor with the least that blockseal's promises take beyond it, and
// nothing around that: the block's key is wrapped under another key or unwrapped, the time
// is looked at for the lease, and what the key was expanded to is overwritten, of which
// there are 488 and 760 bytes in Go 1.26. It is what blockseal could come down to, and no
// scheme: it cannot lock, keeps no count and belongs to one goroutine.
type promised struct {
	epoch           cipher.AEAD
	aad, wrapAAD    []byte
	key             [32 + 12]byte // and the nonce of the wrap and of the block, drawn at once
	wrapped, sealed []byte
	plaintext       []byte
	began           time.Time
	expanded        [488 + 760]byte
}

// lease is one that no benchmark outlives.
const lease = 24 * time.Hour

func newPromised(b testing.TB, size int) *promised {
	return &promised{epoch: plainGCM(b, random(32)), aad: []byte(aad), wrapAAD: random(keyring.RecordSize - 60 + 16 + len(aad)),
		wrapped: make([]byte, 0, 60), sealed: make([]byte, 0, size+dek.Overhead), plaintext: make([]byte, 0, size), began: time.Now()}
}

// plainGCM is the standard library's AES-256-GCM with nonces that are given.
func plainGCM(b testing.TB, key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return aead
}

func (p *promised) seal(b testing.TB, data []byte) {
	if time.Since(p.began) > lease {
		b.Fatal("the lease is over")
	}
	rand.Read(p.key[:])
	nonce := p.key[32:]
	p.wrapped = p.epoch.Seal(append(p.wrapped[:0], nonce...), nonce, p.key[:32], p.wrapAAD)
	p.sealed = plainGCM(b, p.key[:32]).Seal(append(p.sealed[:0], nonce...), nonce, data, p.aad)
	p.erase()
}

func (p *promised) open(b testing.TB) (err error) {
	if time.Since(p.began) > lease {
		b.Fatal("the lease is over")
	}
	if _, err := p.epoch.Open(p.key[:0], p.wrapped[:12], p.wrapped[12:], p.wrapAAD); err != nil {
		return err
	}
	p.plaintext, err = plainGCM(b, p.key[:32]).Open(p.plaintext[:0], p.sealed[:12], p.sealed[12:], p.aad)
	p.erase()
	return err
}

func (p *promised) erase() {
	clear(p.key[:])
	clear(p.expanded[:488])
	clear(p.expanded[488:])
}
