package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// Revalidate asks the vault now: the key's properties, a wrap, and an unwrap of
// the keyring's own secret. On success the keyring is available, whether it was
// locked, waited as a copy, or was available anyway. On failure it returns the
// reason, which has taken effect as that of any other check.
//
// It also trusts the wall clock anew, in case that was wrong when the keyring
// was opened.
func (r *Keyring) Revalidate(ctx context.Context) error {
	r.anchor()
	return r.checkNow(ctx)
}

// checkNow waits for its turn and checks.
func (r *Keyring) checkNow(ctx context.Context) error {
	if err := r.takeChecks(ctx); err != nil {
		return err
	}
	defer r.giveChecks()
	return r.checkHeld(ctx, true, false)
}

// takeChecks takes the turn of checks and KEK changes; give it back with giveChecks.
func (r *Keyring) takeChecks(ctx context.Context) error {
	select {
	case r.checks <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("keyring: %w", ctx.Err())
	case <-r.ctx.Done():
	}
	if r.ctx.Err() != nil {
		return fmt.Errorf("keyring: %w", ErrClosed)
	}
	return nil
}

// giveChecks gives the turn of checks back, and checks once more if somebody had a reason to
// meanwhile: a check that was under way may have had its answers before that.
func (r *Keyring) giveChecks() {
	<-r.checks
	if r.checkAgain.Swap(false) {
		r.checkSoon()
	}
}

// checkHeld is one check and its consequences; requested says that somebody wants
// it, so that it may end a lock that waits for Revalidate; loaded, that the document was
// loaded a moment ago. The caller has the turn of checks.
func (r *Keyring) checkHeld(ctx context.Context, requested, loaded bool) error {
	start := r.clock.Elapsed()
	err := r.ask(ctx, requested, loaded)
	if errors.Is(err, errSessionEnded) {
		err = r.ask(ctx, requested, false)
	}
	for tries := 0; errors.Is(err, ErrConflict) && tries < maxMoves; tries++ {
		err = r.ask(ctx, requested, false)
	}
	if r.ctx.Err() != nil {
		return fmt.Errorf("keyring: %w", ErrClosed)
	}
	took := r.clock.Elapsed() - start
	if err != nil && ctx.Err() != nil && r.ctx.Err() == nil && vault.Transient(err) {
		// The caller gave up: nothing was learned, of the vault either.
		r.calls.checks.other.Add(1)
		return err
	}
	r.calls.checks.add(err)
	r.mu.Lock()
	r.state.LastCheck, r.state.LastCheckErr = r.clock.Now(), err
	if err == nil || said(err) && !isReload(err) {
		r.word = err
	}
	r.nextCheck = r.clock.Elapsed() + min(vault.RetryAfter(err), r.opts.Lease/4)
	id := r.kekID
	r.mu.Unlock()

	switch {
	case err == nil:
		r.emit(Event{Kind: CheckSucceeded, Key: id, Duration: took})
		r.takeUpVersion(ctx)
		err := r.savePolicy(ctx)
		r.anchorSoon()
		return err
	case errors.Is(err, errSessionEnded):
		// The vault said yes, and the lock stands: with the reason that it has.
		return err
	}
	r.emit(Event{Kind: CheckFailed, Key: id, Duration: took, Err: err})
	if isReload(err) && r.session.Load() != nil {
		// What the keyring has is good, and perhaps all that there is: it is not thrown away
		// for what was found in its place. Nor is the lease extended.
		r.degrade(err)
	} else if vault.Denied(err) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnexpected) {
		r.lock(nil, err)
	} else {
		r.degrade(err)
	}
	return err
}

// degrade records that nothing was learned. It takes nothing from the lease and
// adds nothing to it, and of a keyring that is locked for a reason that stands, as a
// denial does, it leaves the reason.
func (r *Keyring) degrade(cause error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	if r.closed.Load() {
		return
	}
	if r.session.Load() != nil {
		r.setStatus(Degraded, cause)
		return
	}
	r.mu.Lock()
	var ended *leaseError
	now := r.state.Cause
	if errors.As(now, &ended) {
		cause = r.leaseEnded(ended.why) // still the reason, with news
	}
	r.mu.Unlock()
	if stands(now) {
		return
	}
	r.endSession(cause)
	r.setStatus(Inaccessible, cause)
}

// ask looks for a later document, puts the three questions, and moves the keyring to the key's
// newer version if the one in use turns out to be out of date.
func (r *Keyring) ask(ctx context.Context, requested, loaded bool) error {
	ctx = vault.WithPriority(ctx)
	d, k, unseen := r.toAskOf(ctx, loaded)
	pinned := kek.New(k.Vault(), d.header.current().key)
	err := r.askOf(ctx, k, pinned, &d, unseen, requested)
	if outOfDate(err) && unseen == nil {
		err = r.succeed(ctx, k, pinned, &d, err, requested)
	}
	err = r.orOfOwn(ctx, &d, err, requested)
	if err != nil && !vault.Denied(err) && !isReload(err) {
		r.takeUpUnasked(&d)
	}
	return err
}

// takeUpUnasked takes up a later document with the session's secret, if there is one, when the vault
// has not answered: what another keyring dropped is to be gone. The vault comes first, because it
// may say no, and taking up may take long.
func (r *Keyring) takeUpUnasked(d *stored) {
	r.docMu.Lock()
	s := r.session.Load()
	due := s != nil && d.header.generation > r.header.generation && d.sameWrap(&r.stored)
	r.docMu.Unlock()
	if due {
		_ = r.takeUp(s, d, nil) // the next check looks again, and says why not
	}
}

// orOfOwn asks about the keyring's own document when what was asked about another one, found in
// storage, has failed. Nothing of that one has authenticated: anyone who can write there names a
// version in clear, and makes a wrap with its public key. So what the vault says of that version is
// no word about the keyring's, neither a no that locks it nor one that keeps a no from being heard;
// and the answer about the own one extends nothing.
func (r *Keyring) orOfOwn(ctx context.Context, d *stored, err error, requested bool) error {
	if err == nil || errors.Is(err, errSessionEnded) || errors.Is(err, ErrConflict) {
		return err
	}
	r.docMu.Lock()
	own, k, opened := r.stored, r.kek, r.opened
	r.docMu.Unlock()
	if !opened || own.sameWrap(d) {
		return err
	}
	if !isReload(err) {
		err = &reloadError{err}
	}
	return r.askOf(ctx, k, kek.New(k.Vault(), own.header.current().key), &own, err, requested)
}

// toAskOf returns the document that the vault is to be asked about, with the KEK that is to be
// followed for it: the keyring's, or a later one that was found. unseen is why there may be a later one: then the vault is asked all
// the same, because it may say no.
func (r *Keyring) toAskOf(ctx context.Context, loaded bool) (d stored, k *kek.KEK, unseen error) {
	var found *stored
	if !loaded {
		found, unseen = r.laterDocument(ctx)
	}
	r.docMu.Lock()
	defer r.docMu.Unlock()
	if found != nil {
		follow, err := r.follower(&found.header)
		if err == nil {
			return *found, follow, nil
		}
		unseen = &reloadError{err}
	}
	return r.stored, r.kek, unseen
}

// askOf puts the questions of the version in use. Each permission can go missing alone, and
// the answers to GetKey and WrapKey renew nothing: only the unwrap does, and that not if there
// may be a later document.
func (r *Keyring) askOf(ctx context.Context, k, pinned *kek.KEK, d *stored, unseen error, requested bool) error {
	cur := d.header.current()
	key, err := r.properties(ctx, k, pinned)
	if key.ID == cur.key {
		r.see(key) // also of one that may not be used
	}
	if err != nil {
		return r.besideNewer(pinned, err)
	}
	if fp, err := kek.Fingerprint(key.Public); err != nil {
		return err
	} else if subtle.ConstantTimeCompare(fp[:], cur.fingerprint[:]) != 1 {
		return &vault.Error{Op: vault.OpGet, Key: cur.key, Kind: vault.ErrUnsupportedKey,
			Detail: "its public key is not the one that this version had when it wrapped the keyring"}
	}
	r.warnOfExpiry(key)
	// Any 32 bytes show that wrapping works; nothing is kept of them.
	probe := make([]byte, secretSize)
	rand.Read(probe)
	if _, err := r.wrap(ctx, pinned, probe); err != nil {
		return r.besideNewer(pinned, r.byTheVaultsClock(key, err))
	}
	p := proof{sent: r.clock.Elapsed(), wall: r.clock.Now(), expires: key.Expires}
	got, err := r.unwrap(ctx, pinned, vault.Wrapped{KeyID: cur.key, Ciphertext: d.header.wrapped})
	if err != nil {
		return r.besideNewer(pinned, err)
	}
	defer clear(got)
	// It may have expired while the vault was being asked.
	if err := kek.Admit(key, r.wallNow()); err != nil {
		return err
	}
	if unseen != nil {
		return unseen
	}
	return r.prove(got, d, p, requested)
}

// byTheVaultsClock adds to a refusal for a date that by this machine's clock the version is
// in date: one of the two is wrong.
func (r *Keyring) byTheVaultsClock(key vault.Key, err error) error {
	now := r.wallNow()
	if !outOfDate(err) || key.InDate(vault.OpGet, now) != nil {
		return err
	}
	if !key.VaultTime.IsZero() {
		if why := key.WhyRefused(vault.OpWrapKey, now); why != nil {
			return fmt.Errorf("%w: %v", err, why)
		}
		return err // the vault's clock says so too: it knows why it refuses
	}
	return fmt.Errorf("%w; by this machine's clock, %s, it is in date: one of the two clocks is wrong", err, now.UTC().Format(time.RFC3339))
}

// properties asks for the properties of the version in use. For a KEK without a
// version it asks for the current one, which is the one in use but after a
// rotation in the vault; then it asks for that as well, and notes the newer one. It is
// never moved back by itself.
func (r *Keyring) properties(ctx context.Context, k, pinned *kek.KEK) (vault.Key, error) {
	if k.ID().Version != "" || r.opts.PinVersion || r.opts.ReadOnly {
		return r.getKey(ctx, pinned)
	}
	id := pinned.ID()
	r.forgetVersion()
	key, err := r.getKey(ctx, kek.New(k.Vault(), id.Versionless()))
	switch {
	case key.ID.Version == id.Version:
		r.noteVersion("")
		return key, err
	case key.ID.Version == "":
		return key, err // no properties: the error is about the key, not a version
	}
	// What is asked about the version in use says as well whether the other is newer.
	inUse, inUseErr := r.getKey(ctx, pinned)
	switch {
	case r.wentBack(inUse.Created, key):
		r.notTakenUp(key.ID, errOlder(key.ID, id))
	case err == nil:
		r.noteVersion(key.ID.Version)
	default:
		// The newer version is not acceptable: that is no reason to stop using the
		// one that is, and the event says why it is not taken up.
		r.notTakenUp(key.ID, err)
	}
	return inUse, inUseErr
}

// wentBack reports whether the version that a vault calls current is older than the one
// in use. A vault, or what stands between, may answer with the state of a while ago, and
// a keyring that followed it would be back on a version that is about to be disabled. Key
// versions do not become current again; who wants an older one all the same names it
// (ChangeKEK).
//
// Dates of creation tell, which Key Vault has to the second. Where they do not, what
// tells is that the keyring was on that version before, since it was opened.
func (r *Keyring) wentBack(inUse time.Time, current vault.Key) bool {
	if !inUse.IsZero() && !current.Created.IsZero() && !inUse.Equal(current.Created) {
		return current.Created.Before(inUse)
	}
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.table.wasOn(current.ID)
}

func errOlder(older, inUse vault.KeyID) error {
	return &vault.Error{Op: vault.OpGet, Key: older, Kind: vault.ErrUnavailable,
		Detail: fmt.Sprintf("the vault calls it the current version, and it is older than the one in use, %s: an answer from before a rotation", inUse.Version)}
}

// besideNewer adds to a refusal of the version in use that another one is current, to
// which the keyring was not moved: who disabled the old one may not know that.
func (r *Keyring) besideNewer(pinned *kek.KEK, err error) error {
	r.mu.Lock()
	newer := r.newer
	r.mu.Unlock()
	if newer == "" || !vault.Denied(err) || outOfDate(err) {
		return err
	}
	return fmt.Errorf("%w; the key's current version is %s, and the keyring was not moved to it: make version %s usable until it is",
		err, newer, pinned.ID().Version)
}

// forgetVersion forgets what the check before found of a newer version.
func (r *Keyring) forgetVersion() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newer, r.unfit = "", nil
}

// noteVersion remembers a version that is newer than the one in use, or that there
// is none.
func (r *Keyring) noteVersion(version string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newer = version
	if version == "" {
		r.lastNewest, r.notTaken = r.clock.Elapsed(), ""
	}
}

func (r *Keyring) notTakenUp(key vault.KeyID, err error) {
	r.mu.Lock()
	r.unfit = err
	r.mu.Unlock()
	r.tellNotTaken(key, err)
}

// tellNotTaken says why a newer version is not taken up: once, and not at each check
// that finds it so.
func (r *Keyring) tellNotTaken(key vault.KeyID, err error) {
	why := key.String() + ": "
	if kind := vault.Kind(err); kind != nil {
		why += kind.Error() // the text may name the request
	} else {
		why += err.Error()
	}
	r.mu.Lock()
	news := r.notTaken != why
	r.notTaken = why
	r.mu.Unlock()
	if news {
		r.emit(Event{Kind: KEKNotChanged, Key: key, Err: err})
	}
}

// takeUpVersion moves the keyring to a newer version of its KEK that the last
// check found. The caller has the turn of checks.
func (r *Keyring) takeUpVersion(ctx context.Context) {
	r.mu.Lock()
	version, lag := r.newer, r.clock.Elapsed()-r.lastNewest
	r.newer = ""
	r.mu.Unlock()
	if version == "" || r.session.Load() == nil {
		return
	}
	k := r.KEK()
	if err := r.changeKEKHeld(ctx, k, k.WithVersion(version), Event{Detail: "a newer version", Duration: lag}); err != nil && !errors.Is(err, ErrConflict) {
		r.tellNotTaken(k.WithVersion(version).ID(), err)
	}
}

func (r *Keyring) getKey(ctx context.Context, k *kek.KEK) (vault.Key, error) {
	now := r.wallNow()
	return vaultCall(ctx, r, vault.OpGet, k.ID(), func(ctx context.Context) (vault.Key, error) {
		return k.Get(ctx, now)
	}, func(vault.Key) {})
}

func (r *Keyring) wrap(ctx context.Context, k *kek.KEK, plain []byte) (vault.Wrapped, error) {
	// A call that is left behind may read its argument after the caller has
	// cleared it: it gets a copy of its own.
	own := bytes.Clone(plain)
	return vaultCall(ctx, r, vault.OpWrapKey, k.ID(), func(ctx context.Context) (vault.Wrapped, error) {
		defer clear(own)
		return k.Wrap(ctx, own)
	}, func(vault.Wrapped) {})
}

func (r *Keyring) unwrap(ctx context.Context, k *kek.KEK, w vault.Wrapped) ([]byte, error) {
	return vaultCall(ctx, r, vault.OpUnwrapKey, w.KeyID, func(ctx context.Context) ([]byte, error) {
		return k.Unwrap(ctx, w)
	}, clearBytes)
}
