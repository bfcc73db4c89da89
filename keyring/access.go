package keyring

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/vault"
)

// access is what a keyring knows about its right to be open. Guarded by Keyring.mu.
type access struct {
	policy      policy
	policyDue   bool // policy is not in the document yet
	policySaid  bool // what the options say of it was in the document once
	fingerprint string
	kekID       vault.KeyID // the KEK version that wraps the document
	generation  uint64      // of the document
	sessions    uint64      // how many there were; the id of the last

	leaseEnd time.Duration // Clock.Elapsed at which the lease ends
	leaseRef time.Time     // wall clock of the unwrap that renewed it
	keyEnd   time.Time     // the key's own expiry; zero: none

	// seen is what the vault last said of a KEK version, whatever came of the check:
	// for people, and nothing else. seenID is the version.
	seen   seen
	seenID vault.KeyID

	// word is what the vault last said of the key that was not yes, since it last said yes.
	word error

	// notTaken is what was last said about a newer KEK version that is not taken up.
	notTaken string

	// The wall clock and Elapsed at one moment that is trusted: at Open and at
	// each Revalidate. A wall clock that steps back later does not make a key
	// younger than this says.
	anchorWall    time.Time
	anchorElapsed time.Duration
}

// proof is what a successful check found: the reason to extend access.
type proof struct {
	sent    time.Duration // Clock.Elapsed when the unwrap was sent
	wall    time.Time     // the wall clock then
	expires time.Time     // the key's own; zero: none
}

// seen is what people want to know of a KEK version.
type seen struct {
	expires, created time.Time // zero: never; not known
	known            bool      // the vault has said it
	// vaultTime is what time the vault said it was, when Clock.Elapsed was vaultElapsed;
	// zero: it did not say.
	vaultTime    time.Time
	vaultElapsed time.Duration
}

// see notes what the vault said of a key version.
func (r *Keyring) see(key vault.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seenID, r.seen = key.ID, seen{expires: key.Expires, created: key.Created, known: true,
		vaultTime: key.VaultTime.Round(0), vaultElapsed: r.clock.Elapsed()}
}

// seenOfKEK is what the vault last said of the version in use. r.mu is held.
func (r *Keyring) seenOfKEK() seen {
	if r.seenID != r.kekID {
		return seen{}
	}
	return r.seen
}

// anchor trusts the wall clock of now.
func (r *Keyring) anchor() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.anchorWall, r.anchorElapsed = r.clock.Now(), r.clock.Elapsed()
}

// wallNow is the wall clock, but never earlier than the anchor plus the time
// that has elapsed since: dates are judged by it. Stepping the clock forward
// brings an expiry closer, stepping it back does not move it away.
func (r *Keyring) wallNow() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wallNowLocked()
}

func (r *Keyring) wallNowLocked() time.Time {
	now := r.clock.Now()
	if least := r.anchorWall.Add(r.clock.Elapsed() - r.anchorElapsed); now.Before(least) {
		return least
	}
	return now
}

// wallAt translates a moment of Clock.Elapsed, for people. r.mu is held.
func (r *Keyring) wallAt(elapsed time.Duration) time.Time {
	return r.clock.Now().Add(elapsed - r.clock.Elapsed())
}

// extend sets the session's deadline from a proof: the end of the lease or, if it
// comes first, the key's own expiry. The lease runs from when the unwrap was sent,
// because the vault may have decided at any moment after that. r.turn is held.
func (r *Keyring) extend(s *session, p proof) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaseEnd = p.sent + r.opts.Lease
	r.leaseRef = p.wall
	r.keyEnd = p.expires
	deadline := r.leaseEnd
	if !p.expires.IsZero() {
		// Sub saturates, so that a date far away must not be added to anything.
		now := r.clock.Elapsed()
		if left := p.expires.Sub(r.wallNowLocked()); left < deadline-now {
			deadline = now + left
		}
	}
	s.deadline.Store(int64(deadline))
	r.state.LastSuccess = p.wall
	r.armDeadline(s, deadline-r.clock.Elapsed())
}

// admit looks at an opened document of a generation before any key of it can be used.
func (r *Keyring) admit(b *body, generation uint64) error {
	if err := r.authentic(b.fingerprint(), b.instance, generation); err != nil || r.opts.For(inner.Block{}).Admit == nil {
		return err
	}
	return r.callAdmit(r.ctx, inner.Opened{Tag: b.tag, Generation: generation, Instance: b.instance})
}

// authentic refuses an opened document that is not the expected one.
func (r *Keyring) authentic(fingerprint string, instance inner.InstanceID, generation uint64) error {
	if err := r.expected(fingerprint, generation); err != nil {
		return err
	}
	return r.sameLine(fingerprint, instance)
}

// callAdmit calls Admit (inner.Options) when nobody else does.
func (r *Keyring) callAdmit(ctx context.Context, is inner.Opened) error {
	select {
	case r.admitting <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("keyring: %w", context.Cause(ctx))
	}
	defer func() { <-r.admitting }()
	return r.opts.For(inner.Block{}).Admit(is)
}

// sameLine refuses an opened document that cannot have been made from the one that was opened
// before: of another keyring, or of an instance that is neither this one's nor the one that
// the document was of.
func (r *Keyring) sameLine(fingerprint string, instance inner.InstanceID) error {
	r.docMu.Lock()
	opened, was := r.opened, r.instance
	r.docMu.Unlock()
	r.mu.Lock()
	known := r.fingerprint
	r.mu.Unlock()
	switch {
	case !opened:
		return nil
	case !sameText(fingerprint, known):
		return fmt.Errorf("keyring: its fingerprint is %s, and was %s: another keyring's, or a forged one: %w", fingerprint, known, ErrUnexpected)
	case r.opts.For(inner.Block{}).Instance != (inner.InstanceID{}) && instance != r.opts.For(inner.Block{}).Instance && instance != was:
		return fmt.Errorf("keyring: it is of instance %v, and was of %v: a copy's was put in its place: %w", instance, was, ErrUnexpected)
	}
	return nil
}

// begin opens a session from an opened body: from here on keys are usable. Unless
// it was requested, it does not end a lock that waits for Revalidate, in which the
// keyring may be since the vault was asked. Nor does an answer that took longer
// than the lease that it gives. d is the document that b is of.
func (r *Keyring) begin(d *stored, b *body, docSecret *[secretSize]byte, p proof, requested bool) error {
	if err := r.admit(b, d.header.generation); err != nil {
		return err
	}
	s, err := newSession(b, newDEKCache(r.opts.DEKCache))
	if err != nil {
		return err
	}
	secret.Do(func() { s.secret = *docSecret })

	r.turn.Lock()
	defer r.turn.Unlock()
	if r.closed.Load() {
		s.destroy()
		return fmt.Errorf("keyring: %w", ErrClosed)
	}
	r.docMu.Lock()
	err = r.takeFound(d, b)
	r.docMu.Unlock()
	if err != nil {
		s.destroy()
		return err
	}
	r.mu.Lock()
	if r.clock.Elapsed() >= p.sent+r.opts.Lease || (!requested && !r.automatic()) {
		r.mu.Unlock()
		s.destroy()
		return errSessionEnded
	}
	r.sessions++
	s.id = r.sessions
	r.policy, r.fingerprint = b.policy, b.fingerprint()
	// What the options say is said once: another keyring may have said another thing since.
	r.policyDue = !r.policySaid && r.policy.overlay(&r.opts)
	r.policySaid = r.policySaid || !r.policyDue
	r.awaiting = false
	r.mu.Unlock()
	r.wrapsByKEK.Store(r.Wrapping() == ByKEK)
	r.extend(s, p)
	r.publish(s, b)
	r.setStatus(Available, nil)
	return nil
}

// prove takes the secret that the vault unwrapped, of the document d. With a session, it must be
// the session's own, and extends it, or that of a later document, which is taken up first;
// without one, it must open the document, and begins one.
func (r *Keyring) prove(got []byte, d *stored, p proof, requested bool) error {
	if len(got) != secretSize {
		return r.wrongSecret(fmt.Sprintf("it unwrapped to %d bytes, want %d", len(got), secretSize))
	}
	docSecret := (*[secretSize]byte)(got)
	r.docMu.Lock()
	s := r.session.Load()
	later, sameWrap := d.header.generation > r.header.generation, d.sameWrap(&r.stored)
	same := s != nil && sameSecret(got, &s.secret)
	r.docMu.Unlock()

	switch {
	case s == nil:
		b, err := openBody(d.sealed, docSecret, d.aad)
		if err != nil {
			return err
		}
		defer b.destroy()
		return r.begin(d, b, docSecret, p, requested)
	case sameWrap && !same:
		return r.wrongSecret("it unwrapped to another secret than before")
	case later:
		if err := r.takeUp(s, d, docSecret); err != nil {
			return err
		}
	case !sameWrap:
		return errMovedMeanwhile
	}
	return r.renew(s, p)
}

// renew extends a session. One that ended meanwhile, or is past its deadline, stays ended:
// the next check begins a new one.
func (r *Keyring) renew(s *session, p proof) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	if r.session.Load() == s && int64(r.clock.Elapsed()) < s.deadline.Load() {
		r.extend(s, p)
		r.setStatus(Available, nil)
		return nil
	}
	return errSessionEnded
}

// errSessionEnded says that a check came back after the session that it was to
// extend had ended.
var errSessionEnded = errors.New("keyring: the lease ended while the vault was being asked")

func sameSecret(got []byte, want *[secretSize]byte) bool {
	return subtle.ConstantTimeCompare(got, want[:]) == 1
}

func (r *Keyring) wrongSecret(detail string) error {
	return &vault.Error{Op: vault.OpUnwrapKey, Key: r.State().KEK, Kind: vault.ErrUnsupportedKey,
		Detail: "the vault's key is not the one that wrapped the keyring: " + detail}
}

// lock ends the session s, or whichever there is if s is nil, for the given cause,
// and announces it when the last operation in flight is done. Locking a locked
// keyring replaces the cause.
func (r *Keyring) lock(s *session, cause error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	if r.closed.Load() || (s != nil && r.session.Load() != s) {
		return
	}
	r.endSession(cause)
	r.setStatus(Inaccessible, cause)
}

// stayLocked sets the cause of a keyring that was not opened yet.
func (r *Keyring) stayLocked(cause error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	r.endSession(cause)
	r.setStatus(Inaccessible, cause)
}

// endSession takes the session away, ends the vault calls of its operations, waits for
// the operations in flight, and destroys its keys. It returns the status before. r.turn is
// held.
func (r *Keyring) endSession(cause error) Status {
	r.mu.Lock()
	from, since := r.state.Status, r.state.Since
	r.mu.Unlock()
	if from != Inaccessible {
		since = r.clock.Now()
	}
	r.locked.Store(&lockedError{since: since, cause: cause})
	s := r.session.Swap(nil)
	if s == nil {
		return from
	}
	s.cancel(errLockedMeanwhile)
	r.drain(s)
	r.docMu.Lock()
	r.last = s.epochs.Load().names()
	s.destroy()
	r.docMu.Unlock()
	return from
}

// setStatus records a status and its cause and announces a change. r.turn is held.
func (r *Keyring) setStatus(to Status, cause error) {
	r.mu.Lock()
	from := r.state.Status
	news := from != to || (to == Inaccessible && !sameCause(r.state.Cause, cause))
	switch {
	case from == to:
	case to == Inaccessible: // as endSession has told everybody, however long it waited
		r.state.Since = r.locked.Load().since
	default:
		r.state.Since = r.clock.Now()
	}
	r.state.Status, r.state.Cause = to, cause
	r.mu.Unlock()
	if news {
		r.emit(Event{Kind: StateChanged, From: from, To: to, Err: cause})
	}
}

// sameCause reports whether two causes are the same to an operator.
func sameCause(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error() || (vault.Kind(a) != nil && vault.Kind(a) == vault.Kind(b))
}

// expire locks s if its deadline has passed.
func (r *Keyring) expire(s *session) {
	if int64(r.clock.Elapsed()) < s.deadline.Load() {
		return
	}
	r.lock(s, r.deadlineCause())
	r.checkSoon()
}

// deadlineCause says which of the two ends a session's deadline was.
func (r *Keyring) deadlineCause() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clock.Elapsed() < r.leaseEnd && !r.keyEnd.IsZero() {
		return r.keyExpired(r.wallNowLocked())
	}
	return r.leaseEnded(noUnwrap)
}

// keyExpired is the end of the KEK version's own time, which came at now. r.mu is held.
func (r *Keyring) keyExpired(now time.Time) error {
	key := vault.Key{ID: r.kekID, Expires: r.keyEnd}
	if kek := r.seenOfKEK(); !kek.vaultTime.IsZero() {
		key.VaultTime = kek.vaultTime.Add(r.clock.Elapsed() - kek.vaultElapsed)
	}
	return key.Expired(vault.OpGet, now)
}

// leaseEnded is the end of the lease, with what is known of the vault. r.mu is held.
func (r *Keyring) leaseEnded(why string) error {
	e := &leaseError{why: why, last: r.state.LastCheckErr}
	if e.last != nil && !said(e.last) {
		e.word = r.word
	}
	return e
}
