package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/pbkdf2"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"hash"
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// ParsePEM returns the RSA-2048 private key of a PEM file: PKCS#8 ("PRIVATE KEY"),
// PKCS#1 ("RSA PRIVATE KEY"), or PKCS#8 encrypted with PBES2, which is PBKDF2 and
// AES-CBC ("ENCRYPTED PRIVATE KEY"). The file holds exactly one private key; it
// may hold certificates, public keys and text before its blocks, which are passed
// over. The password is used only for a key that is encrypted; the caller clears it.
// A byte order mark, UTF-16, indented lines and any line ends make no difference.
//
// The error matches [ErrWrongPassword] if the key is encrypted and the password is
// missing or wrong, [ErrCorrupt] if the file is truncated or damaged,
// [vault.ErrUnsupportedKey] if the key is not an RSA key of exactly 2048 bits with
// an odd exponent of at least 65537, [ErrFIPS] if GODEBUG=fips140=only does not
// permit its encryption, and else [ErrInvalid]. It says nothing of the key.
func ParsePEM(data, password []byte) (*rsa.PrivateKey, error) {
	if err := checkSize(data); err != nil {
		return nil, err
	}
	if err := checkText(data); err != nil {
		return nil, err
	}
	text := Text(data)
	straight := straighten(text)
	defer clear(straight)
	if len(text) > 0 && len(data) > 0 && &text[len(text)-1] != &data[len(data)-1] {
		clear(text) // a copy, of a file that is not in UTF-8
	}
	blocks, err := pemBlocks(straight)
	defer func() {
		for _, b := range blocks {
			clear(b.Bytes)
		}
	}()
	if err != nil {
		return nil, err
	}
	var key *pem.Block
	for _, b := range blocks {
		switch {
		case !strings.HasSuffix(b.Type, "PRIVATE KEY"):
			continue
		case key != nil:
			return nil, fmt.Errorf("it holds several private keys: split it into files with one each: %w", ErrInvalid)
		}
		key = b
	}
	if key == nil {
		return nil, fmt.Errorf("it holds no private key, only %q: %w", shorten(blocks[0].Type), ErrInvalid)
	}
	return parsePEMBlock(key, password)
}

// pemBlocks returns the blocks of a PEM file, at least one if there is no error. It
// is stricter than encoding/pem, which passes over a block that is damaged: a file
// with two keys, one of them damaged, is not a file with one key.
func pemBlocks(data []byte) ([]*pem.Block, error) {
	begun := bytes.Count(data, []byte("\n-----BEGIN "))
	if bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		begun++
	}
	escaped := func() error {
		return fmt.Errorf(`its line ends are written as "\n", as in JSON: convert it with "printf %%b \"$(cat FILE)\" > FILE.new": %w`, ErrInvalid)
	}
	var blocks []*pem.Block
	rest := data
	for {
		b, after := pem.Decode(rest)
		if b == nil {
			break
		}
		blocks, rest = append(blocks, b), after
	}
	switch {
	case begun == 0 && len(blocks) == 0:
		hint := ""
		if bytes.HasPrefix(data, []byte{0x30}) {
			hint = `: it looks like DER; convert it with "openssl pkey -inform DER -in FILE -out FILE.pem"`
		}
		return nil, fmt.Errorf("it has no PEM block%s: %w", hint, ErrInvalid)
	case len(blocks) != begun && bytes.Contains(data, []byte(`\n`)):
		return blocks, escaped()
	case len(blocks) != begun:
		return blocks, fmt.Errorf("it is truncated or damaged: it begins %d PEM blocks, of which %d can be read: %w", begun, len(blocks), ErrCorrupt)
	case len(bytes.TrimSpace(rest)) > 0:
		return blocks, fmt.Errorf("there are %d bytes after its last PEM block: %w", len(bytes.TrimSpace(rest)), ErrCorrupt)
	}
	return blocks, nil
}

func parsePEMBlock(b *pem.Block, password []byte) (*rsa.PrivateKey, error) {
	if _, ok := b.Headers["Proc-Type"]; ok {
		// Its key is one MD5 of the password, and nothing tells whether it was altered.
		return nil, fmt.Errorf(`it is encrypted in the old way of PEM ("Proc-Type"), which is weak: `+
			`convert it with "openssl pkcs8 -topk8 -v2 aes-256-cbc -in FILE -out FILE.new": %w`, ErrInvalid)
	}
	switch b.Type {
	case "PRIVATE KEY":
		info, err := parsePKCS8(b.Bytes)
		if err != nil {
			return nil, err
		}
		defer info.clear()
		return info.rsa()
	case "RSA PRIVATE KEY":
		return parsePKCS1(b.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return openPKCS8(b.Bytes, password, false)
	case "EC PRIVATE KEY":
		return nil, refuseKind("an EC key")
	case "OPENSSH PRIVATE KEY":
		return nil, fmt.Errorf(`it is in OpenSSH's format: convert a copy with "ssh-keygen -p -m PKCS8 -f FILE": %w`, ErrInvalid)
	default:
		return nil, fmt.Errorf("its private key is a PEM block of type %q, want \"PRIVATE KEY\", \"RSA PRIVATE KEY\" or \"ENCRYPTED PRIVATE KEY\": %w",
			shorten(b.Type), vault.ErrUnsupportedKey)
	}
}

// maxIterations bounds the work that a file may ask for: a second or two. OpenSSL
// writes 2,048; OWASP's advice of 2023 is 600,000.
const maxIterations = 2_000_000

// An encrypted PKCS#8 key (RFC 5208, section 6, and RFC 8018, appendix A):
//
//	EncryptedPrivateKeyInfo ::= SEQUENCE {
//	  encryptionAlgorithm  SEQUENCE { PBES2, SEQUENCE {
//	    keyDerivationFunc    SEQUENCE { PBKDF2, SEQUENCE {
//	      salt                 OCTET STRING
//	      iterationCount       INTEGER
//	      keyLength            INTEGER OPTIONAL
//	      prf                  AlgorithmIdentifier DEFAULT HMAC-SHA1 } }
//	    encryptionScheme     SEQUENCE { AES-CBC, OCTET STRING the IV } } }
//	  encryptedData        OCTET STRING, a PrivateKeyInfo with PKCS#7 padding }
type (
	encryptedPrivateKeyInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2Params struct {
		KDF, Encryption pkix.AlgorithmIdentifier
	}
	pbkdf2Params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

// Object identifiers of the encryption, in dotted form.
const (
	oidPBES2    = "1.2.840.113549.1.5.13"
	oidPBKDF2   = "1.2.840.113549.1.5.12"
	oidHMACSHA1 = "1.2.840.113549.2.7"
)

// pbkdf2Hash returns the hash of an HMAC, or nil.
func pbkdf2Hash(prf string) func() hash.Hash {
	switch prf {
	case oidHMACSHA1:
		return sha1.New
	case "1.2.840.113549.2.8":
		return sha256.New224
	case "1.2.840.113549.2.9":
		return sha256.New
	case "1.2.840.113549.2.10":
		return sha512.New384
	case "1.2.840.113549.2.11":
		return sha512.New
	}
	return nil
}

// aesCBCKeySize returns the size in bytes of the key of an AES in CBC mode, or 0.
func aesCBCKeySize(scheme asn1.ObjectIdentifier) int {
	switch scheme.String() {
	case "2.16.840.1.101.3.4.1.2":
		return 16
	case "2.16.840.1.101.3.4.1.22":
		return 24
	case "2.16.840.1.101.3.4.1.42":
		return 32
	}
	return 0
}

// openPKCS8 decrypts an encrypted PKCS#8 key and returns the RSA key within. A password
// that is empty counts as none, unless emptyIsOne.
func openPKCS8(der, password []byte, emptyIsOne bool) (*rsa.PrivateKey, error) {
	var sealed encryptedPrivateKeyInfo
	if err := unmarshalWhole(der, &sealed); err != nil {
		return nil, err
	}
	block, iv, err := pbes2(sealed.Algorithm, password, emptyIsOne)
	if err != nil {
		return nil, err
	}
	if len(sealed.Data) == 0 || len(sealed.Data)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("its encrypted part has %d bytes, want a multiple of %d: %w", len(sealed.Data), aes.BlockSize, ErrCorrupt)
	}
	plain := make([]byte, len(sealed.Data))
	defer clear(plain)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, sealed.Data)
	// Nothing authenticates the file. That a wrong password gives one well-formed
	// DER element of just the right size, with an algorithm in it, does not happen.
	info, err := parsePKCS8(unpad(plain))
	if err != nil {
		return nil, fmt.Errorf("the password does not open it, or it is damaged: %w", ErrWrongPassword)
	}
	defer info.clear()
	return info.rsa()
}

// unpad removes PKCS#7 padding, or returns nil.
func unpad(plain []byte) []byte {
	n := int(plain[len(plain)-1])
	if n == 0 || n > aes.BlockSize {
		return nil
	}
	body, pad := plain[:len(plain)-n], plain[len(plain)-n:]
	if !bytes.Equal(pad, bytes.Repeat([]byte{byte(n)}, n)) {
		return nil
	}
	return body
}

// pbes2 derives the key that alg names (RFC 8018, section 6.2) and returns its
// cipher and the IV. The expanded key in the cipher is left to the garbage collector.
func pbes2(alg pkix.AlgorithmIdentifier, password []byte, emptyIsOne bool) (cipher.Block, []byte, error) {
	const again = `encrypt it again with "openssl pkcs8 -topk8 -v2 aes-256-cbc -in FILE -out FILE.new"`
	unsupported := func(what string, oid asn1.ObjectIdentifier) (cipher.Block, []byte, error) {
		return nil, nil, fmt.Errorf("it is encrypted with the %s %s, only PBES2 with PBKDF2 and AES-CBC is read: %s: %w",
			what, shorten(oid.String()), again, ErrInvalid)
	}
	if alg.Algorithm.String() != oidPBES2 {
		return unsupported("algorithm", alg.Algorithm)
	}
	var params pbes2Params
	if err := unmarshalWhole(alg.Parameters.FullBytes, &params); err != nil {
		return nil, nil, err
	}
	if params.KDF.Algorithm.String() != oidPBKDF2 {
		return unsupported("key derivation", params.KDF.Algorithm)
	}
	size := aesCBCKeySize(params.Encryption.Algorithm)
	if size == 0 {
		return unsupported("cipher", params.Encryption.Algorithm)
	}
	var iv []byte
	if err := unmarshalWhole(params.Encryption.Parameters.FullBytes, &iv); err != nil {
		return nil, nil, err
	}
	if len(iv) != aes.BlockSize {
		return nil, nil, fmt.Errorf("its IV has %d bytes, want %d: %w", len(iv), aes.BlockSize, ErrCorrupt)
	}
	var kdf pbkdf2Params
	if err := unmarshalWhole(params.KDF.Parameters.FullBytes, &kdf); err != nil {
		return nil, nil, err
	}
	prf := oidHMACSHA1 // the default of RFC 8018
	if kdf.PRF.Algorithm != nil {
		prf = kdf.PRF.Algorithm.String()
	}
	h := pbkdf2Hash(prf)
	switch {
	case h == nil:
		return unsupported("pseudorandom function", kdf.PRF.Algorithm)
	case kdf.KeyLength != 0 && kdf.KeyLength != size:
		return nil, nil, fmt.Errorf("its key has %d bytes for a cipher that wants %d: %w", kdf.KeyLength, size, ErrCorrupt)
	case kdf.Iterations < 1 || kdf.Iterations > maxIterations:
		return nil, nil, fmt.Errorf("it wants %d iterations of PBKDF2, at most %d are done: %s: %w", kdf.Iterations, maxIterations, again, ErrInvalid)
	case fips140.Enforced() && (len(kdf.Salt) < 16 || prf == oidHMACSHA1):
		return nil, nil, fmt.Errorf("its PBKDF2 has a salt of %d bytes or is with SHA-1, FIPS 140 wants 16 and SHA-2: "+
			`encrypt it again with "openssl pkcs8 -topk8 -saltlen 16" (OpenSSL 3.2), or import it outside that mode: %w`, len(kdf.Salt), ErrFIPS)
	case len(password) == 0 && !emptyIsOne:
		return nil, nil, fmt.Errorf("it is encrypted, and no password was given: %w", ErrWrongPassword)
	}
	// The password becomes a string here, which cannot be cleared.
	key, err := pbkdf2.Key(h, string(password), kdf.Salt, kdf.Iterations, size)
	if err != nil {
		return nil, nil, fmt.Errorf("its PBKDF2: %w: %w", err, ErrInvalid)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	return block, iv, err
}
