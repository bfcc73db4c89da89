package keyring

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/spread"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// StoreID names a store: 16 random bytes, fixed for its life, part of every AAD.
type StoreID [storeIDSize]byte

// String returns 32 hexadecimal digits.
func (id StoreID) String() string { return hex.EncodeToString(id[:]) }

// Keyring is an open keyring. All its methods are safe for concurrent use.
//
// Locks, in the order in which they are taken: checks, turn, changes, docMu, mu. No vault
// is called under turn, changes, docMu or mu, and no storage under docMu or mu.
type Keyring struct {
	// What each operation looks at. Of a thousand keyrings that are used in turns, none is in a core's cache
	// when it is used next; so this is small, and many of them lie in one page of memory.
	session  atomic.Pointer[session] // nil: locked or closed
	clock    vault.Clock
	inFlight spread.Lines[inner.InFlight]
	storeID  StoreID
	// wrapsByKEK is whether new DEKs are wrapped ByKEK: policy.wrapping, for the
	// hot path.
	wrapsByKEK atomic.Bool

	*cold
}

// cold is the rest of a keyring.
type cold struct {
	opts      Options
	anchoring anchoring
	storage   Storage
	events    events
	calls     callCounts

	reloading reloading
	admitting chan struct{} // admits one call of Admit (inner.Options) at a time; nothing else is held

	locked atomic.Pointer[lockedError] // why there is no session, or why the last one ended
	closed atomic.Bool

	pins atomic.Int64 // of all sessions that anything is open of
	// forgetting is whether somebody waits to erase epochs that were dropped.
	forgetting atomic.Bool

	ctx    context.Context // ends with Close; vault calls run under it
	cancel context.CancelCauseFunc

	// checks admits one at a time of: a check, a change of the KEK.
	checks     chan struct{}
	checkAgain atomic.Bool // a reason for a check came while one was under way
	// turn orders changes of access: opening a session, extending, locking.
	turn sync.Mutex

	// changes admits one change of the document at a time; see changing.
	changes chan struct{}

	// docMu is held for a moment only. Who changes what follows while there is a session has the
	// turn of changes too.
	docMu sync.Mutex // the document: what follows, and every session's secret
	stored
	table kekTable
	owning
	kek    *kek.KEK   // the KEK of new documents: a version if the caller gave one, and always a vault
	others []*kek.KEK // other KEKs, for older ByKEK records

	mu    sync.Mutex // what follows
	state State
	access
	monitor
}

// Create makes a new keyring in s, with a first epoch, wrapped by k, and returns
// it available. It asks the vault for the key's properties, one wrap and one
// unwrap, and saves nothing before the unwrap gave back what was wrapped. It
// returns [ErrExists] if s has a document.
func Create(ctx context.Context, s Storage, k *kek.KEK, opts *Options) (*Keyring, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := requireBoth(s, k); err != nil {
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	if o.ReadOnly {
		return nil, fmt.Errorf("keyring: create: %w", ErrReadOnly)
	}
	least, err := loadAnchor(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	if least != (Point{}) {
		return nil, fmt.Errorf("keyring: create: a keyring was expected, of which the anchor holds %v, and there is none: %w"+howToAccept, least, ErrUnexpected)
	}
	switch _, _, err := s.Load(ctx); {
	case err == nil:
		return nil, fmt.Errorf("keyring: create: %w", ErrExists)
	case !errors.Is(err, ErrNoDocument):
		return nil, fmt.Errorf("keyring: create: load: %w", err)
	}
	r := newKeyring(s, k, o)
	rand.Read(r.storeID[:])
	r.header.storeID = r.storeID

	p := policy{wrapping: ByKeyring, maxDEKs: DefaultEpochMaxDEKs, maxAge: DefaultEpochMaxAge}
	p.overlay(&o)
	b := newBody(p, r.wallNow())
	b.instance = o.For(inner.Block{}).Instance
	defer b.destroy()
	t, err := r.prepare(ctx, k)
	if err != nil {
		r.abandon()
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	defer t.destroy()
	m, err := r.sealFor(t, b)
	if err != nil {
		r.abandon()
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	defer m.destroy()
	if err := r.swapAlone(ctx, &m.stored, b); err != nil {
		r.abandon()
		if errors.Is(err, ErrConflict) {
			err = fmt.Errorf("%w: somebody else made it meanwhile: %w", ErrExists, err)
		}
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	r.adopt(m)
	if err := r.begin(&r.stored, b, &m.secret, m.proof, true); err != nil {
		r.abandon()
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	r.startMonitor()
	_ = r.anchorNow(ctx) // which tells of it, and is tried again
	return r, nil
}

// Open opens the keyring in s, which k wraps. With one GetKey, one WrapKey and
// one UnwrapKey it comes back available. If the vault refuses or does not answer
// it comes back locked, with the reason in its state, so that it can be
// revalidated (Options.RequireAccess makes that an error). A damaged document, or
// one of another KEK or another store, is an error.
//
// A KEK without a version follows the key: the document says which version to
// unwrap with. One without a vault is taken for that of the document's vault, and the
// vault refused if it answers as another: to move to a key of the same name in
// another vault, open with the one and ChangeKEK to the other. If it is the same key that is
// in another vault now, and the one before is gone, see [Relocate].
func Open(ctx context.Context, s Storage, k *kek.KEK, opts *Options) (*Keyring, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := requireBoth(s, k); err != nil {
		return nil, fmt.Errorf("keyring: open: %w", err)
	}
	least, err := loadAnchor(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("keyring: open: %w", err)
	}
	doc, revision, err := s.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("keyring: open: load: %w", err)
	}
	d, err := parseStored(doc, revision)
	if err != nil {
		return nil, err
	}
	if cur := d.header.current().key; !sameKey(k.ID(), cur) {
		return nil, fmt.Errorf("keyring: open: the keyring is wrapped by %s, not by %s: %w; open it with that key, then ChangeKEK; or, if it is the same key in another place now, Relocate",
			cur, k.ID().Versionless(), ErrWrongKEK)
	}
	if err := generationExpected(d.header.generation, least); err != nil {
		return nil, err
	}
	r := newKeyring(s, inVault(k, d.header.current().key.Vault), o)
	r.anchoring.least, r.anchoring.at = least, least
	r.storeID = d.header.storeID
	r.take(d)

	if o.For(inner.Block{}).AwaitRevalidate {
		r.awaiting = true
		r.stayLocked(errCopy)
	} else if err := r.firstCheck(ctx); err != nil {
		r.abandon()
		return nil, fmt.Errorf("keyring: open: %w", err)
	}
	r.startMonitor()
	_ = r.anchorNow(ctx) // which tells of it, and is tried again
	return r, nil
}

// firstCheck is Open's: an error of the vault leaves the keyring locked, unless
// access is required; an error of the document or of the caller's is returned. With
// access required that of the storage is too, if the policy could not be saved;
// without, the next check tries again.
func (r *Keyring) firstCheck(ctx context.Context) error {
	if err := r.takeChecks(ctx); err != nil {
		return err
	}
	err := r.checkHeld(ctx, true, true)
	r.giveChecks()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion), errors.Is(err, ErrUnexpected):
		return err
	case r.opts.RequireAccess && r.session.Load() != nil:
		return err // the vault said yes
	case r.opts.RequireAccess:
		return &lockedError{since: r.clock.Now(), cause: err}
	}
	return nil
}

func newKeyring(s Storage, k *kek.KEK, o Options) *Keyring {
	r := &Keyring{clock: o.Clock, cold: &cold{
		opts:      o,
		storage:   s,
		kek:       k,
		others:    slices.Clone(o.OtherKEKs), // which is the caller's, who may give it to several
		checks:    make(chan struct{}, 1),
		changes:   make(chan struct{}, 1),
		admitting: make(chan struct{}, 1),
		anchoring: anchoring{turn: make(chan struct{}, 1)},
		reloading: reloading{loads: make(chan struct{}, 1)},
		events:    events{logger: o.Logger, onEvent: o.OnEvent},
		owning:    owning{sharing: o.For(inner.Block{}).Shared},
	}}
	if room := o.For(inner.Block{}).Room; room != nil {
		r.inFlight = spread.Take(room, r)
	} else {
		r.inFlight = spread.New[inner.InFlight]()
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.anchor()
	r.locked.Store(&lockedError{since: r.clock.Now(), cause: errUnchecked})
	r.state = State{Status: Inaccessible, Since: r.locked.Load().since, Cause: errUnchecked}
	return r
}

// StoreID returns the store's id.
func (r *Keyring) StoreID() StoreID { return r.storeID }

// Fingerprint names the keyring for [Expect] and [Point]: 64 hexadecimal digits that
// only someone who opened this keyring can have put into its document. It is
// known once the keyring was available.
func (r *Keyring) Fingerprint() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fingerprint
}

// Wrapping returns how new DEKs are wrapped.
func (r *Keyring) Wrapping() Wrapping {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy.wrapping
}

// KEK returns the KEK that wraps the keyring, without I/O.
func (r *Keyring) KEK() *kek.KEK {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.kek
}

// Close locks the keyring for good, after the operations in flight. What was
// wrapped stays openable by the next Open. Closing twice does nothing. An anchor that
// was not advanced is an error too, which says so: the keyring is closed, and whole.
func (r *Keyring) Close() error {
	if r.closed.Load() {
		return nil
	}
	err := errors.Join(r.settleReservations(), r.anchorNow(context.Background()))
	if !r.end(true) {
		return nil
	}
	return err
}

// abandon ends a keyring that nobody is given, because something failed: the keys
// that the vault gave already are destroyed, and no timer is left. Unlike Close it
// saves nothing, and tells of its end only those who heard of a beginning.
func (r *Keyring) abandon() { r.end(r.session.Load() != nil) }

// end reports whether it was the first.
func (r *Keyring) end(tell bool) bool {
	r.cancel(ErrClosed) // first, because a swap that goes on has the turn
	r.turn.Lock()
	defer r.turn.Unlock()
	if r.closed.Swap(true) {
		return false
	}
	r.stopMonitor()
	from := r.endSession(fmt.Errorf("keyring: %w", ErrClosed))
	r.reloading.loads <- struct{}{} // for good: the owner of the storage may close it now
	r.mu.Lock()
	r.state.Status, r.state.Cause, r.state.Since = Closed, nil, r.clock.Now()
	r.mu.Unlock()
	if tell {
		r.emit(Event{Kind: StateChanged, From: from, To: Closed})
	}
	return true
}

// Elapsed is the keyring's monotonic clock; see [vault.Clock].
func (f *forBlock) Elapsed() time.Duration {
	r := (*Keyring)(f)
	return r.clock.Elapsed()
}

// Sleep waits until d has elapsed on the keyring's clock, ctx ends, or the keyring
// closes.
func (f *forBlock) Sleep(ctx context.Context, d time.Duration) error {
	r := (*Keyring)(f)
	rang := make(chan struct{})
	defer r.clock.AfterFunc(d, func() { close(rang) })()
	select {
	case <-rang:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ctx.Done():
		return fmt.Errorf("keyring: %w", ErrClosed)
	}
}

// AfterFunc runs f when d has elapsed on the keyring's clock, unless stop is called
// before; see [vault.Clock].
func (b *forBlock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	r := (*Keyring)(b)
	return r.clock.AfterFunc(d, f)
}

// Now is the keyring's wall clock; see [vault.Clock].
func (f *forBlock) Now() time.Time {
	r := (*Keyring)(f)
	return r.clock.Now()
}
