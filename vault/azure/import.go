package azure

import (
	"context"
	"crypto/rsa"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/vault"
)

// ImportKey is [Admin.CreateKey] with a key pair that was made elsewhere: RSA, exactly
// 2048 bits, two primes, a public exponent that is odd and at least 65537. Any other is
// refused with an error that matches [vault.ErrUnsupportedKey], and nothing is sent.
//
// The private key goes to the vault inside TLS. Who must not have it outside of an HSM
// even so uses [Admin.ImportBYOK].
func (a *Admin) ImportKey(ctx context.Context, name string, key *rsa.PrivateKey, opts *KeyOptions) (vault.Key, error) {
	id, err := a.own(OpImport, vault.KeyID{Name: name})
	if err != nil {
		return vault.Key{}, err
	}
	if err := keyfile.CheckPrivate(key); err != nil {
		return vault.Key{}, refusedFile(id, err)
	}
	jwk := jsonWebKey(key, opts.given())
	defer clearJWK(jwk)
	return a.importJWK(ctx, id, jwk, opts.given())
}

// ImportFile is ImportKey with a file of any kind that can be imported, told apart by
// its content: PEM (PKCS#8, PKCS#1 or encrypted PKCS#8), PKCS#12 (.pfx), or a key
// transfer blob (.byok; see ImportBYOK). PEM and PKCS#12 are opened here, with the
// password if they are encrypted; the caller clears it and the file.
//
// A file that is refused sends nothing. The error matches [ErrWrongPassword],
// [ErrCorrupt], [vault.ErrUnsupportedKey], [ErrFIPS] or [ErrInvalid], and says what to do.
func (a *Admin) ImportFile(ctx context.Context, name string, data, password []byte, opts *KeyOptions) (vault.Key, error) {
	if keyfile.FormatOf(data) == keyfile.Transfer {
		return a.ImportBYOK(ctx, name, data, opts)
	}
	id, err := a.own(OpImport, vault.KeyID{Name: name})
	if err != nil {
		return vault.Key{}, err
	}
	key, err := keyfile.Parse(data, password)
	if err != nil {
		return vault.Key{}, refusedFile(id, err)
	}
	return a.ImportKey(ctx, name, key, opts)
}

// ImportBYOK imports a key transfer blob: a private key that an HSM encrypted to a key
// of this vault's HSM which permits import and nothing else ("Import HSM-protected keys
// to Key Vault (BYOK)"). It is sent as it is; only the vault's HSM opens it. A blob for
// another vault, or one that is damaged, is refused before.
func (a *Admin) ImportBYOK(ctx context.Context, name string, blob []byte, opts *KeyOptions) (vault.Key, error) {
	id, err := a.own(OpImport, vault.KeyID{Name: name})
	if err != nil {
		return vault.Key{}, err
	}
	b, err := keyfile.ParseBYOK(blob)
	if err != nil {
		return vault.Key{}, refusedFile(id, err)
	}
	if u, err := parseVaultURL(b.KeyID.Vault); err != nil || u != a.url {
		return vault.Key{}, refuse(OpImport, id, ErrInvalid,
			"the blob is encrypted to the key %s, which is not of this vault; make it again with a key of %s that permits import alone", b.KeyID, a.url)
	}
	o := opts.given()
	o.HSM = true
	jwk := &azkeys.JSONWebKey{Kty: to.Ptr(azkeys.KeyTypeRSAHSM), KeyOps: o.operations(), T: keyfile.Text(blob)}
	return a.importJWK(ctx, id, jwk, o)
}

func (a *Admin) importJWK(ctx context.Context, id vault.KeyID, jwk *azkeys.JSONWebKey, o KeyOptions) (vault.Key, error) {
	if err := a.checkFree(ctx, OpImport, id, o); err != nil {
		return vault.Key{}, err
	}
	p := azkeys.ImportKeyParameters{Key: jwk, HSM: &o.HSM, KeyAttributes: o.attributes(), Tags: o.tags()}
	return a.key(ctx, OpImport, id, func(ctx context.Context) (azkeys.KeyBundle, error) {
		resp, err := a.keys.ImportKey(ctx, id.Name, p, nil)
		return resp.KeyBundle, err
	})
}

// refusedFile returns an error of package keyfile as that of an operation.
func refusedFile(id vault.KeyID, err error) error {
	kind := keyfile.Kind(err)
	// The text ends with the kind's, which stands in front of it.
	return refuse(OpImport, id, kind, "%s", strings.TrimSuffix(err.Error(), ": "+kind.Error()))
}
