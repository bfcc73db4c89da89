package keyfile

import (
	"crypto/fips140"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/blockseal/blockseal/vault"
)

// ParsePFX returns the RSA-2048 private key of a PKCS#12 file (RFC 7292; .pfx or
// .p12), in the forms that OpenSSL and Windows write, new (PBES2 with AES-256,
// SHA-256) and old (3DES or RC2, SHA-1). The file holds exactly one private key; the
// certificates are passed over. Without any, the key must be encrypted in the new form,
// or be plain. The file is DER, or BER as far as the outer layer goes.
//
// The error matches what [ParsePEM] says. With GODEBUG=fips140=only it always is
// [ErrFIPS]: the derivation of PKCS#12's MAC key is in no FIPS module. The
// password is a Go string, which cannot be cleared.
func ParsePFX(data []byte, password string) (*rsa.PrivateKey, error) {
	if fips140.Enforced() {
		return nil, fmt.Errorf("PKCS#12 derives its keys in a way that FIPS 140 does not know: "+
			`convert it with "openssl pkcs12 -in FILE -nodes -out FILE.pem", or import it outside that mode: %w`, ErrFIPS)
	}
	if err := checkSize(data); err != nil {
		return nil, err
	}
	if data[0] != 0x30 {
		return nil, fmt.Errorf("it is not PKCS#12: its first byte is %#x, want 0x30: %w", data[0], ErrInvalid)
	}
	if der, err := toDER(data); err == nil {
		data = der
	}
	if err := checkWhole(data); err != nil {
		return nil, err
	}
	if err := checkIterations(data, 0); err != nil {
		return nil, err
	}
	key, _, _, err := pkcs12.DecodeChain(data, password)
	if err == nil {
		return admitParsed(key)
	}
	var pfx pfxFile
	if unmarshalWhole(data, &pfx) == nil {
		switch {
		case strings.Contains(err.Error(), "certificate missing") && len(pfx.MAC.FullBytes) > 0:
			// Said after the MAC was found to be right: the content is from who knows the password.
			return keyOnly(pfx, password)
		case isBER(pfx.Auth.Content):
			return nil, fmt.Errorf("its content is in BER and not in DER, such as with indefinite lengths: %s: %w", convertPFX, ErrInvalid)
		}
	}
	return nil, pfxProblem(err, password == "")
}

// convertPFX is what to do about a file that is in order and is not read.
const convertPFX = `convert it with "openssl pkcs12 -in FILE -nodes -out FILE.pem"`

// What there is in a PKCS#12 file (RFC 7292, section 4) whose MAC is over Content:
//
//	PFX ::= SEQUENCE { version INTEGER, authSafe ContentInfo, macData MacData OPTIONAL }
//	ContentInfo ::= SEQUENCE { contentType OBJECT IDENTIFIER, content [0] EXPLICIT OCTET STRING }
//	content of authSafe: SEQUENCE OF ContentInfo, each with, if it is not encrypted,
//	SEQUENCE OF SafeBag ::= SEQUENCE { bagId OBJECT IDENTIFIER, bagValue [0] EXPLICIT ANY, ... }
type (
	pfxFile struct {
		Version int
		Auth    struct {
			Type    asn1.ObjectIdentifier
			Content []byte `asn1:"explicit,tag:0"`
		}
		MAC asn1.RawValue `asn1:"optional"`
	}
	pfxContent struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	pfxBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"explicit,tag:0"`
		Attributes asn1.RawValue `asn1:"optional,set"`
	}
)

// Object identifiers of a plain content and of the bags of keys, in dotted form.
const (
	oidData        = "1.2.840.113549.1.7.1"
	oidKeyBag      = "1.2.840.113549.1.12.10.1.1"
	oidShroudedBag = "1.2.840.113549.1.12.10.1.2"
)

// keyOnly returns the one key of a file without certificates, which go-pkcs12 opens and
// does not give. Its MAC was verified.
func keyOnly(pfx pfxFile, password string) (*rsa.PrivateKey, error) {
	unread := fmt.Errorf("it holds no certificate, and its key is encrypted in a way that is read only together with one: %s: %w", convertPFX, ErrInvalid)
	var contents []pfxContent
	if err := unmarshalWhole(pfx.Auth.Content, &contents); err != nil {
		return nil, err
	}
	for _, c := range contents {
		var octets []byte
		var bags []pfxBag
		if c.Type.String() != oidData || unmarshalWhole(c.Content.Bytes, &octets) != nil || unmarshalWhole(octets, &bags) != nil {
			return nil, unread
		}
		for _, bag := range bags {
			switch bag.ID.String() {
			case oidKeyBag:
				info, err := parsePKCS8(bag.Value.Bytes)
				if err != nil {
					return nil, err
				}
				defer info.clear()
				return info.rsa()
			case oidShroudedBag:
				key, err := openPKCS8(bag.Value.Bytes, []byte(password), true)
				if Kind(err) == ErrInvalid && err != nil {
					return nil, unread // PBES1, or another cipher
				}
				return key, err
			}
		}
	}
	return nil, fmt.Errorf("it holds no private key, only certificates: %w", ErrInvalid)
}

// checkIterations refuses a file that asks for more work than [maxIterations],
// before any is done: neither PKCS#12 nor the package that reads it sets a limit.
// Wherever PKCS#12 has an iteration count (MacData, the parameters of its own
// encryption, PBKDF2-params), it is the INTEGER that follows the salt, an OCTET
// STRING, in a SEQUENCE. What is inside encrypted parts is not looked at: that is
// read only after the MAC has shown that it comes from who knows the password.
func checkIterations(der []byte, depth int) error {
	const deepest = 64
	if depth > deepest {
		return fmt.Errorf("it is nested more than %d deep: %w", deepest, ErrCorrupt)
	}
	salt := false
	for len(der) > 0 {
		var el asn1.RawValue
		rest, err := asn1.Unmarshal(der, &el)
		if err != nil {
			return nil // not DER: an OCTET STRING of something else
		}
		der = rest
		universal := el.Class == asn1.ClassUniversal
		if salt && universal && el.Tag == asn1.TagInteger && !el.IsCompound {
			var n int
			if _, err := asn1.Unmarshal(el.FullBytes, &n); err != nil || n < 1 || n > maxIterations {
				return fmt.Errorf("it wants a number of iterations that is not within 1 to %d: make it again with "+
					"\"openssl pkcs12 -export\": %w", maxIterations, ErrInvalid)
			}
		}
		salt = universal && el.Tag == asn1.TagOctetString
		if el.IsCompound || salt {
			if err := checkIterations(el.Bytes, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// pfxProblem says what an error of go-pkcs12 means. Most of those have no value to
// compare with, so that their texts are looked at; the tests hold each of them
// with a file that openssl made. Their texts are not repeated, except those that
// name an unknown algorithm.
func pfxProblem(err error, noPassword bool) error {
	says := func(s string) bool { return strings.Contains(err.Error(), s) }
	unknown, isUnknown := errors.AsType[pkcs12.NotImplementedError](err)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && noPassword:
		return fmt.Errorf("it is encrypted, and no password was given: %w", ErrWrongPassword)
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption), says("incorrect padding"):
		return fmt.Errorf("the password does not open it, or it is damaged: %w", ErrWrongPassword)
	case says("cannot be encoded in UCS-2"):
		return fmt.Errorf("the password has characters that PKCS#12 does not know, beyond U+FFFF: %w", ErrWrongPassword)
	case says("no MAC in data"):
		return fmt.Errorf(`it has no MAC, so that nothing tells whether it was altered: make it again without "-nomac": %w`, ErrInvalid)
	case says("exactly one key bag"):
		return fmt.Errorf("it holds several private keys: make it again with one: %w", ErrInvalid)
	case says("private key missing"):
		return fmt.Errorf("it holds no private key, only certificates: %w", ErrInvalid)
	case says("certificate missing"):
		return fmt.Errorf(`it holds no certificate, and no MAC: make it again without "-nomac": %w`, ErrInvalid)
	case says("parsing PKCS#8 private key"):
		return fmt.Errorf("its private key is of no known kind, or its numbers do not make up a key: %s: %w", opensslRSA, vault.ErrUnsupportedKey)
	case says("PKCS#8 shrouded key bag") && says("is not supported"):
		return fmt.Errorf("its private key is encrypted with an algorithm that is not read: make it again with \"openssl pkcs12 -export\": %w", ErrInvalid)
	case isUnknown:
		return fmt.Errorf("%s: make it again with \"openssl pkcs12 -export\": %w", shorten(string(unknown)), ErrInvalid)
	}
	return fmt.Errorf("its DER is not that of a PKCS#12 file, or it is damaged: %w", ErrCorrupt)
}
