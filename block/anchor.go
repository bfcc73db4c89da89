package block

import (
	"cmp"
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// DefaultAnchorEvery is the default of Options.AnchorEvery.
const DefaultAnchorEvery = time.Second

// anchorMost is the longest time between two attempts to advance an anchor that fails.
const anchorMost = time.Minute

// The sequence number counts the writes that were applied to the store. Saves of the keyring
// document are not among them: they have the generation. A tagged record holds the number:
//
//	offset  size  field
//	     0     1  version, 1
//	     1     8  writes applied before the record was
//
// The engine replays its log as a prefix, and its tables follow the log's order: a store with the
// record has all the writes that it counts. So the record is saved, durably, before an anchor is
// advanced to its number. The record does not count itself. On disk, and must not change.
const (
	metaSequence          = "sequence"
	sequenceRecordVersion = 1
	sequenceRecordSize    = 9
)

// appliedCount counts the writes that were applied. It fills a cache line, which every writer writes to.
type appliedCount struct {
	n atomic.Uint64
	_ [56]byte
}

// sequence is what is done with the sequence number, which is Store.writes, and its anchor.
type sequence struct {
	saving   sync.Mutex // held while the number is saved; acquired before a hold
	saved    uint64     // what the record holds; guarded by saving
	unsure   unsure     // guarded by saving
	unsynced bool       // by saveSequenceBy: the record is not known to be durable; guarded by saving

	found    []byte // the record as it was at Open; fixed once the keyring is opened
	admitted atomic.Bool
	anchor   *storeAnchor // nil: no anchor
	hurry    chan struct{}
}

// unsure is a save of which a server has not said whether it was made: with the revision that the
// record has then, what it counted before, and what it counts then.
type unsure struct{ revision, before, saved uint64 }

// Sequence returns the sequence number: how many writes were ever applied to the store and, before
// it was made, to the one that it is a copy of. A Put, a Delete and the Commit of a batch are one
// write each; a save of the keyring document counts in its generation instead. After a crash the
// number goes on from the last one that was saved: at Close, at a Checkpoint, or for an anchor
// (Options.Keyring.Anchor). It is 0 until the store was available once. Where other processes write
// too, it counts theirs as of when it was saved last.
func (s *Store) Sequence() uint64 { return s.writes.n.Load() }

// wrote counts a write after it was applied: a number that is saved must not count a write that may
// follow it in the log.
func (s *Store) wrote() { s.writes.n.Add(1) }

// created counts the creation of the store as its first write.
func (s *Store) created() { s.writes.n.CompareAndSwap(0, 1) }

// storeAnchor is the caller's anchor as the keyring sees it. An anchor that holds something has
// said which document may be opened. An empty one accepts what it is given first and refuses all
// else from then on. So an empty one is given nothing
//
//   - before the document is in the engine: a new store's keyring is made in memory, and what a
//     crash leaves must not be refused for it;
//   - before the keyring has opened a record of this store: see prove.
//
// The end of Open gives it what was left out: the sequence number is ahead then.
type storeAnchor struct {
	keyring.Anchor
	least  atomic.Pointer[keyring.Point] // what was loaded
	opened atomic.Bool
	prove  func(context.Context) error
}

// Load implements [keyring.Anchor].
func (a *storeAnchor) Load(ctx context.Context) (keyring.Point, error) {
	p, err := a.Anchor.Load(ctx)
	if err == nil {
		a.least.CompareAndSwap(nil, &p)
	}
	return p, err
}

// Advance implements [keyring.Anchor]. A document that was found in the engine is durable: Pebble
// has written out its log when it was opened, synced before or not.
func (a *storeAnchor) Advance(ctx context.Context, to keyring.Point) error {
	if least := a.least.Load(); least == nil || least.Fingerprint == "" {
		if !a.opened.Load() {
			return nil
		}
		if err := a.prove(ctx); err != nil {
			return err
		}
	}
	return a.Anchor.Advance(ctx, to)
}

// prove checks once that the keyring is the one that this store's records were made under; see
// [row.Prove]. The end of the caller's context does not end it, because the result serves all later
// callers; Close does.
func (s *Store) prove(_ context.Context, h *keyring.Hold) error {
	if s.proven.Load() {
		return nil
	}
	ctx, end := s.ctx, func(err error) error { return err }
	if s.db.shared { // a lock does not wait for a server
		ctx, end = h.For(inner.Block{}).Within(ctx)
	}
	if err := end(row.Prove(ctx, s.part, h)); err != nil {
		return s.ending(err)
	}
	s.proven.Store(true)
	return nil
}

func (s *Store) proveNow(ctx context.Context) error {
	if s.proven.Load() {
		return nil
	}
	h, err := s.keys.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	return s.prove(ctx, &h)
}

// watchSequence puts the store's own checks between the caller's Anchor and Admit and the keyring.
func (s *Store) watchSequence() {
	s.sequence.hurry = make(chan struct{}, 1)
	s.storage.Saved = func() {
		select {
		case s.sequence.hurry <- struct{}{}:
		default: // somebody is about to, or nobody is there
		}
	}
	o := &s.opts.Keyring
	if o.Anchor != nil {
		s.sequence.anchor = &storeAnchor{Anchor: o.Anchor, prove: s.proveNow}
		o.Anchor = s.sequence.anchor
	}
	given := o.For(inner.Block{}).Admit
	o.For(inner.Block{}).Admit = func(opened inner.Opened) error {
		if err := s.storage.CheckName(opened); err != nil {
			return err
		}
		s.storage.Admit(opened)
		err := s.admit(opened.Tag)
		if err == nil && s.opts.moving != nil {
			err = s.storage.CheckCopy(*s.opts.moving, opened)
		}
		if err != nil || given == nil {
			return err
		}
		return given(opened)
	}
}

// findSequence reads the sequence record of a store that is being opened.
func (s *Store) findSequence(ctx context.Context) (err error) {
	s.sequence.found, err = engine.ReadMeta(ctx, s.part, metaSequence)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return row.Damage(err)
}

// decodeSequence reads a tagged sequence record; ok is false if b is none.
func decodeSequence(b []byte) (n uint64, tag, content []byte, ok bool) {
	tag, content, ok = tagged.Split(b)
	if !ok || len(content) != sequenceRecordSize || content[0] != sequenceRecordVersion {
		return 0, nil, nil, false
	}
	return binary.BigEndian.Uint64(content[1:]), tag, content, true
}

// admit checks, before any key can be used, that the number that was found is authentic and not
// less than the anchor's.
func (s *Store) admit(tag func(string, []byte) [inner.TagSize]byte) error {
	q := &s.sequence
	if q.admitted.Load() {
		return nil
	}
	if err := s.db.place.CheckTag(s.number, tag); err != nil {
		return err
	}
	n, given, content, ok := decodeSequence(q.found)
	if ok {
		want := tag(metaSequence, content)
		ok = hmac.Equal(given, want[:])
	}
	if !ok {
		n = 0 // a record that is not authentic counts as none
	}
	if err := s.sequenceExpected(n); err != nil {
		return err
	}
	saved := n
	if n == 0 && q.anchor != nil {
		n = 1 // what is there counts as one write, so that there is something to anchor
	}
	s.writes.n.Store(n)
	q.saving.Lock()
	q.saved = saved
	q.saving.Unlock()
	q.admitted.Store(true)
	return nil
}

// expectClaimed checks the number in clear, for a store that is open without access: if it is too
// small, nothing else needs to be known.
func (s *Store) expectClaimed() error {
	if s.sequence.admitted.Load() {
		return nil
	}
	n, _, _, _ := decodeSequence(s.sequence.found)
	return s.sequenceExpected(n)
}

func (s *Store) sequenceExpected(n uint64) error {
	a := s.sequence.anchor
	if a == nil {
		return nil
	}
	least := a.least.Load()
	if least == nil || n >= least.Sequence {
		return nil
	}
	return fmt.Errorf("block: the sequence number of %s is %d, at least %d was expected: an older copy was put in its place, "+
		"or writes that were durable are missing: %w; to accept it on purpose, give it an empty anchor: move the file of a FileAnchor away",
		s.db.place.Dir(), n, least.Sequence, keyring.ErrUnexpected)
}

// saveSequence saves the number, if it has grown, and returns it. It is durable then, and with it
// every write that it counts.
func (s *Store) saveSequence(ctx context.Context) (uint64, error) {
	return s.saveSequenceBy(ctx, false)
}

// saveSequenceBy is saveSequence. With later it is durable no sooner than what is saved next: see
// engine.SwapLater.
func (s *Store) saveSequenceBy(ctx context.Context, later bool) (uint64, error) {
	q := &s.sequence
	q.saving.Lock()
	defer q.saving.Unlock()
	h, err := s.writeHold(ctx)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	if s.db.shared {
		return s.addToSequence(ctx, &h)
	}
	n := s.writes.n.Load()
	if n == q.saved {
		return n, nil
	}
	content := binary.BigEndian.AppendUint64([]byte{sequenceRecordVersion}, n)
	value, err := tagged.Record(&h, metaSequence, content)
	switch {
	case err != nil:
	case later:
		_, err = engine.SwapLater(context.WithoutCancel(ctx), s.part, engine.Swap{Name: metaSequence, Revision: engine.AnyRevision, Value: value})
		q.unsynced = err == nil
	default:
		err = engine.SetMeta(ctx, s.part, metaSequence, value)
	}
	if err != nil {
		return 0, fmt.Errorf("block: save the sequence number: %w", err)
	}
	q.saved = n
	return n, nil
}

// AnchorPoint makes durable what was written so far, and returns the point that an anchor may hold
// from now on. It is for a program that keeps the point in a way of its own, or gives the store an
// anchor that it did not have. The store must be available. Errors: [ErrInaccessible],
// [ErrReadOnly], [ErrClosed].
func (s *Store) AnchorPoint(ctx context.Context) (keyring.Point, error) {
	if err := ctx.Err(); err != nil {
		return keyring.Point{}, fmt.Errorf("block: anchor point: %w", err)
	}
	generation := s.keys.State().Generation
	n, err := s.saveSequence(ctx)
	if err != nil {
		return keyring.Point{}, fmt.Errorf("block: anchor point: %w", err)
	}
	return keyring.Point{Fingerprint: s.Fingerprint(), Generation: generation, Sequence: n}, nil
}

// cannotWrite reports whether an error only says that the store cannot be written to now.
func cannotWrite(err error) bool {
	return errors.Is(err, ErrInaccessible) || errors.Is(err, ErrClosed) || errors.Is(err, ErrReadOnly)
}

// advance saves the number and moves the anchor, if there is one, to it.
func (s *Store) advance(ctx context.Context) error {
	n, err := s.saveSequence(ctx)
	if err != nil || s.sequence.anchor == nil {
		return err
	}
	return s.keys.Advance(ctx, n)
}

// noteSequence is saveSequence for a Checkpoint, whose copy goes on from the number. It does
// nothing if the number cannot be saved, or the keyring was not proven.
func (s *Store) noteSequence(ctx context.Context) error {
	if !s.proven.Load() {
		return nil
	}
	if _, err := s.saveSequence(ctx); err != nil && !cannotWrite(err) {
		return err
	}
	return nil
}

// endSequence is advance for Close. It does nothing if the number cannot be saved, or the keyring
// was not proven. Without an anchor the number need not be durable before the keyring is closed, which mostly
// saves the document once more: one wait for the disk does for both; see closeKeys.
func (s *Store) endSequence() error {
	if !s.proven.Load() {
		return nil
	}
	ctx := context.Background()
	if s.db.shared { // a server may never answer
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer s.keys.For(inner.Block{}).AfterFunc(cmp.Or(s.opts.Keyring.VaultTimeout, keyring.DefaultVaultTimeout), cancel)()
	}
	var err error
	if s.sequence.anchor == nil {
		_, err = s.saveSequenceBy(ctx, true)
	} else {
		err = s.advance(ctx)
	}
	if cannotWrite(err) || errors.Is(err, ErrNoStore) || s.keys.State().AnchorErr != nil { // Close of the keyring returns AnchorErr
		return nil
	}
	return err
}

// closeKeys closes the keyring, and makes what was written durable that its Close has not: nobody writes any
// more.
func (s *Store) closeKeys() error {
	before := s.keys.State().Generation
	err := s.keys.Close()
	s.sequence.saving.Lock()
	unsynced := s.sequence.unsynced
	s.sequence.saving.Unlock()
	if unsynced && (err != nil || s.keys.State().Generation == before) {
		if again := s.part.Sync(context.Background()); again != nil {
			err = errors.Join(err, row.Damage(again))
		}
	}
	return err
}

// startAnchoring advances the anchor to the store that was opened or made, and then as the store is
// written to.
func (s *Store) startAnchoring(ctx context.Context) {
	if s.sequence.anchor == nil || s.opts.ReadOnly {
		return
	}
	s.sequence.anchor.opened.Store(true)
	_ = s.advance(ctx) // the keyring has told of a failure
	s.spawn(s.keepAnchored)
}

// keepAnchored advances the anchor while the store is written to, at a bounded rate, and at once
// when the keyring document was saved. After a failure it tries again, less and less often.
func (s *Store) keepAnchored() {
	wait, told := s.opts.AnchorEvery, false
	for {
		s.waitFor(s.sequence.hurry, wait)
		if s.ctx.Err() != nil {
			return
		}
		switch err := s.advance(s.ctx); {
		case err == nil || cannotWrite(err):
			wait, told = s.opts.AnchorEvery, false
		default:
			// The keyring tells of the anchor's own failures.
			if s.keys.State().AnchorErr == nil && !told {
				s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.AnchorNotAdvanced, Err: err})
				told = true
			}
			wait = max(min(2*wait, anchorMost), s.opts.AnchorEvery)
		}
	}
}
