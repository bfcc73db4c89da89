package vaulttest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/blockseal/blockseal/internal/test/testkeys"
)

// keyPool hands out RSA-2048 key pairs, no two alike: first those of
// testkeys, then new ones, which take up to a second each.
type keyPool struct {
	rest []byte // PEM not handed out yet
}

func newKeyPool() *keyPool { return &keyPool{rest: testkeys.PEM()} }

// next is not safe for concurrent use.
func (p *keyPool) next() *rsa.PrivateKey {
	block, rest := pem.Decode(p.rest)
	p.rest = rest
	if block == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(fmt.Sprintf("vaulttest: generate an RSA-2048 key: %v", err))
		}
		return key
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		panic(fmt.Sprintf("vaulttest: the key pairs for tests: %v", err))
	}
	return key
}

// testKey returns the first pair of the pool.
func testKey() *rsa.PrivateKey { return newKeyPool().next() }
