package local

import (
	"context"
	"crypto/rsa"
	"fmt"
	"strings"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/vault"
)

// ImportFile is [Administrator.ImportKey] with a file of any kind that can be
// imported, told apart by its content: PEM (see [ParsePEM]), PKCS#12 (see
// [ParsePFX]) or a key transfer blob (see [Administrator.ImportBYOK]). The password
// is used only if the file is encrypted with one; the caller clears it and the file.
//
// A file that is refused changes nothing. The error is as the function for its kind
// says, and a [vault.Error] as that of every operation on a key.
func (a *Administrator) ImportFile(ctx context.Context, name string, data, password []byte, opts *KeyOptions) (vault.Key, error) {
	if keyfile.FormatOf(data) == keyfile.Transfer {
		return a.ImportBYOK(ctx, name, data, opts)
	}
	key, err := keyfile.Parse(data, password)
	if err != nil {
		return vault.Key{}, a.refuseFile(name, err)
	}
	return a.ImportKey(ctx, name, key, opts)
}

// refuseFile returns err, of the functions that parse, as that of an operation.
func (a *Administrator) refuseFile(name string, err error) error {
	e := &vault.Error{Op: OpImport, Key: vault.KeyID{Vault: a.core.name, Name: name}, Kind: keyfile.Kind(err)}
	// The text ends with the kind's, which stands in front of it now.
	e.Detail = strings.TrimSuffix(err.Error(), ": "+e.Kind.Error())
	return e
}

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
	key, err := keyfile.ParsePEM(data, password)
	if err != nil {
		return nil, fmt.Errorf("local: import PEM: %w", err)
	}
	return key, nil
}

// ParsePFX returns the RSA-2048 private key of a PKCS#12 file (RFC 7292; .pfx or
// .p12), in the forms that OpenSSL and Windows write, new (PBES2 with AES-256,
// SHA-256) and old (3DES or RC2, SHA-1). The file holds exactly one private key; the
// certificates are passed over. Without any, the key must be encrypted in the new form,
// or be plain. The file is DER, or BER as far as the outer layer goes; of others the error
// says how to convert them.
//
// The error matches what [ParsePEM] says. With GODEBUG=fips140=only it always is
// [ErrFIPS]: the derivation of PKCS#12's MAC key is in no FIPS module. The
// password is a Go string, which cannot be cleared.
func ParsePFX(data []byte, password string) (*rsa.PrivateKey, error) {
	key, err := keyfile.ParsePFX(data, password)
	if err != nil {
		return nil, fmt.Errorf("local: import PFX: %w", err)
	}
	return key, nil
}
