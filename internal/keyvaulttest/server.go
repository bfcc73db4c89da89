package keyvaulttest

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// APIVersion is the newest version of the REST interface that is spoken.
const APIVersion = "2025-07-01"

// APIVersions returns the versions that are taken: what the official clients send. The
// operations that are spoken here are alike in all of them.
func APIVersions() []string {
	return []string{"7.0", "7.1", "7.2", "7.3", "7.4-preview.1", "7.4", "7.5-preview.1", "7.5", "7.6-preview.1", "7.6-preview.2", "7.6", APIVersion}
}

// MaxPageSize is how many items a page of a list has at most, and by default.
const MaxPageSize = 25

// DefaultTenant is the tenant of a server whose options give none.
const DefaultTenant = "11111111-2222-3333-4444-555555555555"

// Options configure a Server. Nil is all defaults.
type Options struct {
	// URL is what the vault calls itself, as in its key identifiers. The default is
	// https://127.0.0.1:PORT. Under another name, such as
	// https://contoso.vault.azure.net, only [Server.Client] finds it.
	URL string
	// Address to listen on, which must be a loopback address. The default is a free
	// port of 127.0.0.1.
	Address string
	// InMemory serves without a network: only [Server.Client] gets through, and URL is
	// https://contoso.vault.azure.net by default. It works inside a bubble of package
	// testing/synctest, in which a network connection would never come to rest.
	InMemory bool

	// Tenant that owns the vault. The default is [DefaultTenant].
	Tenant string
	// Audience of the tokens that are accepted. The default is https://vault.azure.net.
	Audience string
	// AccessPolicies words refusals as a vault with access policies does. The default
	// is role-based access.
	AccessPolicies bool

	// Dir is where the file vault is. The default is a new directory, which Close
	// removes.
	Dir string
	// PurgeProtection and RetentionDays are the file vault's.
	PurgeProtection bool
	RetentionDays   int
	// BackupSecret is the file vault's: servers with the same one restore each other's
	// backups, as key vaults of one subscription and geography do. The default is one of
	// the server's own.
	BackupSecret local.Secret
	// Clock tells whether a key is in date. The default is the system's.
	Clock vault.Clock

	// PageSize is how many items a page of a list has if the client does not say. The
	// default is [MaxPageSize].
	PageSize int

	// RequestID is the id of every request. The default is another one for each.
	RequestID string

	// Limit is how many operations are served in any time of LimitWindow, an
	// operation with a key of type RSA-HSM counting twice; more are answered 429. The
	// default is no limit.
	Limit int
	// LimitWindow is 10 seconds by default.
	LimitWindow time.Duration
	// RetryAfter is the header of those answers, such as "1". The default is none.
	RetryAfter string
}

// Server is a key vault. It is safe for concurrent use.
type Server struct {
	opts   Options
	url    string
	vault  *local.Vault
	remove string // directory, or ""
	http   *http.Server
	lis    net.Listener
	cert   []byte // PEM
	roots  *x509.CertPool
	secret []byte // tokens are authenticated with

	mu         sync.Mutex
	tenant     string               // that owns the vault
	identities map[string]*identity // by application id
	hsm        map[string]bool      // keys of type RSA-HSM
	notify     map[string]string    // by key: when its policy tells of an expiry
	tags       map[string]tags      // by key and version
	faults     []*fault
	dialErr    func(host string) error
	conns      map[net.Conn]struct{}
	requests   map[string]int // by operation
	served     []stamp        // in the window
	clients    []*http.Client
	nextID     uint64
}

// passphrase of a vault that is gone with the process.
var passphrase = []byte("a key vault for tests")

// New starts a server. Close stops it.
func New(opts *Options) (_ *Server, err error) {
	s := &Server{identities: map[string]*identity{}, hsm: map[string]bool{}, notify: map[string]string{}, tags: map[string]tags{},
		conns: map[net.Conn]struct{}{}, requests: map[string]int{}, secret: make([]byte, 32)}
	rand.Read(s.secret)
	if opts != nil {
		s.opts = *opts
	}
	s.defaults()
	s.tenant = s.opts.Tenant
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.openVault(); err != nil {
		return nil, err
	}
	if s.opts.InMemory {
		s.lis = newPipeListener()
	} else {
		if s.lis, err = net.Listen("tcp", s.opts.Address); err != nil {
			return nil, fmt.Errorf("keyvaulttest: %w", err)
		}
		if a, ok := s.lis.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			return nil, fmt.Errorf("keyvaulttest: %s is not a loopback address", s.opts.Address)
		}
	}
	if s.url = s.opts.URL; s.url == "" {
		s.url = "https://" + s.lis.Addr().String()
	}
	u, err := url.Parse(s.url)
	if err != nil {
		return nil, fmt.Errorf("keyvaulttest: %w", err)
	}
	cert, err := s.certificate(u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("keyvaulttest: make a certificate: %w", err)
	}
	s.http = &http.Server{
		Handler:     s,
		TLSConfig:   &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ConnState:   s.track,
		ErrorLog:    log.New(io.Discard, "", 0), // connections that are cut are meant to be
		ReadTimeout: time.Minute,
	}
	go s.http.Serve(tls.NewListener(s.lis, s.http.TLSConfig))
	return s, nil
}

func (s *Server) defaults() {
	o := &s.opts
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	if o.Tenant == "" {
		o.Tenant = DefaultTenant
	}
	if o.Audience == "" {
		o.Audience = "https://vault.azure.net"
	}
	if o.InMemory && o.URL == "" {
		o.URL = "https://contoso.vault.azure.net"
	}
	if o.PageSize == 0 {
		o.PageSize = MaxPageSize
	}
	if o.LimitWindow == 0 {
		o.LimitWindow = 10 * time.Second
	}
}

func (s *Server) openVault() (err error) {
	dir := s.opts.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "keyvaulttest"); err != nil {
			return fmt.Errorf("keyvaulttest: %w", err)
		}
		s.remove = dir
		dir = filepath.Join(dir, "vault")
	}
	o := &local.Options{InsecureKDF: true, Clock: s.opts.Clock, PurgeProtection: s.opts.PurgeProtection, RetentionDays: s.opts.RetentionDays,
		BackupSecret: s.opts.BackupSecret,
		KDF:          local.KDF{Algorithm: local.PBKDF2, Passes: 1000}} // the passphrase is public anyway
	s.vault, err = local.OpenOrCreate(dir, passphrase, o)
	return err
}

// Close stops the server, cuts its connections and those of its clients, and removes
// the vault's directory if New made it.
func (s *Server) Close() error {
	var errs []error
	if s.http != nil {
		errs = append(errs, s.http.Close())
	} else if s.lis != nil {
		errs = append(errs, s.lis.Close())
	}
	s.mu.Lock()
	clients := s.clients
	for _, f := range s.faults {
		f.end()
	}
	s.mu.Unlock()
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	if s.vault != nil {
		errs = append(errs, s.vault.Close())
	}
	if s.remove != "" {
		errs = append(errs, os.RemoveAll(s.remove))
	}
	return errors.Join(errs...)
}

// URL returns the vault's URL.
func (s *Server) URL() string { return s.url }

// Tenant returns the tenant that owns the vault.
func (s *Server) Tenant() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenant
}

// Vault returns the file vault beneath, in its owner's hands.
func (s *Server) Vault() *local.Vault { return s.vault }

// Certificate returns the server's certificate, which is its own authority, in PEM.
func (s *Server) Certificate() []byte { return s.cert }

// Requests returns how many requests with a token there were for an operation (get,
// wrapKey, create and so on), or for all of them if op is "".
func (s *Server) Requests(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op != "" {
		return s.requests[op]
	}
	n := 0
	for _, m := range s.requests {
		n += m
	}
	return n
}

// requestID returns the id of a request, unlike every other's.
func (s *Server) requestID() string {
	if s.opts.RequestID != "" {
		return s.opts.RequestID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", s.nextID)
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
