package azure_test

import (
	"crypto/tls"
	"crypto/x509"
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
