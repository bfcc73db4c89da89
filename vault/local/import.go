package local

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// maxImport is the largest file to import in bytes. A key with a chain of
// certificates has a few tens of thousands.
const maxImport = 1 << 20

// opensslRSA is what to do about a key of the wrong kind.
const opensslRSA = `make one with "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"`

// ImportFile is [Administrator.ImportKey] with a file of any kind that can be
// imported, told apart by its content: PEM (see [ParsePEM]), PKCS#12 (see
// [ParsePFX]) or a key transfer blob (see [Administrator.ImportBYOK]). The password
// is used only if the file is encrypted with one; the caller clears it and the file.
//
// A file that is refused changes nothing. The error is as the function for its kind
// says, and a [vault.Error] as that of every operation on a key.
func (a *Administrator) ImportFile(ctx context.Context, name string, data, password []byte, opts *KeyOptions) (vault.Key, error) {
	var key *rsa.PrivateKey
	var err error
	switch importFormatOf(data) {
	case formatPEM:
		key, err = parsePEM(data, password)
	case formatPFX:
		key, err = parsePFX(data, string(password))
	case formatBYOK:
		return a.ImportBYOK(ctx, name, data, opts)
	case formatDER:
		err = fmt.Errorf(`it looks like a key in DER: convert it with "openssl pkey -inform DER -in FILE -out FILE.pem": %w`, ErrInvalid)
	default:
		if err = checkImportSize(data); err == nil {
			err = fmt.Errorf("it is no file that can be imported: want PEM, PKCS#12 (.pfx) or a key transfer blob (.byok): %w", ErrInvalid)
		}
	}
	if err != nil {
		return vault.Key{}, a.refuseFile(name, err)
	}
	return a.ImportKey(ctx, name, key, opts)
}

// refuseFile returns err, of the functions that parse, as that of an operation.
func (a *Administrator) refuseFile(name string, err error) error {
	e := &vault.Error{Op: OpImport, Key: vault.KeyID{Vault: a.core.name, Name: name}, Kind: ErrInvalid}
	for _, kind := range []error{vault.ErrUnsupportedKey, vault.ErrBadCiphertext, ErrWrongPassword, ErrCorrupt, ErrFIPS} {
		if errors.Is(err, kind) {
			e.Kind = kind
			break
		}
	}
	// The text ends with the kind's, which stands in front of it now.
	e.Detail = strings.TrimSuffix(err.Error(), ": "+e.Kind.Error())
	return e
}

// importFormat is a kind of file to import.
type importFormat int

const (
	formatUnknown importFormat = iota
	formatPEM
	formatPFX
	formatBYOK
	formatDER
)

// importFormatOf recognises the format of a file by its first bytes, whole or not.
func importFormatOf(data []byte) importFormat {
	trimmed := bytes.TrimSpace(data)
	switch {
	case bytes.HasPrefix(trimmed, []byte("{")):
		return formatBYOK
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return formatPEM
	case len(data) < 2 || data[0] != 0x30: // SEQUENCE, of PKCS#1, PKCS#8 and PKCS#12
		return formatUnknown
	}
	body := data[2:]
	if long := int(data[1]) - 0x80; long > 0 {
		body = body[min(long, len(body)):]
	}
	if bytes.HasPrefix(body, []byte{2, 1, 3}) { // INTEGER 3: PFX's version; a key's is 0 or 1
		return formatPFX
	}
	return formatDER
}

func checkImportSize(data []byte) error {
	switch {
	case len(data) == 0:
		return fmt.Errorf("the file is empty: %w", ErrCorrupt)
	case len(data) > maxImport:
		return fmt.Errorf("the file has %d bytes, a key file has at most %d: %w", len(data), maxImport, ErrInvalid)
	}
	return nil
}

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

// admitPrivate says whether key may be imported: what [Administrator.ImportKey]
// asks of every key, and that its factors are primes, which crypto/rsa takes on
// trust. With primes, what it does check leaves no other inconsistency.
func admitPrivate(key *rsa.PrivateKey) error {
	if err := admitNumbers(key.N, big.NewInt(int64(key.E))); err != nil {
		return err
	}
	if err := checkPrivate(key); err != nil {
		return err
	}
	for _, p := range key.Primes {
		if !p.ProbablyPrime(20) {
			return refuseNumbers()
		}
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
	case n.BitLen() != keyBits:
		return refuse("modulus has %d bits, want exactly %d", n.BitLen(), keyBits)
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
