package bench

import (
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
)

const (
	nonceSize   = 12
	storeIDSize = 16
	recordHead  = keyring.RecordSize - dek.WrappedSize // of a record, in clear
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
	epoch        cipher.AEAD
	aad, wrapAAD []byte
	key          [dek.Size + nonceSize]byte // and the nonce of the wrap and of the block, drawn at once
	wrapped      []byte
	began        time.Time
	block        [blockSize]byte
	gcm          [gcmSize]byte
}

func newPromised(epochKey []byte) *promised {
	return &promised{epoch: plainGCM(epochKey), aad: []byte(aad), wrapAAD: make([]byte, recordHead+storeIDSize+len(aad)),
		wrapped: make([]byte, 0, dek.WrappedSize), began: time.Now()}
}

// plainGCM is the standard library's AES-256-GCM with nonces that are given.
func plainGCM(key []byte) cipher.AEAD { return setUp(key, cipher.NewGCM) }

// newKey draws the key of one block and leaves it wrapped in p.wrapped.
func (p *promised) newKey() error {
	if err := p.checkLease(); err != nil {
		return err
	}
	rand.Read(p.key[:])
	key, nonce := p.key[:dek.Size], p.key[dek.Size:]
	p.wrapped = p.epoch.Seal(append(p.wrapped[:0], nonce...), nonce, key, p.wrapAAD)
	return nil
}

// seal appends the block that newKey was called for, sealed, to dst.
func (p *promised) seal(dst, data []byte) []byte {
	nonce := p.key[dek.Size:]
	dst = plainGCM(p.key[:dek.Size]).Seal(append(dst, nonce...), nonce, data, p.aad)
	p.erase()
	return dst
}

// open appends a block to dst.
func (p *promised) open(dst, wrapped, sealed []byte) ([]byte, error) {
	if err := p.checkLease(); err != nil {
		return nil, err
	}
	if _, err := p.epoch.Open(p.key[:0], wrapped[:nonceSize], wrapped[nonceSize:], p.wrapAAD); err != nil {
		return nil, err
	}
	dst, err := plainGCM(p.key[:dek.Size]).Open(dst, sealed[:nonceSize], sealed[nonceSize:], p.aad)
	p.erase()
	return dst, err
}

func (p *promised) checkLease() error {
	if time.Since(p.began) > lease {
		return errors.New("the lease is over")
	}
	return nil
}

func (p *promised) erase() {
	clear(p.key[:])
	clear(p.block[:])
	clear(p.gcm[:])
}
