package keyfile

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/blockseal/blockseal/vault"
)

// opensslRSA is what to do about a key of the wrong kind.
const opensslRSA = `make one with "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"`

// Object identifiers of the keys that people try to import.
var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidRSAPSS  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// privateKeyInfo is PKCS#8's (RFC 5208, section 5) without its attributes, which
// encoding/asn1 passes over.
type privateKeyInfo struct {
	Version    int
	Algorithm  pkix.AlgorithmIdentifier
	PrivateKey []byte
}

// parsePKCS8 parses the outer layer of an unencrypted PKCS#8 key.
func parsePKCS8(der []byte) (privateKeyInfo, error) {
	var info privateKeyInfo
	if err := unmarshalWhole(der, &info); err != nil {
		return privateKeyInfo{}, err
	}
	return info, nil
}

// clear overwrites the key. The info is a copy of what it was parsed from.
func (p *privateKeyInfo) clear() { clear(p.PrivateKey) }

// rsa returns the key within, if it is an admissible RSA key.
func (p *privateKeyInfo) rsa() (*rsa.PrivateKey, error) {
	switch oid := p.Algorithm.Algorithm; {
	case oid.Equal(oidRSA):
		return parsePKCS1(p.PrivateKey)
	case oid.Equal(oidRSAPSS):
		return nil, refuseKind("an RSA-PSS key, which may sign only")
	case oid.Equal(oidEC):
		return nil, refuseKind("an EC key")
	case oid.Equal(oidEd25519):
		return nil, refuseKind("an Ed25519 key")
	default:
		return nil, refuseKind("a key of the algorithm with the object identifier " + oid.String())
	}
}

func refuseKind(what string) error {
	return fmt.Errorf("it is %s, not an RSA key: %s: %w", what, opensslRSA, vault.ErrUnsupportedKey)
}

// parsePKCS1 parses an RSAPrivateKey (RFC 8017, appendix A.1.2). Size and exponent
// are looked at first: what crypto/x509 says about those depends on its version
// and on GODEBUG.
func parsePKCS1(der []byte) (*rsa.PrivateKey, error) {
	var public struct {
		Version int
		N, E    *big.Int
	} // encoding/asn1 passes over the rest
	if err := unmarshalWhole(der, &public); err != nil {
		return nil, fmt.Errorf("its RSA private key: %w", err)
	}
	if err := admitNumbers(public.N, public.E); err != nil {
		return nil, err
	}
	if public.Version != 0 {
		return nil, refuseThreePrimes()
	}
	key, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		// Its text is left out: it may describe what it found.
		return nil, refuseNumbers()
	}
	return admitParsed(key)
}

// admitPrivate says whether key may be imported. What CheckPrivate says of the numbers
// in a file is said as what to do about the file.
func admitPrivate(key *rsa.PrivateKey) error {
	if err := admitNumbers(key.N, big.NewInt(int64(key.E))); err != nil {
		return err
	}
	switch {
	case len(key.Primes) != 2:
		return CheckPrivate(key)
	case CheckPrivate(key) != nil:
		return refuseNumbers()
	}
	return nil
}

// admitNumbers checks what FIPS 186-5, appendix A.1.1, says of an exponent, and
// the one size that a vault holds.
func admitNumbers(n, e *big.Int) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("its "+format+": %s: %w", append(args, opensslRSA, vault.ErrUnsupportedKey)...)
	}
	switch {
	case n.Sign() <= 0 || n.Bit(0) == 0:
		return refuseNumbers()
	case n.BitLen() != KeyBits:
		return refuse("modulus has %d bits, want exactly %d", n.BitLen(), KeyBits)
	case e.Sign() <= 0 || e.BitLen() < 17:
		return refuse("public exponent is %d, want at least 65537", e)
	case e.Bit(0) == 0:
		return refuse("public exponent is even")
	case e.BitLen() > 31:
		return refuse("public exponent has %d bits, Go takes at most 31", e.BitLen())
	}
	return nil
}

func refuseThreePrimes() error {
	return fmt.Errorf("its modulus has more than two prime factors: %s: %w", opensslRSA, vault.ErrUnsupportedKey)
}

func refuseNumbers() error {
	return fmt.Errorf("its numbers do not make up an RSA key: check it with \"openssl pkey -check\": %w", vault.ErrUnsupportedKey)
}

// admitParsed is admitPrivate for what a parser of many kinds of keys returned.
func admitParsed(key any) (*rsa.PrivateKey, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if err := admitPrivate(key); err != nil {
			return nil, err
		}
		return key, nil
	case *ecdsa.PrivateKey, *ecdh.PrivateKey:
		return nil, refuseKind("an EC key")
	case ed25519.PrivateKey:
		return nil, refuseKind("an Ed25519 key")
	default:
		return nil, refuseKind("a key of another kind")
	}
}

// unmarshalWhole parses der, which must be one DER element and nothing more. Its
// error does not repeat encoding/asn1's, which describes bytes that may be a key's.
func unmarshalWhole(der []byte, into any) error {
	if err := checkWhole(der); err != nil {
		return err
	}
	if _, err := asn1.Unmarshal(der, into); err != nil {
		return fmt.Errorf("its DER is not what this kind of file holds: %w", ErrCorrupt)
	}
	return nil
}

// checkWhole tells a file that was cut or lengthened.
func checkWhole(der []byte) error {
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	switch {
	case err != nil:
		return fmt.Errorf("it is truncated, or is not DER: %w", ErrCorrupt)
	case len(rest) > 0:
		return fmt.Errorf("there are %d bytes after its end: %w", len(rest), ErrCorrupt)
	}
	return nil
}
