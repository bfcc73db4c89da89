package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

// vaultFlags say which vault, and as whom.
type vaultFlags struct {
	prefix   string // of the flags and, in capitals, of the variables: "", "to-", "from-"
	dir      string
	file     string // of the passphrase
	identity string
}

// add adds the flags to a command and those beneath it.
func (v *vaultFlags) add(c *cobra.Command, prefix, whose string) {
	v.prefix = prefix
	f := c.PersistentFlags()
	def := ""
	if prefix == "" {
		def = " (default: $BLOCKSEAL_VAULT)"
	}
	f.StringVar(&v.dir, prefix+"vault", "", "`directory` of "+whose+", or https://NAME.vault.azure.net"+def)
	f.StringVar(&v.file, prefix+"passphrase-file", "", "`file` with the passphrase of "+whose+", a file vault (default: $"+v.env("PASSPHRASE")+", or the terminal)")
	f.StringVar(&v.identity, prefix+"identity", "", "act as this `identity` of a file vault, with what it is granted (default: as the owner)")
	c.MarkPersistentFlagDirname(prefix + "vault")
}

func (v *vaultFlags) env(name string) string {
	return "BLOCKSEAL_" + strings.ReplaceAll(strings.ToUpper(v.prefix), "-", "_") + name
}

func (v *vaultFlags) passphrase() secretSource {
	return secretSource{what: "passphrase of the vault " + v.dir, file: v.file, flag: v.prefix + "passphrase-file", env: v.env("PASSPHRASE")}
}

// auditFlags say where vault operations are recorded.
type auditFlags struct {
	dir     string
	maxFile int64
}

func (f *auditFlags) add(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.dir, "audit", "", "record each vault operation in the audit log in this `directory`; what cannot be recorded is not done, or reported (default: $BLOCKSEAL_AUDIT, or no log)")
	c.PersistentFlags().Int64Var(&f.maxFile, "audit-file-size", audit.DefaultMaxFileSize, "begin another file of the log after so many `bytes`")
	c.MarkPersistentFlagDirname("audit")
}

// session is one or more open vaults and the log of what is done with them.
type session struct {
	app    *app
	ctx    context.Context // of the command, for what a vault does by itself
	uses   int             // by a command and what it calls
	vaults []*local.Vault
	known  []*opened  // for who asks for one of them again
	owner  sync.Once  // that a store is used as the owner is said once
	log    *audit.Log // nil: none

	mu         sync.Mutex
	unrecorded []error // of what a vault did by itself
}

// open returns a session with a's audit log, if there is one to be. Within a command there is one: the log
// is open once. Each call has its close.
func (a *app) open(ctx context.Context) (*session, error) {
	if a.session != nil {
		a.session.uses++
		return a.session, nil
	}
	s, err := a.newSession(ctx)
	if err != nil {
		return nil, err
	}
	s.uses, a.session = 1, s
	return s, nil
}

func (a *app) newSession(ctx context.Context) (*session, error) {
	s := &session{app: a, ctx: ctx}
	dir := a.audit.dir
	if dir == "" {
		dir = a.getenv("BLOCKSEAL_AUDIT")
	}
	if dir == "" {
		return s, nil
	}
	log, err := a.openLog(dir, &audit.DirOptions{MaxFileSize: a.audit.maxFile})
	if err != nil {
		// A lock that another process holds has no sentinel, and no path either.
		if _, path := errors.AsType[*fs.PathError](err); !path && !errors.Is(err, audit.ErrCorrupt) && !errors.Is(err, audit.ErrVersion) {
			err = fmt.Errorf("%w: %w", err, errBusy)
		}
		return nil, err
	}
	s.log = log
	return s, nil
}

// vaultDir returns the vault's directory, or its URL.
func (a *app) vaultDir(f *vaultFlags) (string, error) {
	if f.dir == "" && f.prefix == "" {
		f.dir = a.getenv("BLOCKSEAL_VAULT")
	}
	if f.dir == "" {
		return "", usagef("which vault? give --%svault", f.prefix)
	}
	return f.dir, nil
}

// vault opens a vault that the session closes, or returns it if it is open.
func (s *session) vault(f *vaultFlags) (*opened, error) {
	dir, err := s.app.vaultDir(f)
	if err != nil {
		return nil, err
	}
	for _, v := range s.known {
		if v.given == dir && v.identity == f.identity {
			return v, nil
		}
	}
	v, err := s.openVault(f, dir)
	if err != nil {
		return nil, err
	}
	v.given = dir
	s.known = append(s.known, v)
	return v, nil
}

func (s *session) openVault(f *vaultFlags, dir string) (*opened, error) {
	if isKeyVault(dir) {
		return s.keyVault(f)
	}
	passphrase, err := s.app.readSecret(f.passphrase(), false)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	v, err := local.Open(dir, passphrase, s.vaultOptions(f.identity))
	if err != nil {
		return nil, err
	}
	return s.add(v, dir, f.identity), nil
}

// add makes the session close v.
func (s *session) add(v *local.Vault, dir, identity string) *opened {
	s.vaults = append(s.vaults, v)
	return &opened{Vault: v, session: s, dir: dir, identity: identity}
}

// vaultOptions are what this tool wants of a vault.
func (s *session) vaultOptions(identity string) *local.Options {
	return &local.Options{InsecureKDF: s.app.cheapKDF, OnEvent: func(e local.Event) {
		switch {
		case e.Kind == local.KeyNearExpiry:
			s.app.note("%v: %s, in %v", e.Kind, e.Key, e.Left)
		case e.Err != nil:
			s.app.note("%v: %s: %v", e.Kind, e.Key, e.Err)
		default:
			s.app.note("%v: %s", e.Kind, e.Key)
		}
		s.happened(identity, e)
	}}
}

func (s *session) close() error {
	if s.uses--; s.uses > 0 {
		return nil
	}
	s.app.session = nil
	var errs []error
	for _, v := range s.vaults {
		errs = append(errs, v.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(append(errs, s.unrecorded...)...)
}

// opened is an open vault in somebody's hands.
type opened struct {
	*local.Vault           // nil: a Key Vault
	azure        *keyVault // nil: a file vault
	session      *session
	dir          string // of a file vault; what the known stores are beside
	identity     string // "": the owner
	given        string // as it was asked for
}

// ID is the vault's own name for itself: the KeyID.Vault of its keys.
func (o *opened) ID() string {
	if o.azure != nil {
		return o.azure.store.URL()
	}
	return o.Vault.ID()
}

// admin is the control plane.
func (o *opened) admin() controlPlane {
	if o.azure != nil {
		return o.azure
	}
	return o.fileAdmin()
}

// fileAdmin is a file vault's.
func (o *opened) fileAdmin() *local.Administrator {
	if o.identity == "" {
		return o.Vault.Administrator
	}
	return o.Administer(o.identity)
}

// data is the data plane, recorded as used for a store: its id.
func (o *opened) data(store string) vault.Vault {
	var v vault.Vault = o.Vault
	switch {
	case o.azure != nil:
		v = o.azure.store
	case o.identity != "":
		v = o.As(o.identity)
	}
	if store != "" && o.azure == nil && o.identity == "" {
		o.session.owner.Do(func() {
			o.session.app.note("acting as the owner of the vault %s, for whom no grant counts; --identity NAME acts as the identity that the store has", o.dir)
		})
	}
	if o.session.log != nil {
		v = audit.New(v, o.session.log, &audit.Options{Identity: who(o.identity), Store: store, FailClosed: true,
			OnError: func(err error) { o.session.app.note("%v", err) }})
	}
	return v
}

// withVault runs do with the vault of the flags open.
func (a *app) withVault(do func(ctx context.Context, v *opened, args []string) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) (err error) {
		if _, err := a.vaultDir(&a.vault); err != nil {
			return err
		}
		s, err := a.open(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		v, err := s.vault(&a.vault)
		if err != nil {
			return err
		}
		return do(ctx, v, args)
	}
}
