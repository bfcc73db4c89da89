// Package testkeys reads the public key pairs of vault/vaulttest for tests of other packages:
// making a pair takes up to a second.
package testkeys

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// Pairs returns the pairs, RSA of 2048 bits, always in the same order. They are not to be
// changed.
var Pairs = sync.OnceValues(func() (keys []*rsa.PrivateKey, err error) {
	_, here, _, _ := runtime.Caller(0)
	rest, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../../vault/vaulttest/testkeys.pem"))
	for err == nil {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		var k *rsa.PrivateKey
		if k, err = x509.ParsePKCS1PrivateKey(b.Bytes); err == nil {
			keys = append(keys, k)
		}
	}
	return keys, err
})
