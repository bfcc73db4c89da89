package keyring

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// BeginEpoch begins a new epoch: DEKs from now on are wrapped by a fresh key. The
// epochs before stay, for the DEKs that they wrapped. The new epoch is in storage
// before any DEK is wrapped by it. No vault is called. To be rid of the epochs before, use
// [Keyring.RotateEpoch].
func (r *Keyring) BeginEpoch(ctx context.Context) error {
	_, err := r.beginEpoch(ctx, "on request", func(*body) bool { return true })
	return r.thenAnchor(ctx, err)
}

// beginEpoch begins an epoch if one is due, and returns its id; 0: none was.
func (r *Keyring) beginEpoch(ctx context.Context, why string, due func(*body) bool) (started uint32, err error) {
	h, err := r.Acquire()
	if err != nil {
		return 0, err
	}
	defer h.Release()
	err = r.mutate(ctx, &h, func(b *body) error {
		started = 0
		if !due(b) {
			return errUnchanged
		}
		// One less than there may be, for a copy that begins an epoch of its own.
		if len(b.epochs) >= min(r.opts.MaxEpochs, MaxEpochs-1) {
			return fmt.Errorf("keyring: begin epoch: there are %d epochs already; drop those that nothing names: %w", len(b.epochs), ErrLimit)
		}
		b.addEpoch(r.wallNow())
		b.current().reserved = r.reserveStep(&b.policy, 0)
		started = b.current().id
		return nil
	}, h.publishEpoch)
	if err == nil && started != 0 {
		r.emit(Event{Kind: EpochStarted, Epoch: started, Detail: why})
	}
	return started, err
}

// beginEpochByAge begins a new epoch if the current one is older than the policy allows.
func (r *Keyring) beginEpochByAge(now time.Time) {
	if r.opts.ReadOnly {
		return
	}
	r.mu.Lock()
	maxAge := r.policy.epochAge()
	r.mu.Unlock()
	s := r.session.Load()
	if maxAge == 0 || s == nil {
		return
	}
	// One from further ahead than that was begun by a clock that was wrong, and would
	// not become old for as long as that was ahead.
	old := func(created time.Time) bool { return now.Sub(created).Abs() >= maxAge }
	set := s.epochs.Load()
	if set == nil || !old(set.current.created) {
		return
	}
	if len(set.all) >= r.autoEpochs() {
		r.tellTooManyEpochs(s, len(set.all))
		return
	}
	if !s.byAge.CompareAndSwap(false, true) {
		return // the storage is slow; one is enough
	}
	go func() {
		defer s.byAge.Store(false)
		_, err := r.beginEpoch(r.ctx, fmt.Sprintf("the epoch before was older than %v", maxAge), func(b *body) bool {
			return old(b.current().created)
		})
		if err == nil {
			s.ageTold.Store(false)
		} else if !errors.Is(err, ErrInaccessible) && r.ctx.Err() == nil && s.ageTold.CompareAndSwap(false, true) {
			r.emit(Event{Kind: Progressed, Detail: "no new epoch, though the current one is too old", Err: err})
		}
	}()
}

// autoEpochs is how many epochs there are before the keyring begins no more by itself.
// The rest is for those who rotate to get rid of the others.
func (r *Keyring) autoEpochs() int { return r.opts.MaxEpochs - max(r.opts.MaxEpochs/64, 1) }

// tellTooManyEpochs says, once in a session, that no epoch is begun any more.
func (r *Keyring) tellTooManyEpochs(s *session, n int) {
	if s.fullTold.CompareAndSwap(false, true) {
		r.emit(Event{Kind: Progressed, Detail: "no new epoch, though one is due",
			Err: fmt.Errorf("keyring: there are %d epochs; rotate epochs so that old ones are dropped: %w", n, ErrLimit)})
	}
}

// Epochs returns the ids of the epochs, ascending; the last is the current one.
func (r *Keyring) Epochs() ([]uint32, error) {
	h, err := r.Acquire()
	if err != nil {
		return nil, err
	}
	defer h.Release()
	var ids []uint32
	for _, e := range h.s.epochs.Load().all {
		ids = append(ids, e.id)
	}
	return ids, nil
}

// Epochs returns the epochs, by ascending id; the last is the current one.
func (f *holdForBlock) Epochs() []inner.EpochInfo {
	h := (*Hold)(f)
	var out []inner.EpochInfo
	for _, e := range h.s.epochs.Load().all {
		out = append(out, inner.EpochInfo{ID: e.id, Created: e.created})
	}
	return out
}

// move is a keyring's way to a KEK: a fresh secret wrapped by it and proven, the
// header that says so, and the body sealed under the new secret.
type move struct {
	stored
	secret [secretSize]byte
	kek    *kek.KEK
	key    vault.Key // its version, as the vault described it
	proof  proof
}

func (m *move) destroy() { clear(m.secret[:]) }

// target is a KEK that was admitted, wrapped a fresh secret, and gave it back.
type target struct {
	kek         *kek.KEK
	key         vault.Key
	fingerprint [32]byte
	secret      [secretSize]byte
	wrapped     []byte
	proof       proof
}

func (t *target) destroy() { clear(t.secret[:]) }

// prepare makes k ready to take over: one GetKey, one WrapKey, one UnwrapKey. The
// wrap is worth nothing until the vault has shown that it can undo it.
func (r *Keyring) prepare(ctx context.Context, k *kek.KEK) (t *target, err error) {
	key, err := r.getKey(ctx, k)
	if err != nil {
		return nil, err
	}
	t = &target{kek: k, key: key}
	defer func(t *target) {
		if err != nil {
			t.destroy()
		}
	}(t)
	if t.fingerprint, err = kek.Fingerprint(key.Public); err != nil {
		return nil, err
	}
	r.warnOfExpiry(key)
	t.key = key
	randomSecret(&t.secret)
	pinned := k.WithVersion(key.ID.Version)
	w, err := r.wrap(ctx, pinned, t.secret[:])
	if err != nil {
		return nil, err
	}
	if w.KeyID != key.ID {
		return nil, &vault.Error{Op: vault.OpWrapKey, Key: key.ID, Kind: vault.ErrUnsupportedKey,
			Detail: fmt.Sprintf("the vault wrapped with another key, %s", w.KeyID)}
	}
	t.wrapped = w.Ciphertext
	t.proof = proof{sent: r.clock.Elapsed(), wall: r.clock.Now(), expires: key.Expires}
	got, err := r.unwrap(ctx, pinned, w)
	if err != nil {
		return nil, err
	}
	defer clear(got)
	if subtle.ConstantTimeCompare(got, t.secret[:]) != 1 {
		return nil, &vault.Error{Op: vault.OpUnwrapKey, Key: key.ID, Kind: vault.ErrUnsupportedKey,
			Detail: "the vault unwrapped to another secret than was wrapped"}
	}
	return t, nil
}

// sealFor seals b for a target, as the generation after the current one.
func (r *Keyring) sealFor(t *target, b *body) (*move, error) {
	next := r.header.clone()
	next.generation++
	next.wrapped = t.wrapped
	if err := next.activate(t.key.ID, t.fingerprint, b); err != nil {
		return nil, err
	}
	d, err := sealStored(next, b, &t.secret)
	if err != nil {
		return nil, err
	}
	return &move{stored: d, secret: t.secret, kek: t.kek, key: t.key, proof: t.proof}, nil
}

// adopt takes a saved move for the document. docMu is held, or nobody else has
// the keyring yet.
func (r *Keyring) adopt(m *move) {
	old, now := r.header.current().key, m.header.current().key
	if old.Name != "" && old.Versionless() != now.Versionless() {
		r.leave(r.kek)
	}
	r.kek = inVault(m.kek, now.Vault)
	r.table.moved(old, now)
	r.take(m.stored)
	r.see(m.key)
}

// RotateKEK wraps the keyring with the newest version of its KEK. If it is the
// newest already, it is wrapped anew, under a fresh secret. See [Keyring.ChangeKEK].
// From then on the keyring follows the key's versions.
//
// A keyring that is locked because its version is out of date is moved to a newer version,
// if there is one and the vault unwraps with both, and is available then, also with
// PinVersion and ManualRevalidation.
//
// A newest version that has the public key of the one in use, as after the same key was
// imported again, is refused with [ErrSameKey]: whoever has the old one has that one too.
// ChangeKEK moves to its address.
func (r *Keyring) RotateKEK(ctx context.Context) error {
	return r.changeKEK(ctx, func() *kek.KEK { return r.KEK().WithVersion("") }, rotateKEK)
}

const rotateKEK = "rotate KEK"

// ChangeKEK wraps the keyring with k: another key, another vault, another kind of
// vault. It takes one GetKey, one WrapKey and one UnwrapKey, whatever the data.
// The new wrap has been proven by an unwrap and the document is in storage before
// the old KEK is let go; whatever fails before leaves everything as it was.
//
// A k with the public key of the KEK in use, as after a restore into another vault, is a
// new address of the same key and not another key; the event says so.
//
// A keyring that is locked because its version is out of date is moved as by RotateKEK
// first. One of which the version has no successor stays locked: the expiry is not gone
// around by a move to a key of somebody else's.
//
// DEKs that were wrapped ByKEK still need the KEK that wrapped them, until they
// are rewrapped; see [Keyring.KEKs].
func (r *Keyring) ChangeKEK(ctx context.Context, k *kek.KEK) error {
	if err := inner.RequireKEK(k); err != nil {
		return fmt.Errorf("keyring: change KEK: %w", err)
	}
	return r.changeKEK(ctx, func() *kek.KEK { return k }, "change KEK")
}

// changeKEK moves the keyring to what to says. If another keyring moves it meanwhile, everything
// is asked anew, with the document that it has then.
func (r *Keyring) changeKEK(ctx context.Context, to func() *kek.KEK, what string) error {
	if err := r.takeChecks(ctx); err != nil {
		return err
	}
	err := errMovedMeanwhile
	for tries := 0; errors.Is(err, ErrConflict) && tries < maxMoves; tries++ {
		k := to()
		err = r.changeKEKHeld(ctx, k, k, Event{Detail: what})
	}
	r.giveChecks()
	if err != nil {
		return fmt.Errorf("keyring: %s: %w", what, err)
	}
	return r.thenAnchor(ctx, nil)
}

// maxMoves is how often a change of the KEK is made again because another keyring has made
// one meanwhile; each takes calls to the vault.
const maxMoves = 16

// changeKEKHeld moves the keyring to exact, which is k or a version of it; k is
// what the keyring follows from then on. If the document is on another KEK by then, its
// error matches ErrConflict, and that document was taken up. The caller has the turn of checks.
func (r *Keyring) changeKEKHeld(ctx context.Context, k, exact *kek.KEK, e Event) error {
	if r.opts.ReadOnly {
		return ErrReadOnly
	}
	done, err := r.succeedFirst(ctx, k, exact)
	if err != nil {
		return r.stillLocked(err)
	}
	// No use asking the vault if the document cannot be opened.
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	h.Release()
	if done {
		return nil
	}

	t, err := r.prepare(ctx, exact)
	if err != nil {
		return err
	}
	defer t.destroy()
	if err := r.notBack(exact, t.key); err != nil {
		return err
	}
	t.kek = k
	r.docMu.Lock()
	old, from := r.header.current(), r.stored
	r.docMu.Unlock()
	if old.fingerprint == t.fingerprint && old.key != t.key.ID {
		if e.Detail == rotateKEK {
			return fmt.Errorf("%s, the newest version, has the public key of %s, which wraps the keyring, so that this would rotate nothing; "+
				"make a version with a key of its own, or change to that one if it is the address that is to change: %w", t.key.ID, old.key, ErrSameKey)
		}
		e.Detail += "; its public key is that of " + old.key.String() + ": a new address of the same key"
	}
	if h, err = r.Acquire(); err != nil {
		return err
	}
	m, err := r.saveMove(ctx, &h, t, &from)
	h.Release()
	if err != nil {
		return err
	}
	defer m.destroy()
	e.Kind, e.Key = KEKChanged, m.header.current().key
	r.emit(e)

	// The unwrap that proved the new wrap renews the lease like any other.
	r.turn.Lock()
	defer r.turn.Unlock()
	if s := r.session.Load(); s == h.s && int64(r.clock.Elapsed()) < s.deadline.Load() {
		r.extend(s, m.proof)
		r.setStatus(Available, nil)
	}
	return nil
}

// notBack refuses a version that the vault calls the current one and that is older than
// the one in use: see wentBack. Who names a version means it.
func (r *Keyring) notBack(asked *kek.KEK, current vault.Key) error {
	r.mu.Lock()
	inUse, seen := r.kekID, r.seenOfKEK()
	r.mu.Unlock()
	if asked.ID().Version != "" || current.ID == inUse || current.ID.Versionless() != inUse.Versionless() {
		return nil
	}
	if r.wentBack(seen.created, current) {
		return errOlder(current.ID, inUse)
	}
	return nil
}

// saveMove seals the document for t, saves it and takes it. What was found out of t was found
// with the document from: one that another keyring has saved since is taken up, and moved, if it
// is on the same wrap; else the error matches ErrConflict.
func (r *Keyring) saveMove(ctx context.Context, h *Hold, t *target, from *stored) (*move, error) {
	for range maxSwaps {
		m, err := r.saveMoveOnce(ctx, h, t, from)
		if !errors.Is(err, ErrConflict) || err == errMovedMeanwhile {
			return m, err
		}
		if err := h.reload(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("another keyring on the document was first, %d times in a row; try again: %w", maxSwaps, ErrConflict)
}

func (r *Keyring) saveMoveOnce(ctx context.Context, h *Hold, t *target, from *stored) (m *move, err error) {
	turn, err := r.changing(ctx, h.s)
	if err != nil {
		return nil, err
	}
	defer turn.end()
	ctx = turn.ctx
	if !r.sameWrap(from) {
		return nil, errMovedMeanwhile
	}
	if err := r.own(ctx, h); err != nil {
		return nil, err
	}
	b, err := openBody(r.sealed, &h.s.secret, r.aad)
	if err != nil {
		return nil, err
	}
	defer b.destroy()
	b.shared = max(b.shared, r.shared)
	if m, err = r.sealFor(t, b); err != nil {
		return nil, err
	}
	if err := r.swap(ctx, &m.stored, b); err != nil {
		m.destroy()
		// It may have been saved all the same: then this is the KEK that the document is opened with.
		r.knowOther(inVault(t.kek, t.key.ID.Vault))
		return nil, err
	}
	r.adopt(m)
	r.anchorSoon()
	h.s.secret = m.secret
	return m, nil
}
