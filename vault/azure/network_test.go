package azure_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

var farFuture = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// A certificate that is not the vault's proves nothing about the key, and nothing is
// sent to whoever has it.
func TestCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(r.Certificate()))
	for name, tt := range map[string]struct {
		tls  *tls.Config
		kind any
	}{
		"of an unknown authority": {&tls.Config{RootCAs: x509.NewCertPool()}, new(x509.UnknownAuthorityError)},
		"of another host":         {&tls.Config{RootCAs: roots, ServerName: "contoso.vault.azure.net"}, new(x509.HostnameError)},
		"that is too old":         {&tls.Config{RootCAs: roots, Time: func() time.Time { return farFuture }}, new(x509.CertificateInvalidError)},
	} {
		t.Run(name, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: tt.tls}
			defer transport.CloseIdleConnections()
			v := r.client(func(o *azure.Options) { o.ClientOptions.Transport = &http.Client{Transport: transport} })
			_, err := v.GetKey(t.Context(), r.key)
			require.ErrorIs(t, err, vault.ErrUnavailable)
			require.False(t, vault.Denied(err))
			require.ErrorContains(t, err, "the vault's certificate is not trusted; something between may be inspecting TLS, or the private endpoint has another name: ")
			require.ErrorAs(t, err, tt.kind)
			require.Zero(t, r.Requests(""))
		})
	}
}

// broken is a body that ends in an error of nobody's kind.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("hunter2") }
func (broken) Close() error             { return nil }

// An error that is none of those that are known says nothing about the key, nor of the
// credential or the challenge, and its text, which may be anything, is left out.
func TestAnUnknownError(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	v := r.client(func(o *azure.Options) {
		o.ClientOptions.Transport = &sends{Client: r.Client(), change: func(_ *http.Request, resp *http.Response) {
			if resp.StatusCode == http.StatusOK { // after the challenge
				resp.Body.Close()
				resp.Body = broken{}
			}
		}}
	})
	_, err := v.GetKey(t.Context(), r.key)
	require.True(t, vault.Transient(err))
	require.ErrorContains(t, err, "the client could not do what was asked; check its options, and what stands between it and the vault: *")
	require.NotContains(t, err.Error(), "hunter2")
}
