package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// A KEK version that is out of date wraps nothing any more, and is a refusal: it closes a
// keyring and opens none. But a vault unwraps with it, and whoever rotated the key when its
// version had expired has done what is asked of them, if a bit late. So a keyring moves
// from such a version to its successor, a newer version of the same key, if the vault
// permits all of:
//
//   - GetKey, WrapKey and UnwrapKey with the successor, which is enabled and in date: the
//     same that any other move takes, and what the lease runs from;
//   - UnwrapKey with the version in use, which gives the document's secret.
//
// The first says that the customer gives access to the key now, and the second that they
// have not taken the old version away: one that is disabled, deleted, or lacks the operation
// or the permission, is not asked for what it may not do, and the error says to give that
// back. The document is moved, in storage, before anything is opened; nothing is ever served
// on the strength of a version that is out of date. See docs/adr/0013.

// outOfDate reports whether a refusal is for a version's dates and nothing else.
func outOfDate(err error) bool {
	kind := vault.Kind(err)
	return kind == vault.ErrKeyExpired || kind == vault.ErrKeyNotYetValid
}

// succeed moves the keyring from the version in use, which was refused for its dates, to a
// successor that the check found, and makes it available. If that cannot be done the refusal
// stands, and says why not and what can. The caller has the turn of checks.
func (r *Keyring) succeed(ctx context.Context, k, pinned *kek.KEK, d *stored, refusal error, requested bool) error {
	r.mu.Lock()
	newer, unfit := r.newer, r.unfit
	r.newer = "" // the move is made here, or not at all
	r.mu.Unlock()
	switch {
	case newer != "":
		return r.moveToSuccessor(ctx, k, k.WithVersion(newer), pinned, d, refusal, requested)
	case r.opts.ReadOnly:
		return fmt.Errorf("%w; if the key has a newer version, open it for writing, which moves it there", refusal)
	case k.ID().Version != "" || r.opts.PinVersion:
		return fmt.Errorf("%w; if the key has a newer version, RotateKEK moves it there", refusal)
	}
	if unfit != nil {
		return fmt.Errorf("%w; the key's current version cannot take its place: %v", refusal, unfit)
	}
	return refusal
}

// stillLocked says of a change that it could not be made because the keyring is locked.
func (r *Keyring) stillLocked(cause error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &lockedError{since: r.state.Since, cause: cause}
}

// moveToSuccessor moves to exact, a version of the same key; k is what the keyring follows
// from then on. d is the document that is moved, the keyring's or a later one.
func (r *Keyring) moveToSuccessor(ctx context.Context, k, exact, pinned *kek.KEK, d *stored, refusal error, requested bool) error {
	stays := func(err error) error {
		if errors.Is(err, errSessionEnded) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnexpected) || errors.Is(err, ErrConflict) {
			return err
		}
		// Whatever kept it from moving, the version in use is refused: the text of the
		// reason, and not its kind.
		return fmt.Errorf("%w; the keyring was not moved to the key's newer version %s: %v", refusal, exact.ID().Version, err)
	}
	t, err := r.prepare(ctx, exact)
	if err != nil {
		return stays(err)
	}
	defer t.destroy()
	t.kek = k
	old := pinned.ID()
	got, err := r.unwrap(ctx, pinned, vault.Wrapped{KeyID: old, Ciphertext: d.header.wrapped})
	if err != nil {
		return stays(err)
	}
	defer clear(got)
	if len(got) != secretSize {
		return r.wrongSecret(fmt.Sprintf("it unwrapped to %d bytes, want %d", len(got), secretSize))
	}
	e := Event{Kind: KEKChanged, Key: t.key.ID, Detail: fmt.Sprintf("a newer version, because %s is out of date", old.Version)}
	if r.session.Load() != nil {
		return r.succeedOpen(ctx, t, d, got, e, stays)
	}
	return r.succeedLocked(ctx, t, d, got, e, requested, stays)
}

// succeedOpen is the move of a keyring that is open: its version went out of date after the
// last check, which has had no consequence yet.
func (r *Keyring) succeedOpen(ctx context.Context, t *target, d *stored, got []byte, e Event, stays func(error) error) error {
	r.docMu.Lock()
	s := r.session.Load() // destroyed under docMu
	later := d.header.generation > r.header.generation
	same := s == nil || !d.sameWrap(&r.stored) || sameSecret(got, &s.secret)
	r.docMu.Unlock()
	switch {
	case s == nil:
		return errSessionEnded
	case !same:
		return r.wrongSecret("it unwrapped to another secret than before")
	case later:
		if err := r.takeUp(s, d, (*[secretSize]byte)(got)); err != nil {
			return err
		}
	}
	h, err := r.Acquire()
	if err != nil {
		return errSessionEnded
	}
	m, err := r.saveMove(ctx, &h, t, d)
	h.Release()
	if err != nil {
		return stays(err)
	}
	defer m.destroy()
	r.emit(e)
	return r.renew(h.s, m.proof)
}

// succeedLocked is the move of a keyring that is locked, which it opens. Nobody else in this
// process can change its document. What has to be known of it is known before anything is saved.
func (r *Keyring) succeedLocked(ctx context.Context, t *target, d *stored, got []byte, e Event, requested bool, stays func(error) error) error {
	b, m, err := r.saveSuccessor(ctx, t, d, (*[secretSize]byte)(got))
	if err != nil {
		return stays(err)
	}
	defer b.destroy()
	defer m.destroy()
	r.emit(e)
	return r.begin(&m.stored, b, &m.secret, m.proof, requested)
}

func (r *Keyring) saveSuccessor(ctx context.Context, t *target, d *stored, docSecret *[secretSize]byte) (_ *body, _ *move, err error) {
	b, err := openBody(d.sealed, docSecret, d.aad)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			b.destroy()
		}
	}()
	if err := r.admit(b, d.header.generation); err != nil {
		return nil, nil, err
	}
	// There is no session, and so no hold that Close would wait for: it ends the ctx of the swap and
	// waits for the turn, so that nothing is saved in a storage that its owner has closed.
	r.turn.Lock()
	defer r.turn.Unlock()
	if r.closed.Load() {
		return nil, nil, ErrClosed
	}
	changing, err := r.changing(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	defer changing.end()
	if err := r.takeFound(d, b); err != nil {
		return nil, nil, err
	}
	if err := r.claim(b); err != nil {
		return nil, nil, err
	}
	m, err := r.sealFor(t, b)
	if err != nil {
		return nil, nil, err
	}
	if err := r.swap(changing.ctx, &m.stored, b); err != nil {
		m.destroy()
		return nil, nil, err
	}
	r.adopt(m)
	// Also if nothing can begin with it: those that come are later ones of its line.
	r.knowOwner(b)
	r.mu.Lock()
	r.fingerprint = b.fingerprint()
	r.mu.Unlock()
	return b, m, nil
}

// succeedFirst makes a keyring that is locked, because its version is out of date, available
// for a change of the KEK to exact, if the version has a successor: exact itself, if it is of
// the same key, else the key's current version. It reports whether exact is where the keyring
// is now. The caller has the turn of checks.
func (r *Keyring) succeedFirst(ctx context.Context, k, exact *kek.KEK) (done bool, err error) {
	r.mu.Lock()
	refusal := r.state.Cause
	r.mu.Unlock()
	if r.session.Load() != nil || !outOfDate(refusal) {
		return false, nil
	}
	d, own, unseen := r.toAskOf(ctx, false)
	if unseen != nil {
		return false, unseen
	}
	inUse := d.header.current().key
	pinned := kek.New(own.Vault(), inUse)
	same := exact.ID().Name == inUse.Name && (exact.ID().Vault == "" || exact.ID().Vault == inUse.Vault)
	if !same {
		k, exact = own, kek.New(own.Vault(), inUse.Versionless())
	}
	// The dates may have been changed since, and what else was said of the version.
	old, refusal := r.getKey(ctx, pinned)
	if !outOfDate(refusal) {
		if refusal == nil {
			refusal = r.ask(ctx, true, true)
		}
		return false, refusal
	}
	key, err := r.getKey(ctx, exact)
	switch {
	case key.ID == inUse:
		return false, fmt.Errorf("%w; the key has no newer version: make one, or change the date", refusal)
	case err != nil:
		return false, fmt.Errorf("%w; the version that it was to be moved to: %v", refusal, err)
	case r.wentBack(old.Created, key):
		return false, fmt.Errorf("%w; %s is older: an older version is no successor", refusal, key.ID)
	}
	exact = exact.WithVersion(key.ID.Version)
	if !same && k.ID().Version != "" {
		k = exact // which was given with a version: it is another now
	}
	err = r.moveToSuccessor(ctx, k, exact, pinned, &d, refusal, true)
	return same && err == nil, err
}
