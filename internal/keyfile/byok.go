package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/fips140"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// BYOK is a key transfer blob (a .byok file) as Key Vault takes it ("Bring your
// own key specification"): a private key on its way from a hardware security
// module, encrypted to a key of the vault that is for nothing else. Make that key
// with the operation import alone, give its public half to the module's tool, and
// the blob that comes back to the vault.
//
//	{
//	  "schema_version": "1.0.0",
//	  "header": {
//	    "kid": id of the key that it is encrypted to,
//	    "alg": "dir",
//	    "enc": "CKM_RSA_AES_KEY_WRAP"
//	  },
//	  "ciphertext": base64url of what follows,
//	  "generator":  the tool's name and version
//	}
//
//	offset  size  ciphertext
//	     0   256  RSA-OAEP (SHA-1, MGF1 with SHA-1, no label) of an AES-256 key
//	   256     -  AES-KWP (RFC 5649) under it of the key, PKCS#8, DER
//
// That is PKCS#11's mechanism CKM_RSA_AES_KEY_WRAP. SHA-1 is not a weakness in
// OAEP, but GODEBUG=fips140=only refuses it. As with every RSA wrap, anyone with
// the public half can make a blob: whose key it is, only where it came from tells.
type BYOK struct {
	KeyID      vault.KeyID // the import-only key that it is encrypted to
	Generator  string      // what made it, by its own account
	ciphertext []byte
}

const (
	byokSchema     = "1.0.0"
	byokAlgorithm  = "dir"
	byokEncryption = "CKM_RSA_AES_KEY_WRAP"
	byokAESSize    = 32
	byokRSASize    = KeyBits / 8
	byokMinimum    = byokRSASize + 16 // AES-KWP gives 16 bytes or more
)

// ParseBYOK parses a key transfer blob, without a key. The error matches
// [ErrCorrupt] if it is truncated or damaged, and [ErrInvalid] if it is in order but
// not of the one kind that is read.
func ParseBYOK(data []byte) (BYOK, error) {
	if err := errors.Join(checkSize(data), checkText(data)); err != nil {
		return BYOK{}, err
	}
	data = Text(data) // nothing in it is secret without the key that it is encrypted to
	if first := bytes.TrimSpace(data); len(first) == 0 || first[0] != '{' {
		return BYOK{}, fmt.Errorf("it is no key transfer blob, which is a JSON object: %w", ErrInvalid)
	}
	var doc struct {
		Schema string `json:"schema_version"`
		Header struct {
			KeyID      string `json:"kid"`
			Algorithm  string `json:"alg"`
			Encryption string `json:"enc"`
		} `json:"header"`
		Ciphertext string `json:"ciphertext"`
		Generator  string `json:"generator"`
	} // what else a tool may put there is passed over
	if err := json.Unmarshal(data, &doc); err != nil {
		return BYOK{}, fmt.Errorf("%w: %w", JSONError(err), ErrCorrupt)
	}
	for _, f := range []struct{ member, got, want string }{
		{"schema_version", doc.Schema, byokSchema},
		{"alg", doc.Header.Algorithm, byokAlgorithm},
		{"enc", doc.Header.Encryption, byokEncryption},
	} {
		if f.got != f.want {
			return BYOK{}, fmt.Errorf("its %q is %q, want %q: make it again with a tool for Key Vault: %w", f.member, shorten(f.got), f.want, ErrInvalid)
		}
	}
	id, err := vault.ParseKeyID(doc.Header.KeyID)
	if err != nil {
		return BYOK{}, fmt.Errorf("its \"kid\" is no id of a key, VAULT/keys/NAME/VERSION: %w", ErrInvalid)
	}
	ciphertext, err := base64URL(doc.Ciphertext)
	if err != nil {
		return BYOK{}, fmt.Errorf("its \"ciphertext\" is not base64url: %w", ErrCorrupt)
	}
	if n := len(ciphertext); n < byokMinimum || n%8 != 0 {
		return BYOK{}, fmt.Errorf("its \"ciphertext\" is truncated: it has %d bytes, want at least %d and a multiple of 8: %w", n, byokMinimum, ErrCorrupt)
	}
	return BYOK{KeyID: id, Generator: doc.Generator, ciphertext: ciphertext}, nil
}

// base64URL decodes base64url (RFC 4648, section 5) with or without its padding:
// tools differ.
func base64URL(s string) ([]byte, error) {
	if strings.HasSuffix(s, "=") {
		return base64.URLEncoding.Strict().DecodeString(s)
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// shorten keeps a file's text from flooding an error's.
func shorten(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// CheckBYOK says whether key transfer blobs can be opened: with GODEBUG=fips140=only
// they cannot.
func CheckBYOK() error {
	if fips140.Enforced() {
		return fmt.Errorf("a .byok file is encrypted with RSA-OAEP and SHA-1, which FIPS 140 does not permit: "+
			"import it outside that mode, or import the key as PKCS#8: %w", ErrFIPS)
	}
	return nil
}

// OpenBYOK decrypts the key with the private half of the key that it is encrypted to.
// The error matches [vault.ErrBadCiphertext] if the blob was made for another key,
// [vault.ErrUnsupportedKey] if it carries no acceptable RSA key, and else [ErrInvalid],
// [ErrCorrupt] or [ErrFIPS].
func OpenBYOK(b BYOK, kek *rsa.PrivateKey) (*rsa.PrivateKey, error) {
	if err := CheckBYOK(); err != nil {
		return nil, err
	}
	// Whatever does not decrypt gets the same answer.
	wrong := fmt.Errorf("its ciphertext was not made for the key %s, with SHA-1 in RSA-OAEP, or was altered: "+
		"make it again with that key's public half: %w", b.KeyID, vault.ErrBadCiphertext)
	if len(b.ciphertext) < byokMinimum || kek.Size() != byokRSASize {
		return nil, wrong
	}
	aesKey, err := rsa.DecryptOAEP(sha1.New(), nil, kek, b.ciphertext[:byokRSASize], nil)
	if err != nil {
		return nil, wrong
	}
	defer clear(aesKey)
	if len(aesKey) != byokAESSize {
		return nil, fmt.Errorf("its wrapping key has %d bytes, want AES-256 and %d: %w", len(aesKey), byokAESSize, ErrInvalid)
	}
	block, err := aes.NewCipher(aesKey)
	if err != nil {
		return nil, err
	}
	der, ok := kwpUnwrap(block, b.ciphertext[byokRSASize:])
	if !ok {
		return nil, wrong
	}
	defer clear(der)
	info, err := parsePKCS8(der)
	if err != nil {
		return nil, fmt.Errorf("what it carries is no PKCS#8 private key: %w", err)
	}
	defer info.clear()
	return info.rsa()
}
