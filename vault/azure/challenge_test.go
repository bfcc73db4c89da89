package azure_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

const vaultURL = "https://contoso.vault.azure.net"

// challenger answers every request with a challenge.
type challenger string

func (c challenger) Do(r *http.Request) (*http.Response, error) {
	h := http.Header{}
	h["Www-Authenticate"] = []string{string(c)}
	return &http.Response{Request: r, StatusCode: 401, Header: h, ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader([]byte(`{"error":{"code":"Unauthorized","message":"AKV10000: no token"}}`)))}, nil
}

func challenged(t *testing.T, url, header string, verify bool) error {
	t.Helper()
	o := &azure.Options{}
	atOnce(o)
	o.ClientOptions.Transport = challenger(header)
	o.ClientOptions.Retry.MaxRetries = -1
	o.ClientOptions.DisableChallengeResourceVerification = !verify
	v, err := azure.New(url, &fake.TokenCredential{}, o)
	require.NoError(t, err)
	_, err = v.GetKey(t.Context(), vault.KeyID{Name: "kek"})
	require.Error(t, err)
	return err
}

// A challenge that names nobody to ask for a token is no denial, and azkeys, which
// would index out of range, does not get to see it.
func TestMalformedChallenges(t *testing.T) {
	t.Parallel()
	for _, authority := range []string{
		``, `contoso`, `https://`, `https:///tenant`, `https://login.microsoftonline.com`, `https://login.microsoftonline.com/`,
		`http://login.microsoftonline.com/tenant`, `//login.microsoftonline.com/tenant`, `a/b`, `/`, `%`, `https://login.microsoftonline.com//tenant`,
	} {
		for _, header := range []string{
			`Bearer authorization="` + authority + `", resource="https://vault.azure.net"`,
			`Bearer authorization=` + authority + ` resource=https://vault.azure.net`,
			`Bearer resource="https://vault.azure.net", authorization="` + authority + `"`,
			`Bearer xauthorization="https://login.microsoftonline.com/tenant", authorization="` + authority + `", resource="https://vault.azure.net"`,
			`Bearer authorization="https://login.microsoftonline.com/tenant", authorization="` + authority + `", resource="https://vault.azure.net"`,
		} {
			err := challenged(t, vaultURL, header, false)
			require.True(t, vault.Transient(err), "%s: %v", header, err)
			require.ErrorContains(t, err, "the vault's authentication challenge names no authority and tenant; check that the URL is a Key Vault's", header)
		}
	}
}

// The client sends its token to nobody whose name it does not know, and that is what the
// error says: it is not the credential that failed.
func TestRefusedChallenges(t *testing.T) {
	t.Parallel()
	const good = `Bearer authorization="https://login.microsoftonline.com/tenant", `
	for header, says := range map[string]string{
		good + `resource="https://vault.usgovcloudapi.net"`: `challenge resource "https://vault.usgovcloudapi.net" doesn't match the requested domain`,
		good + `resource="https://evil.example"`:            `challenge resource "https://evil.example" doesn't match the requested domain`,
		good + `resource="` + strings.Repeat("x", 300):      "...",
		good + `scope=""`:     "could not find a valid resource",
		`Basic realm="proxy"`: "could not find a valid resource",
		`Bearer error="insufficient_claims", claims="%%"`: "invalid claims",
	} {
		err := challenged(t, vaultURL, header, true)
		require.True(t, vault.Transient(err), "%s: %v", header, err)
		require.ErrorContains(t, err, "vault unavailable: the client refused the vault's challenge; check that the URL is a Key Vault's, and of the cloud that the challenge names: ", header)
		require.ErrorContains(t, err, says)
		require.Less(t, len(err.Error()), 600)
	}
	// Loopback is of no cloud.
	err := challenged(t, "https://127.0.0.1:1", good+`resource="https://vault.azure.net"`, true)
	require.ErrorContains(t, err, "the client refused the vault's challenge")
}

// Without a challenge, or with one more after the token, a 401 is the vault's answer.
func TestA401WithoutAChallengeIsAnAnswer(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"", `Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`} {
		err := challenged(t, vaultURL, header, true)
		require.ErrorIs(t, err, vault.ErrAccessDenied)
		require.ErrorContains(t, err, "Unauthorized/AKV10000")
	}
}

// Whatever a vault, or what stands between, challenges with, the client does not fall
// over it.
func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{
		"", "Bearer", `Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`,
		`Bearer authorization="https://login.microsoftonline.com", resource="https://vault.azure.net"`,
		`Bearer authorization=x,authorization="https://h/t" authorization="" scope=a`,
		`Bearer error="insufficient_claims", claims="eyJhIjoxfQ=="`, `Bearer Bearer authorization= resource==`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		err := challenged(t, vaultURL, header, false)
		require.NotNil(t, vault.Kind(err), "%v", err)
	})
}
