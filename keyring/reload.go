package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// Several keyrings, in one process or in many, may have one document. Each change is saved by
// a swap, so that the documents are one line, each made from the one before. A keyring that
// is behind finds out when its own swap is lost, when a DEK record names an epoch or a KEK that
// it does not have, and at each check. Then it takes up the document that is there: once that
// has authenticated, and has turned out to be a later one of the same line.
//
// What cannot be taken up changes nothing: the keyring goes on with what it has, which was
// good, and cannot change it. But no check extends the lease while the keyring does not know
// that what it has is the document: so that what another one took away, as a dropped
// epoch, is gone everywhere one lease later.

// reloading is what a keyring knows of its looks at the storage.
type reloading struct {
	loads chan struct{} // admits one call of Load at a time, until it has returned

	// What follows is guarded by Keyring.docMu.
	takes         uint64 // documents that were taken for the keyring's
	running, next *reload
	refused       refused
}

// refused is a document with another secret that could not be taken up. Outside of a check no vault
// is asked about it again before the next check is due: anyone can make one, and records that have
// it looked at.
type refused struct {
	revision Revision
	err      error
	until    time.Duration // Clock.Elapsed
}

// reload is one look at the storage, for all who asked for one before it began.
type reload struct {
	ended chan struct{}
	err   error // once it has ended
}

// reloadError says that the document in storage was not looked at, or is none that the
// keyring can take up.
type reloadError struct{ err error }

func (e *reloadError) Error() string { return fmt.Sprintf("the document in storage: %v", e.err) }
func (e *reloadError) Unwrap() error { return e.err }

func isReload(err error) bool {
	var e *reloadError
	return errors.As(err, &e)
}

// errMovedMeanwhile says that the document is another than the one that was asked about.
var errMovedMeanwhile = fmt.Errorf("keyring: the document was changed while the vault was being asked: %w", ErrConflict)

// reload takes up the document in storage, if it is another than the keyring's. The hold is
// kept, and nothing runs inside of it: the storage, the vault, which is asked only if the
// document has another secret, and Admit are called on a goroutine of their own, which
// a lock does not wait for.
func (h *Hold) reload(ctx context.Context) error {
	run := h.r.beginReload()
	select {
	case <-run.ended:
		if run.err != nil && h.s.ctx.Err() != nil {
			return h.r.endedSession()
		}
		if err := h.inTime(); err != nil {
			return err
		}
		return run.err
	case <-ctx.Done():
		return &reloadError{ctx.Err()}
	case <-h.s.ctx.Done():
		return h.r.endedSession()
	}
}

// beginReload begins a reload, or has one begin when the one that is under way has ended: that
// one may have loaded a document before the reason for this.
func (r *Keyring) beginReload() *reload {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	g := &r.reloading
	switch {
	case g.running == nil:
		g.running = &reload{ended: make(chan struct{})}
		go r.runReloads()
		return g.running
	case g.next == nil:
		g.next = &reload{ended: make(chan struct{})}
	}
	return g.next
}

func (r *Keyring) runReloads() {
	for {
		r.docMu.Lock()
		run := r.reloading.running
		r.docMu.Unlock()
		run.err = r.lookAndTakeUp()
		close(run.ended)
		r.docMu.Lock()
		g := &r.reloading
		g.running, g.next = g.next, nil
		more := g.running != nil
		r.docMu.Unlock()
		if !more {
			return
		}
	}
}

// lookAndTakeUp is a reload, for the session that there is, and ends with it.
func (r *Keyring) lookAndTakeUp() error {
	s := r.session.Load()
	if s == nil {
		return r.endedSession()
	}
	d, err := r.laterDocument(s.ctx)
	if err != nil || d == nil {
		return err
	}
	return r.takeUpFound(s, d)
}

// laterDocument returns the document in storage if it is another than the keyring's, and may be a later
// one; else nil. Nothing in it has authenticated.
func (r *Keyring) laterDocument(ctx context.Context) (*stored, error) {
	r.docMu.Lock()
	known, takes := r.revision, r.reloading.takes
	r.docMu.Unlock()
	document, revision, err := r.load(ctx)
	if errors.Is(err, inner.ErrUnchanged) {
		return nil, nil
	}
	if err != nil {
		return nil, &reloadError{err}
	}
	if revision == known {
		return nil, nil
	}
	d, err := parseStored(document, revision)
	if err != nil {
		return nil, &reloadError{err}
	}
	r.docMu.Lock()
	defer r.docMu.Unlock()
	later, err := r.isLater(&d, takes)
	if err != nil {
		return nil, &reloadError{err}
	}
	if !later {
		return nil, nil
	}
	return &d, nil
}

// load is Storage.Load for a keyring that is open, bounded as a call to the vault is. A
// storage that ignores its context is left behind, and not asked again before it has answered.
func (r *Keyring) load(ctx context.Context) (document []byte, revision Revision, err error) {
	type loaded struct {
		document []byte
		revision Revision
	}
	got := make(chan loaded, 1)
	err = within(ctx, r.clock, r.opts.VaultTimeout, r.slowStorage(), r.ctx, func(ctx context.Context) error {
		select {
		case r.reloading.loads <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-r.reloading.loads }()
		document, revision, err := r.storage.Load(ctx)
		got <- loaded{document, revision}
		return err
	})
	if err != nil {
		return nil, "", err
	}
	l := <-got
	return l.document, l.revision, nil
}

// isLater reports whether a document that was loaded, after takes documents had been taken,
// is a later one than the keyring's, by what it says in clear. docMu is held.
func (r *Keyring) isLater(d *stored, takes uint64) (bool, error) {
	switch g := d.header.generation; {
	case d.revision == r.revision:
		return false, nil
	case d.header.storeID != r.storeID:
		return false, fmt.Errorf("it is of store %v, and the keyring is of %v: %w", StoreID(d.header.storeID), r.storeID, ErrUnexpected)
	case !r.opened:
		// Nothing of the document that the keyring has was believed either.
		return true, generationExpected(g, r.anchoring.least)
	case g > r.header.generation:
		return true, nil
	case r.reloading.takes != takes && g < r.header.generation:
		return false, nil // it was replaced while it was being loaded
	case g == r.header.generation && string(d.document()) == string(r.document()):
		r.revision = d.revision
		return false, nil
	}
	return false, fmt.Errorf("it has generation %d and is not the one that was there, with generation %d: "+
		"an older copy or another's was put in its place: %w; put the later one back", d.header.generation, r.header.generation, ErrUnexpected)
}

// takeUpFound takes up a document that laterDocument has found, in the session s, with which it
// ends.
func (r *Keyring) takeUpFound(s *session, d *stored) error {
	r.docMu.Lock()
	known := d.sameWrap(&r.stored)
	k, err := r.follower(&d.header)
	before := r.reloading.refused
	r.docMu.Unlock()
	switch {
	case err != nil:
		return &reloadError{err}
	case known:
		return r.takeUp(s, d, nil)
	case before.revision == d.revision && r.clock.Elapsed() < before.until:
		return before.err
	}
	err = r.takeUpAsking(s, d, k)
	if err == nil || vault.Denied(err) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnexpected) {
		// What was found says nothing of the key's dates and of the other permissions, or that
		// something is wrong.
		defer r.checkSoon()
	}
	if err != nil && !vault.Transient(err) && s.ctx.Err() == nil {
		r.docMu.Lock()
		r.reloading.refused = refused{d.revision, err, r.clock.Elapsed() + r.opts.CheckEvery}
		r.docMu.Unlock()
	}
	return err
}

// takeUpAsking takes up a document with another secret than the session's, which it has k's vault
// unwrap.
func (r *Keyring) takeUpAsking(s *session, d *stored, k *kek.KEK) error {
	id := d.header.current().key
	got, err := r.unwrap(s.ctx, kek.New(k.Vault(), id), vault.Wrapped{KeyID: id, Ciphertext: d.header.wrapped})
	if err != nil {
		return &reloadError{err}
	}
	defer clear(got)
	if len(got) != secretSize {
		return &reloadError{fmt.Errorf("the vault unwrapped its secret to %d bytes, want %d: %w", len(got), secretSize, ErrCorrupt)}
	}
	return r.takeUp(s, d, (*[secretSize]byte)(got))
}

// takeUp takes a later document for the keyring's, in the session s, with docSecret, which it
// clears; nil: with the session's own secret. Nothing is held, nothing is believed after the
// session has ended, and no key of the document outlives that.
func (r *Keyring) takeUp(s *session, d *stored, docSecret *[secretSize]byte) error {
	o, err := r.openFound(s, d, docSecret)
	if err != nil {
		return err
	}
	defer o.close(s)
	if err := r.admitFound(s, o, d.header.generation); err != nil {
		return &reloadError{err}
	}
	turn, err := r.changing(s.ctx, s)
	if err != nil {
		return &reloadError{err}
	}
	happened, err := r.install(s, d, o)
	turn.end()
	if err != nil {
		return &reloadError{err}
	}
	for _, e := range happened {
		r.emit(e)
	}
	go r.forgetRetired(s) // which waits for holds, and they perhaps for this
	r.anchorSoon()
	return nil
}

// install makes an opened and admitted document the keyring's and the session's, and returns
// what has happened since the one before. The caller has the turn of changes.
func (r *Keyring) install(s *session, d *stored, o *opening) (happened []Event, err error) {
	if d.header.generation <= r.header.generation {
		return nil, nil // that one or a later one was taken up, or saved, meanwhile
	}
	if r.session.Load() != s || o.b == nil {
		return nil, r.endedSession()
	}
	b := o.b
	if _, err := r.follower(&d.header); err != nil {
		return nil, err
	}
	if err := r.sameEpochs(b); err != nil {
		return nil, err
	}
	set, err := s.epochs.Load().follow(b)
	if err != nil {
		return nil, err
	}
	const another = "by another keyring on the document"
	for _, e := range set.all {
		if s.epochs.Load().find(e.id) == nil {
			happened = append(happened, Event{Kind: EpochStarted, Epoch: e.id, Detail: another})
		}
	}
	for _, e := range s.retire(set) {
		happened = append(happened, Event{Kind: EpochDropped, Epoch: e.id, Detail: another})
	}
	if old := r.header.current().key; old != d.header.current().key {
		happened = append(happened, Event{Kind: KEKChanged, Key: d.header.current().key, Detail: another})
	}
	secret.Do(func() { s.secret = o.secret })
	r.followKEK(d)
	r.take(*d)
	known := r.shared
	r.knowOwner(b)
	for i := range b.epochs {
		set.all[i].counted.Store(b.epochs[i].reserved)
	}
	if set.current.id <= b.shared && set.current.id > known { // once: it may have to go on all the same
		set.current.shared.Store(true)
		set.current.setAside()
	}
	r.takePolicy(b.policy)
	return happened, nil
}

// takePolicy takes a policy that another keyring saved, but for what this one's options say
// and could not be saved yet.
func (r *Keyring) takePolicy(p policy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policy = p
	if r.policyDue {
		r.policyDue = r.policy.overlay(&r.opts)
		r.policySaid = !r.policyDue
	}
	r.wrapsByKEK.Store(r.policy.wrapping == ByKEK)
}

// follow returns the epochs of a later body, which have been compared (sameEpochs): those that
// are there already, and those that were begun since. docMu is held.
func (s *epochSet) follow(b *body) (set *epochSet, err error) {
	set = &epochSet{}
	var begun []*epoch
	defer func() {
		if err != nil {
			for _, e := range begun {
				e.aead.Destroy()
			}
		}
	}()
	for i := range b.epochs {
		k := &b.epochs[i]
		e := s.find(k.id)
		if e == nil {
			if e, err = newEpoch(k); err != nil {
				return nil, err
			}
			begun = append(begun, e)
		}
		set.all = append(set.all, e)
	}
	set.current = set.all[len(set.all)-1]
	return set, nil
}

// follower returns the KEK to follow for a document with the header h: that of now, or one of
// those that the keyring was given or was on. docMu is held.
func (r *Keyring) follower(h *header) (*kek.KEK, error) {
	cur := h.current().key
	k := r.kek
	if k.ID().Versionless() != cur.Versionless() {
		if k = r.otherFor(cur); k == nil {
			return nil, fmt.Errorf("another keyring has moved it to %s, for which no KEK was given: %w; open it with that key, or name that among Options.OtherKEKs", cur, ErrWrongKEK)
		}
		k = inVault(k, cur.Vault)
	}
	if k.ID().Version != "" {
		k = k.WithVersion(cur.Version)
	}
	return k, nil
}

// followKEK makes the KEK of a document that is about to be taken the one to follow; false:
// there is none to be had. docMu is held.
func (r *Keyring) followKEK(d *stored) bool {
	if d.sameWrap(&r.stored) {
		return true
	}
	k, err := r.follower(&d.header)
	if err != nil {
		return false
	}
	old, now := r.header.current().key, d.header.current().key
	if old.Versionless() != now.Versionless() {
		r.leave(r.kek)
	}
	r.kek = k
	r.table.moved(old, now)
	return true
}

// lookForEpoch returns the epoch of a record that the session does not know. Epochs begin in
// their order and none comes back, so that only one after the current one can be
// another keyring's.
func (h *Hold) lookForEpoch(ctx context.Context, in RecordInfo) (*epoch, error) {
	if in.Epoch <= h.For(inner.Block{}).CurrentEpoch() {
		return nil, errNoEpoch(in)
	}
	if err := h.reload(ctx); err != nil {
		return nil, notLooked(fmt.Sprintf("epoch %d, which the keyring does not know", in.Epoch), err)
	}
	if e := h.s.epoch(in.Epoch); e != nil {
		return e, nil
	}
	return nil, errNoEpoch(in)
}

// lookForKEK returns the KEK to unwrap a record with, which has authenticated under its epoch: if
// the keyring does not list it, another keyring has moved the document there since.
func (h *Hold) lookForKEK(ctx context.Context, in RecordInfo) (*kek.KEK, vault.KeyID, error) {
	k, id, err := h.r.kekFor(in.KEK)
	if !errors.Is(err, ErrCorrupt) {
		return k, id, err
	}
	if err := h.reload(ctx); err != nil {
		return nil, id, notLooked(fmt.Sprintf("KEK %d, which the keyring does not list", in.KEK), err)
	}
	return h.r.kekFor(in.KEK)
}

// notLooked is the error of a record of which nobody knows whether it is good, because the document
// cannot be taken up.
func notLooked(what string, err error) error {
	return fmt.Errorf("keyring: the DEK record names %s: %w", what, ofDocument(err))
}
