package azure_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	cred := &fake.TokenCredential{}
	for want, o := range map[string]azure.Options{
		"Options.Timeout is -1ns, want more than 0":                      {Timeout: -1},
		"Options.Budget is 9, want at least 10 operations in 10 seconds": {Budget: azure.MinBudget - 1},
		"Options.Budget is -2000, want at least 10":                      {Budget: -2000},
		"Options.LocalWrapAge is -1m0s, want more than 0":                {LocalWrapAge: -time.Minute, WrapLocally: true},
	} {
		for _, newOne := range []func() error{
			func() error { return second(azure.New(vaultURL, cred, &o)) },
			func() error { return second(azure.NewAdmin(vaultURL, cred, &o)) },
		} {
			require.ErrorContains(t, newOne(), "azure: "+want)
		}
	}
	for _, o := range []*azure.Options{nil, {}, {Budget: azure.MinBudget, Timeout: 1, LocalWrapAge: 1}} {
		_, err := azure.New(vaultURL, cred, o)
		require.NoError(t, err)
	}
	_, err := azure.New(vaultURL, nil, nil)
	require.ErrorContains(t, err, "no credential")
}

func TestVaultURLs(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://contoso.vault.azure.net":         vaultURL,
		"https://Contoso.Vault.Azure.net/":        vaultURL,
		"https://contoso.vault.azure.net:443":     vaultURL,
		"https://contoso.vault.azure.net:8443/":   vaultURL + ":8443",
		"https://contoso.managedhsm.azure.net":    "https://contoso.managedhsm.azure.net",
		"http://contoso.vault.azure.net":          "!does not start with https://",
		"contoso.vault.azure.net":                 "!does not start with https://",
		"https://":                                "!has no host",
		"https://:443":                            "!has no host",
		"https://hunter2@contoso.vault.azure.net": "!has a user or password",
		"https://contoso.vault.azure.net/keys/k":  "!has more than a host",
		"https://contoso.vault.azure.net?hunter2": "!has more than a host",
		"https://contoso.vault.azure.net/#h":      "!has more than a host",
		"https://hunter2\x7f":                     "!cannot be parsed",
	} {
		v, err := azure.New(url, &fake.TokenCredential{}, nil)
		if want, ok := strings.CutPrefix(want, "!"); ok {
			require.ErrorContains(t, err, want, url)
			require.NotContains(t, err.Error(), "hunter2")
			continue
		}
		require.NoError(t, err, url)
		require.Equal(t, want, v.URL())
	}
}

// What cannot be right is refused with an error of package vault, which says nothing of
// the key, and nothing is sent.
func TestInvalidArguments(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	v, ctx := r.client(), t.Context()
	a := r.admin()
	local := r.client(func(o *azure.Options) { o.WrapLocally = true })
	before := r.Requests("")
	for says, err := range map[string]error{
		"vault: wrapKey <key>/<version>: invalid argument: a secret has 1 to 190 bytes, not 0":                                            second(v.WrapKey(ctx, r.key, nil)),
		"vault: wrapKey <key>/<version>: invalid argument: a secret has 1 to 190 bytes, not 191":                                          second(local.WrapKey(ctx, r.key, make([]byte, vault.MaxSecret+1))),
		"vault: unwrapKey <key>: invalid argument: the wrapped secret names no key version":                                               second(v.UnwrapKey(ctx, vault.Wrapped{KeyID: r.key.Versionless(), Ciphertext: make([]byte, vault.WrappedSize)})),
		`vault: get <vault>/keys/a/b: invalid argument: vault: key id: the name may have 0-9, a-z, A-Z and "-" only, not "/": "a/b"`:      second(v.GetKey(ctx, vault.KeyID{Name: "a/b"})),
		"vault: wrapKey <vault>/keys/: invalid argument: vault: key id: the name has 0 characters, want 1 to 127":                         second(v.WrapKey(ctx, vault.KeyID{}, []byte("x"))),
		`vault: create "<vault>/keys/a b": invalid argument: vault: key id: the name may have 0-9, a-z, A-Z and "-" only, not " ": "a b"`: second(a.CreateKey(ctx, "a b", nil)),
		"vault: restore <vault>/keys/: invalid argument: the backup is empty":                                                             second(a.RestoreKey(ctx, nil)),
	} {
		require.ErrorIs(t, err, azure.ErrInvalid)
		var e *vault.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, says, r.anonymous(err.Error()))
		require.False(t, vault.Denied(err) || vault.Transient(err), says)
	}
	require.Equal(t, before, r.Requests(""))
}

// The package takes a credential and builds none: who signs in otherwise than with
// azidentity does not have it in the program.
func TestNoAzidentity(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "security/keyvault/azkeys")
	for _, no := range []string{"azidentity", "microsoft-authentication-library", "testify", "keyvaulttest", "vaulttest"} {
		require.NotContains(t, string(out), no)
	}
}
