// Package testkeys has key pairs for tests, which protect nothing: making a pair takes up to
// a second, reading one a millisecond.
package testkeys

import (
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"fmt"
	"sync"
)

//go:embed testkeys.pem
var all string

// PEM returns the text of all pairs, each PKCS #1.
func PEM() []byte { return []byte(all) }

// Pairs returns the pairs, RSA of 2048 bits, always in the same order. They are not to be
// changed.
var Pairs = sync.OnceValues(func() (keys []*rsa.PrivateKey, err error) {
	for rest := PEM(); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return keys, nil
		}
		k, err := x509.ParsePKCS1PrivateKey(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("testkeys.pem: %w", err)
		}
		keys = append(keys, k)
	}
})
