package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// storeFlags are what the commands on stores share.
type storeFlags struct {
	name        string // of the store in its directory; "": the only one
	fingerprint string
	generation  uint64
	anchor      string     // file
	other       vaultFlags // holds the keys that the store is being moved away from
	vaultRate   int
	rewriteRate int64
}

func (a *app) storeCommand() *cobra.Command {
	c := a.group("store", "run stores, and move them from key to key", `Store opens the store in a directory on the KEK that its keyring says, from --vault, does
one thing, and closes it. It stays on that KEK version until store rotate moves it.

A directory has one store, or many, each on a KEK of its own: --store says which. list shows
them, create makes one more, move carries one elsewhere, drop removes one.

While another process has the directory open, all of these commands end with exit status
5. list, inspect, usage, move and drop need no key, but that of the files of a
directory that is under one (store files).`)
	f := &storeFlags{}
	a.vault.add(c, "", "the vault with the store's KEK")
	a.audit.add(c)
	p := c.PersistentFlags()
	f.addStore(c)
	a.addFileKEK(c)
	p.StringVar(&f.fingerprint, "expect-fingerprint", "", "refuse a store with another fingerprint (store state shows it), with exit status 4")
	p.Uint64Var(&f.generation, "expect-generation", 0, "refuse a store whose keyring has a lesser generation: an old copy was put in its place")
	f.addAnchor(c)
	c.MarkFlagsMutuallyExclusive("anchor", "expect-fingerprint")
	c.MarkFlagsMutuallyExclusive("anchor", "expect-generation")
	f.other.add(c, "from-", "another vault, which holds keys that the store or its copies were on before")
	c.AddCommand(a.storeInit(f), a.storeCreate(f), a.storeList(), a.storeDrop(f), a.storeDropped(), a.storeMove(f), a.storeInspect(f), a.storeState(f), a.storeRevalidate(f), a.storeVerify(f), a.storeUsage(f),
		a.storePut(f), a.storeGet(f), a.storeDelete(f), a.storeBlocks(f),
		a.storeRotate(f), a.storeRelocate(f), a.storeRekey(f), a.storeRewrap(f), a.storeErase(f), a.storeCheckpoint(f), a.storeCopies(f), a.storeFiles())
	return c
}

// openStore is an open store and what it was opened with.
type openStore struct {
	*block.Store
	app   *app
	dir   string // absolute
	name  string // in the directory; "": it is the only one there
	id    string // the store's, by which the audit log knows it
	vault *opened
	line  *cli.Line

	mu     sync.Mutex
	events []keyring.Event
}

// withStore runs do with the store open that the first argument names. That the
// store is Inaccessible is for do to notice.
func (a *app) withStore(f *storeFlags, do func(ctx context.Context, s *openStore, args []string) error) func(context.Context, []string) error {
	return a.withStoreAndKEKs(f, false, do)
}

// withStoreAndKEKs is withStore; with all, the keys are at hand too that registered copies are
// on and that the keyring was on before, which takes a walk over the DEK records.
func (a *app) withStoreAndKEKs(f *storeFlags, all bool, do func(ctx context.Context, s *openStore, args []string) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) (err error) {
		if _, err := a.vaultDir(&a.vault); err != nil {
			return err
		}
		info, err := a.inspectKeyring(ctx, args[0], f.name)
		if err != nil {
			return err
		}
		session, err := a.open(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.close()) }()
		s, k, opts, err := a.prepareStore(ctx, f, session, args[0], info, all)
		if err != nil {
			return err
		}
		s.Store, err = block.Open(ctx, args[0], k, opts)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		return do(ctx, s, args)
	}
}

// prepareStore returns what a store is opened with, whose keyring document says info, and the store
// without what is open of it.
func (a *app) prepareStore(ctx context.Context, f *storeFlags, session *session, dir string, info keyring.Info, all bool) (s *openStore, k *kek.KEK, opts *block.Options, err error) {
	s = &openStore{app: a, id: info.StoreID.String(), name: f.name, line: cli.NewLine(a.err)}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, nil, err
	}
	if s.vault, err = session.vault(&a.vault); err != nil {
		return nil, nil, nil, err
	}
	vaults := []*opened{s.vault}
	if f.other.dir != "" {
		o, err := session.vault(&f.other)
		if err != nil {
			return nil, nil, nil, err
		}
		vaults = append(vaults, o)
	}
	if s.vault.ID() != info.KEK.Vault {
		return nil, nil, nil, fmt.Errorf("the store %s is on %s, and the vault %s is %s: %w; if that has the same key now: store relocate", dir, info.KEK, a.vault.dir, s.vault.ID(), keyring.ErrWrongKEK)
	}
	opts = a.storeOptions(s)
	if opts.FileKEK, _, err = session.fileKEKOf(dir); err != nil {
		return nil, nil, nil, err
	}
	opts.VaultRate, opts.RewriteRate = f.vaultRate, f.rewriteRate
	opts.Keyring.Anchor = f.kept()
	var ids []vault.KeyID
	for _, id := range info.KEKs {
		ids = append(ids, id)
	}
	if all {
		in, err := a.inspect(ctx, dir, f.name)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, u := range in.Keys {
			ids = append(ids, u.Key)
		}
		ids = append(ids, in.PastKEKs...)
	}
	opts.Keyring.OtherKEKs = s.otherKEKs(info.KEK, ids, vaults)
	return s, kek.New(s.vault.data(s.id), info.KEK.Versionless()), opts, nil
}

// otherKEKs returns the KEKs, beside the store's own, that records and copies of it
// may be wrapped by, from the vaults at hand.
func (s *openStore) otherKEKs(own vault.KeyID, ids []vault.KeyID, vaults []*opened) (keks []*kek.KEK) {
	seen := []vault.KeyID{own.Versionless()}
	for _, id := range ids {
		if id = id.Versionless(); slices.Contains(seen, id) {
			continue
		}
		seen = append(seen, id)
		for _, v := range vaults {
			if v.ID() == id.Vault {
				keks = append(keks, kek.New(v.data(s.id), id))
				break
			}
		}
	}
	return keks
}

// storeOptions are what this tool wants of a store: it does one thing at a time, when
// it is told to, and with little memory.
func (a *app) storeOptions(s *openStore) *block.Options {
	o := &block.Options{Name: s.name, ManualRewrap: true, RecordCache: -1, Pebble: block.PebbleOptions{BlockCache: 8 << 20, MemTable: 8 << 20}}
	o.Keyring.PinVersion = true
	o.Keyring.OnEvent = func(e keyring.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}
	if a.verbose {
		o.Keyring.Logger = slog.New(slog.NewTextHandler(a.err, nil))
	}
	return o
}

// progress shows how far a long operation is.
func (s *openStore) progress(what string) block.Progress {
	if s.app.json {
		return nil
	}
	return func(p block.Step) {
		s.line.Show(func() string {
			text := fmt.Sprintf("%s: %s", what, cli.Count(p.Done))
			if p.Total > 0 {
				text += " of " + cli.Count(p.Total)
				if p.Done > 0 && p.Done < p.Total {
					left := time.Duration(float64(p.Elapsed) / float64(p.Done) * float64(p.Total-p.Done))
					text += fmt.Sprintf(", %v left", left.Round(time.Second))
				}
			}
			return text
		})
	}
}

// failures returns the errors of events of a kind, by their details, when as many
// as are expected have come, or after a while: events come on a goroutine of the store's.
func (s *openStore) failures(kind keyring.EventKind, expected int, while time.Duration) map[string]error {
	errs := map[string]error{}
	for last := time.Now().Add(while); time.Now().Before(last); {
		s.mu.Lock()
		for _, e := range s.events {
			if e.Kind == kind && e.Err != nil {
				errs[e.Detail] = e.Err
			}
		}
		s.mu.Unlock()
		if len(errs) >= expected {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return errs
}

// creation is what a new store is made with.
type creation struct {
	key, wrapping string
	maxDEKs       uint64
	maxAge        daysFlag
}

func (c *creation) add(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.key, "key", "", "the `KEY`; without a version, the current one")
	f.StringVar(&c.wrapping, "wrapping", "keyring", "what wraps the DEKs: `keyring|kek`; kek costs a vault call for each block")
	f.Uint64Var(&c.maxDEKs, "epoch-max-deks", 0, "begin a new epoch after so many DEKs (default 2^28)")
	f.Var(&c.maxAge, "epoch-max-age", "begin a new epoch after so long (default 90d)")
	f.StringVar(&a.fileKEK.key, "files-key", "", "the `KEY` that the files of a new DIR are sealed under, of --files-vault; a directory that there is has one or has none")
	cmd.RegisterFlagCompletionFunc("wrapping", cobra.FixedCompletions([]string{"keyring", "kek"}, cobra.ShellCompDirectiveNoFileComp))
}

// options returns a store that is about to be made, and what with.
func (c *creation) options(v *opened, sf *storeFlags, dir, name string) (s *openStore, id vault.KeyID, opts *block.Options, err error) {
	if c.key == "" {
		return nil, id, nil, usagef("on which key? give --key")
	}
	if id, err = v.parseKey(c.key); err != nil {
		return nil, id, nil, err
	}
	s = &openStore{app: v.session.app, vault: v, name: name}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return nil, id, nil, err
	}
	opts = s.app.storeOptions(s)
	switch c.wrapping {
	case "keyring":
	case "kek":
		opts.Keyring.Wrapping = keyring.ByKEK
	default:
		return nil, id, nil, usagef("--wrapping is keyring or kek, not %q", c.wrapping)
	}
	opts.Keyring.EpochMaxDEKs, opts.Keyring.EpochMaxAge = c.maxDEKs, c.maxAge.d
	opts.RequireAccess, opts.Keyring.Anchor = true, sf.kept()
	return s, id, opts, nil
}

func (a *app) storeInit(sf *storeFlags) *cobra.Command {
	var made creation
	c := a.command("init DIR", "make a store on a key of the vault", `Init makes a store in DIR, which must be empty or not exist, on a key of the vault, and
remembers beside the vault that it did (vault stores). --store gives it another name than
"default". store create makes another one beside it.

The identity that the store works as needs get, wrapKey and unwrapKey: --identity.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			s, id, opts, err := made.options(v, sf, args[0], sf.name)
			if err != nil {
				return err
			}
			if _, err := a.lookAt(ctx, s.dir, ""); err == nil || errors.Is(err, block.ErrNoStore) {
				return fmt.Errorf("there is a store in %s already: %w; store create makes another one beside it", s.dir, keyring.ErrExists)
			}
			// Remembered first: a store that nobody knows of is what the list is against.
			if err := a.remember(v.dir, s.dir); err != nil {
				return err
			}
			// The store has no id yet: in the audit log its directory stands for it.
			opts.FileKEK, err = a.fileKEKFor(v.session, s.dir)
			if err == nil {
				s.Store, err = block.Open(ctx, args[0], kek.New(v.data(s.dir), id), opts)
			}
			if err != nil {
				return errors.Join(err, a.forgetNone(v.dir, s.dir))
			}
			return errors.Join(a.showState(s), s.Close())
		}))
	made.add(a, c)
	return c
}

// forgetNone forgets a directory in which nothing has come to be.
func (a *app) forgetNone(vaultDir, dir string) error {
	if _, none := block.InspectKeyring(dir, nil); !errors.Is(none, block.ErrNotStore) {
		return nil
	}
	return a.forget(vaultDir, dir)
}

type stateView struct {
	Name        string     `json:"name,omitempty"` // if it was asked for by its name
	Store       string     `json:"store"`
	Instance    string     `json:"instance"`
	Directory   string     `json:"directory"`
	Status      string     `json:"status"`
	Cause       string     `json:"cause,omitempty"`
	KEK         string     `json:"kek"`
	KEKExpires  *time.Time `json:"kekExpires"`
	LeaseEnd    *time.Time `json:"leaseEnd"`
	Epoch       uint32     `json:"epoch,omitempty"`
	Epochs      int        `json:"epochs,omitempty"`
	Generation  uint64     `json:"generation"`
	Sequence    uint64     `json:"sequence"`
	Fingerprint string     `json:"fingerprint,omitempty"`
	VaultCalls  uint64     `json:"vaultCalls"`
}

// showState shows a store's state. Its error matches block.ErrInaccessible if the
// store does not serve.
func (a *app) showState(s *openStore) error {
	st := s.State()
	calls := s.VaultCalls()
	w := stateView{Name: s.name, Store: s.StoreID().String(), Instance: s.Instance(), Directory: s.dir, Status: st.Status.String(),
		KEK: st.KEK.String(), KEKExpires: date(st.KEKExpires), LeaseEnd: date(st.LeaseEnd), Epoch: st.Epoch, Epochs: st.Epochs,
		Generation: st.Generation, Sequence: s.Sequence(), Fingerprint: s.Fingerprint(), VaultCalls: calls.Get + calls.Wrap + calls.Unwrap}
	if st.Cause != nil {
		w.Cause = st.Cause.Error()
	}
	err := a.show(w, func(t *table) {
		if w.Name != "" {
			t.row("name", t.name(w.Name))
		}
		t.row("store", w.Store)
		t.row("instance", w.Instance)
		t.row("directory", w.Directory)
		t.row("status", w.Status)
		if w.Cause != "" {
			t.row("cause", w.Cause)
		}
		t.row("KEK", w.KEK)
		t.row("KEK expires", w.KEKExpires)
		if w.Epochs > 0 {
			t.row("epoch", fmt.Sprintf("%d, of %d", w.Epoch, w.Epochs))
		}
		t.row("generation", w.Generation)
		t.row("sequence", w.Sequence)
		t.row("fingerprint", dash(w.Fingerprint))
		t.row("vault calls", w.VaultCalls)
	})
	if err == nil && st.Status == keyring.Inaccessible {
		return errors.Join(errSilent, block.ErrInaccessible)
	}
	return err
}

func (a *app) storeState(f *storeFlags) *cobra.Command {
	return a.command("state DIR", "ask the vault, and show whether the store serves", `State opens the store, which asks the vault, and shows whether it serves, and if not, why.
Exit status 3 if the store is Inaccessible.

Keep the fingerprint and the generation elsewhere: --expect-fingerprint and
--expect-generation refuse a store that was put in the place of this one. --anchor keeps
them in a file, with the sequence number, and moves them along.`,
		a.withStore(f, func(_ context.Context, s *openStore, _ []string) error { return a.showState(s) }))
}

func (a *app) storeRevalidate(f *storeFlags) *cobra.Command {
	return a.command("revalidate DIR", "ask the vault again; make a copy a store", `Revalidate asks the vault for the store's key, after access was given back. A copy that
store checkpoint made waits for it, and is a store of its own from then on: the vault
remembers it (vault stores).`,
		a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
			if err := s.Revalidate(ctx); err != nil {
				return fmt.Errorf("%w: %w", block.ErrInaccessible, err)
			}
			if err := a.remember(s.vault.dir, s.dir); err != nil {
				return err
			}
			return a.showState(s)
		}))
}
