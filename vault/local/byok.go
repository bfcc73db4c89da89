package local

import (
	"context"
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/vault"
)

// BYOK is a key transfer blob (a .byok file): a private key on its way from a hardware
// security module, encrypted to a key of the vault that is for nothing else. Make that
// key with the operation import alone, give its public half to the module's tool, and
// the blob that comes back to [Administrator.ImportBYOK].
type BYOK = keyfile.BYOK

// ParseBYOK parses a key transfer blob, without a key. The error matches
// [ErrCorrupt] if it is truncated or damaged, and [ErrInvalid] if it is in order but
// not of the one kind that is read.
func ParseBYOK(data []byte) (BYOK, error) {
	b, err := keyfile.ParseBYOK(data)
	if err != nil {
		return BYOK{}, fmt.Errorf("local: import BYOK: %w", err)
	}
	return b, nil
}

// ImportBYOK is [Administrator.ImportKey] with a key transfer blob: see [BYOK]. It is
// decrypted by the key of this vault that the blob names, in the version that it
// names or else the current one. That key must permit import and nothing else, and
// be enabled and in date; [OpImport] is the one permission that the caller needs.
//
// The error matches what [ParseBYOK] says, [vault.ErrBadCiphertext] if the blob was
// made for another key, [vault.ErrUnsupportedKey] if what it carries is not an RSA
// key of exactly 2048 bits with an odd exponent of at least 65537, and [ErrFIPS],
// always, with GODEBUG=fips140=only. A blob that is refused changes nothing.
func (a *Administrator) ImportBYOK(ctx context.Context, name string, blob []byte, opts *KeyOptions) (vault.Key, error) {
	if err := keyfile.CheckBYOK(); err != nil {
		return vault.Key{}, a.refuseFile(name, err)
	}
	b, err := keyfile.ParseBYOK(blob)
	if err != nil {
		return vault.Key{}, a.refuseFile(name, err)
	}
	private, err := a.transferKey(ctx, b.KeyID)
	if err != nil {
		return vault.Key{}, err
	}
	key, err := keyfile.OpenBYOK(b, private)
	if err != nil {
		return vault.Key{}, a.refuseFile(name, err)
	}
	return a.ImportKey(ctx, name, key, opts)
}

// transferKey returns the private half of the import-only key of an id.
func (a *Administrator) transferKey(ctx context.Context, id vault.KeyID) (*rsa.PrivateKey, error) {
	c := a.core
	if err := c.enter(ctx, OpImport, id); err != nil {
		return nil, err
	}
	defer c.leave()
	v, id, err := c.find(ctx, a.name, OpImport, id)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(v.Operations, []vault.Operation{OpImport}) {
		// Anyone can make a blob: with a key of another use, it would be a way to try
		// that use's ciphertexts on the vault.
		return nil, &vault.Error{Op: OpImport, Key: id, Kind: vault.ErrAccessDenied,
			Detail: fmt.Sprintf("a .byok file is opened only by a key whose one operation is import, this one has %v; make one for the transfer", v.Operations)}
	}
	if err := v.permits(OpImport, id); err != nil {
		return nil, err
	}
	if err := v.inDate(OpImport, id, c.now()); err != nil {
		return nil, err
	}
	private, err := c.private(id.Name, v)
	if err != nil {
		return nil, c.unavailable(OpImport, id, err)
	}
	return private, nil
}
