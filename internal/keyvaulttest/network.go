package keyvaulttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// certificate makes the server's certificate, valid for longer than any clock of a
// test is off.
func (s *Server) certificate(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "keyvaulttest"},
		NotBefore:             time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		DNSNames:              []string{"localhost"},
	}
	if net.ParseIP(host) == nil {
		template.DNSNames = append(template.DNSNames, host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	s.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(s.cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Client returns an HTTP client that trusts the server and finds it under its URL.
// Close closes its idle connections. It is an azcore policy.Transporter.
func (s *Server) Client() *http.Client {
	c := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
			DialContext:         s.dial,
			MaxIdleConnsPerHost: 64,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = append(s.clients, c)
	return c
}

func (s *Server) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	s.mu.Lock()
	fail := s.dialErr
	s.mu.Unlock()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if fail != nil {
		return nil, fail(host)
	}
	if p, ok := s.lis.(*pipeListener); ok {
		return p.dial(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.lis.Addr().String())
}

// The three methods that follow cut all connections; then Client cannot make any.

// Unreachable lets no connection through any more.
func (s *Server) Unreachable() {
	s.cut(func(string) error { return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH} })
}

// NoSuchHost lets the vault's host name not resolve, as when it was deleted.
func (s *Server) NoSuchHost() {
	s.cut(func(host string) error { return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true} })
}

// NoNameServer lets no host name be looked up.
func (s *Server) NoNameServer() {
	s.cut(func(host string) error {
		return &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	})
}

// Reachable undoes them.
func (s *Server) Reachable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialErr = nil
}

func (s *Server) cut(err func(string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialErr = err
	for c := range s.conns {
		c.Close()
	}
}

func (s *Server) track(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns[c] = struct{}{}
	case http.StateHijacked, http.StateClosed:
		delete(s.conns, c)
	}
}

// pipeListener listens without a network.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (p *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	c, s := net.Pipe()
	client, server := pipeConn{c}, pipeConn{s}
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), client.Close(), server.Close())
	}
}

// farewell is how long crypto/tls waits, when it closes a connection, until the other end
// has read that.
const farewell = 5 * time.Second

// pipeConn is an end of a pipe, which has no buffer: of two ends that are closed at the
// same moment each would wait for the other. It waits for neither.
type pipeConn struct{ net.Conn }

func (c pipeConn) SetWriteDeadline(at time.Time) error {
	if now := time.Now(); !at.IsZero() && at.Sub(now) <= farewell {
		at = now
	}
	return c.Conn.SetWriteDeadline(at)
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
