package block

import (
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

// The write sequence number counts the changes of the store, beside those of the keyring
// document, which has its generation. It is counted when a change has been applied, and a
// tagged record holds it:
//
//	offset  size  field
//	     0     1  version, 1
//	     1     8  changes applied before the record was
//
// The engine's log is replayed as a prefix, and tables take over what is in it in its
// order: whatever has the record has all the changes that it counts. So the record is
// written, and synced, before an anchor is advanced to its number. It is not counted
// itself. On disk, and must not change.
const (
	metaSequence          = "sequence"
	sequenceRecordVersion = 1
	sequenceRecordSize    = 9
)

// sequence is the store's write sequence number, and what it does with its anchor.
type sequence struct {
	n atomic.Uint64 // changes applied
	_ [56]byte      // to the end of the cache line, which every writer writes

	writing  sync.Mutex // held by who writes the record, and taken before a hold
	recorded uint64     // what the record holds; guarded by writing

	found    []byte // the record as it was at Open; does not change once the keyring is opened
	admitted atomic.Bool
	anchor   *storeAnchor // nil: none
	hurry    chan struct{}
}

// Sequence returns the write sequence number: how many changes were ever applied to the
// store and, before it was made, to the one that it is a copy of. The keyring document's
// are counted by its generation instead. After a crash it goes on from the last number
// that was written down: at Close, at a Checkpoint, and for an anchor
// (Options.Keyring.Anchor). It is 0 until the store was available once.
func (s *Store) Sequence() uint64 { return s.sequence.n.Load() }

// changed counts a change that was applied, and not one that is yet to be: what is written
// down must not count a change that may come behind it in the log.
func (s *Store) changed() { s.sequence.n.Add(1) }

// created counts the creation of the store, as its first change.
func (s *Store) created() { s.sequence.n.CompareAndSwap(0, 1) }

// storeAnchor is the anchor as the store gives it to its keyring. One that holds something
// has said which document can be opened at all. One that is empty takes what it is given
// first, and refuses everything else from then on; so it is given nothing
//
//   - before the document is in the engine: a new store's keyring is made in memory, and
//     what a crash leaves must not be refused for it;
//   - before the keyring was seen to open a record of this store: see prove.
//
// What is left out while the store is being opened is made up for at the end of Open: the
// sequence number is ahead then.
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

// Advance implements [keyring.Anchor]. A document that was found in the engine is durable:
// Pebble has written out what was in its log when it was opened, synced before or not.
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

// prove sees to it once that the keyring is the one that this store's records were made under;
// see [row.Prove]. It goes on when the caller's context ends, and ends with the store: what is
// found holds for all who come next.
func (s *Store) prove(_ context.Context, h *keyring.Hold) error {
	if s.proven.Load() {
		return nil
	}
	if err := row.Prove(s.ctx, s.part, s.partition, h); err != nil {
		return s.ending(err)
	}
	s.proven.Store(true)
	return nil
}

// proveNow is prove, with a hold of its own.
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

// watchSequence puts the store's own look at its number, and its hands on the anchor,
// between the caller's options and the keyring.
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

// findSequence reads the record of a store that is being opened.
func (s *Store) findSequence(ctx context.Context) (err error) {
	s.sequence.found, err = engine.ReadMeta(ctx, s.part, metaSequence)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return row.Damage(err)
}

// decodeSequence reads a tagged record of a number. ok is false for one that has none.
func decodeSequence(b []byte) (n uint64, tag, record []byte, ok bool) {
	tag, record, ok = tagged.Split(b)
	if !ok || len(record) != sequenceRecordSize || record[0] != sequenceRecordVersion {
		return 0, nil, nil, false
	}
	return binary.BigEndian.Uint64(record[1:]), tag, record, true
}

// admit looks, before any key can be used, whether the number that was found is authentic
// and not less than the anchor's; later it is the store's own.
func (s *Store) admit(tag func(string, []byte) [inner.TagSize]byte) error {
	q := &s.sequence
	if q.admitted.Load() {
		return nil
	}
	if err := s.place.CheckTag(tag); err != nil {
		return err
	}
	n, given, record, ok := decodeSequence(q.found)
	if ok {
		want := tag(metaSequence, record)
		ok = hmac.Equal(given, want[:])
	}
	if !ok {
		n = 0 // a record that is not authentic counts as none
	}
	if err := s.sequenceExpected(n); err != nil {
		return err
	}
	recorded := n
	if n == 0 && q.anchor != nil {
		n = 1 // what is there counts as one change, so that there is something to anchor
	}
	q.n.Store(n)
	q.writing.Lock()
	q.recorded = recorded
	q.writing.Unlock()
	q.admitted.Store(true)
	return nil
}

// expectClaimed looks at the number that is in clear, of a store that is open without access:
// of one that is too small nothing else needs to be known.
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
	return fmt.Errorf("block: the write sequence number of %s is %d, at least %d was expected: an older copy was put in its place, "+
		"or changes that were durable are missing: %w; to accept it on purpose, give it an empty anchor: move the file of a FileAnchor away",
		s.place.Dir(), n, least.Sequence, keyring.ErrUnexpected)
}

// recordedSequence is the number that is written down.
func (s *Store) recordedSequence() uint64 {
	s.sequence.writing.Lock()
	defer s.sequence.writing.Unlock()
	return s.sequence.recorded
}

// recordSequence writes down the number, if it has grown, and returns what is written down.
// It is durable then, and with it every change that it counts.
func (s *Store) recordSequence(ctx context.Context) (uint64, error) {
	q := &s.sequence
	q.writing.Lock()
	defer q.writing.Unlock()
	h, err := s.writeHold(ctx)
	if err != nil {
		return 0, err
	}
	defer h.Release()
	n := q.n.Load()
	if n == q.recorded {
		return n, nil
	}
	record := binary.BigEndian.AppendUint64([]byte{sequenceRecordVersion}, n)
	value, err := tagged.Record(&h, metaSequence, record)
	if err == nil {
		err = engine.SetMeta(ctx, s.part, metaSequence, value)
	}
	if err != nil {
		return 0, fmt.Errorf("block: write down the write sequence number: %w", err)
	}
	q.recorded = n
	return n, nil
}

// AnchorPoint makes durable what was changed so far, and returns the point that an anchor may
// hold from now on: for a program that keeps it in a way of its own, or gives the store an
// anchor that it did not have. The store must be available. Errors: [ErrInaccessible],
// [ErrReadOnly], [ErrClosed].
func (s *Store) AnchorPoint(ctx context.Context) (keyring.Point, error) {
	if err := ctx.Err(); err != nil {
		return keyring.Point{}, fmt.Errorf("block: anchor point: %w", err)
	}
	generation := s.keys.State().Generation
	n, err := s.recordSequence(ctx)
	if err != nil {
		return keyring.Point{}, fmt.Errorf("block: anchor point: %w", err)
	}
	return keyring.Point{Fingerprint: s.Fingerprint(), Generation: generation, Sequence: n}, nil
}

// noRecord says of an error of recordSequence that nothing has failed: there is nothing that
// could be written.
func noRecord(err error) bool {
	return errors.Is(err, ErrInaccessible) || errors.Is(err, ErrClosed) || errors.Is(err, ErrReadOnly)
}

// advance writes down the number and moves the anchor there, if there is one.
func (s *Store) advance(ctx context.Context) error {
	n, err := s.recordSequence(ctx)
	if err != nil || s.sequence.anchor == nil {
		return err
	}
	return s.keys.Advance(ctx, n)
}

// noteSequence is recordSequence, where it can be done, for a Checkpoint, whose copy goes on
// from there. Under a keyring that was not seen to open a record nothing is written.
func (s *Store) noteSequence(ctx context.Context) error {
	if !s.proven.Load() {
		return nil
	}
	if _, err := s.recordSequence(ctx); err != nil && !noRecord(err) {
		return err
	}
	return nil
}

// endSequence is advance for Close, where it can be done.
func (s *Store) endSequence() error {
	if !s.proven.Load() {
		return nil
	}
	err := s.advance(context.Background())
	if noRecord(err) || s.keys.State().AnchorErr != nil { // which Close of the keyring returns
		return nil
	}
	return err
}

// startAnchoring advances the anchor to a store that was opened or made, and then as it
// changes.
func (s *Store) startAnchoring(ctx context.Context) {
	if s.sequence.anchor == nil || s.opts.ReadOnly {
		return
	}
	s.sequence.anchor.opened.Store(true)
	_ = s.advance(ctx) // which has told of it
	s.spawn(s.keepAnchored)
}

// keepAnchored advances the anchor while there are changes, at a bounded rate, and at once
// when the keyring document has changed. What fails is told by the keyring, and tried again
// less often.
func (s *Store) keepAnchored() {
	wait, told := s.opts.AnchorEvery, false
	for {
		s.waitFor(s.sequence.hurry, wait)
		if s.ctx.Err() != nil {
			return
		}
		switch err := s.advance(s.ctx); {
		case err == nil || noRecord(err):
			wait, told = s.opts.AnchorEvery, false
		default:
			// Of the anchor's own failures the keyring has told.
			if s.keys.State().AnchorErr == nil && !told {
				s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.AnchorNotAdvanced, Err: err})
				told = true
			}
			wait = max(min(2*wait, anchorMost), s.opts.AnchorEvery)
		}
	}
}
