package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// How old a DEK is, nobody has written down: it would be a date for each block. Its
// epoch says when it was made at the earliest, which is when the epoch was created,
// or, for what RotateEpoch rewrapped, when the oldest of the epochs before was. DEKs
// of an epoch of which that is longer ago than RekeyAfter are replaced; new epochs
// begin at least four times in that time (see keyring.Options.RekeyAfter), so that a
// DEK is replaced at an age between three quarters of RekeyAfter and the whole of it,
// and the time that the work takes. What was put into a batch is counted from the
// batch's commit.
//
// The age of what was rewrapped is a tagged record. On disk, and must not change.
//
//	offset  size  field
//	     0     1  version, 1
//	     1     4  epoch: of this one and those before,
//	     5     8  no DEK was made earlier, seconds since 1970-01-01 UTC, signed
const (
	metaDEKAge    = "dek-age"
	dekAgeVersion = 1
	dekAgeSize    = 13
)

// dekAge says of the epochs up to one since when their DEKs can have been made. The
// zero dekAge says nothing of any.
type dekAge struct {
	epoch uint32
	since time.Time
}

func (a dekAge) encode() []byte {
	b := binary.BigEndian.AppendUint32([]byte{dekAgeVersion}, a.epoch)
	return binary.BigEndian.AppendUint64(b, uint64(a.since.Unix()))
}

func decodeDEKAge(b []byte) (a dekAge, err error) {
	if len(b) > 0 && b[0] != dekAgeVersion {
		return a, fmt.Errorf("block: the record of the DEKs' age: %w", ErrVersion)
	}
	if len(b) != dekAgeSize {
		return a, fmt.Errorf("block: the record of the DEKs' age has %d bytes, want %d: %w", len(b), dekAgeSize, ErrCorrupt)
	}
	return dekAge{binary.BigEndian.Uint32(b[1:]), time.Unix(int64(binary.BigEndian.Uint64(b[5:])), 0).UTC()}, nil
}

// of returns when the oldest DEK of an epoch can have been made.
func (a dekAge) of(e keyring.EpochInfo) time.Time {
	if e.ID <= a.epoch && a.since.Before(e.Created) {
		return a.since
	}
	return e.Created
}

func (s *Store) dekAge(ctx context.Context, h *keyring.Hold) (a dekAge, err error) {
	b, found, err := s.readTagged(ctx, h, metaDEKAge)
	if err != nil || !found {
		return a, err
	}
	return decodeDEKAge(b)
}

// inheritAge says, before DEKs of older epochs are rewrapped under the given one, how
// old they are. The caller has the turn of rewriting operations.
func (s *Store) inheritAge(ctx context.Context, h *keyring.Hold, epoch uint32) error {
	if epoch <= s.aged {
		return nil
	}
	a, err := s.dekAge(ctx, h)
	if err != nil {
		return err
	}
	next := dekAge{epoch: epoch}
	for _, e := range h.Epochs() {
		if since := a.of(e); e.ID <= epoch && (next.since.IsZero() || since.Before(next.since)) {
			next.since = since
		}
	}
	if epoch > a.epoch {
		if err := s.writeTagged(ctx, h, metaDEKAge, next.encode()); err != nil {
			return err
		}
	}
	s.aged = epoch
	return nil
}

// dueBefore returns the epoch before which the DEKs are too old; 0: none are.
func (s *Store) dueBefore(ctx context.Context, h *keyring.Hold) (bound uint32, err error) {
	after := s.keys.Policy().RekeyAfter
	if after == 0 {
		return 0, nil
	}
	a, err := s.dekAge(ctx, h)
	if err != nil {
		return 0, err
	}
	now := s.keys.Now()
	for _, e := range h.Epochs() {
		if now.Sub(a.of(e)) >= after {
			bound = e.ID + 1
		}
	}
	return bound, nil
}

// errOvertaken ends a renewal whose epochs another operation has replaced meanwhile;
// it begins anew.
var errOvertaken = errors.New("block: the epochs were rotated meanwhile")

// renewDEKs gives the blocks whose DEKs are too old fresh ones, and drops the epochs
// of those. Another rewriting operation gets its turn after each step.
func (s *Store) renewDEKs(ctx context.Context) error {
	if s.keys.Policy().RekeyAfter == 0 {
		return nil
	}
	for {
		err := s.renewOnce(ctx)
		if !errors.Is(err, errOvertaken) {
			return err
		}
	}
}

func (s *Store) renewOnce(ctx context.Context) (err error) {
	n, err := s.beginRenewal(ctx)
	if err != nil || n == nil {
		return err
	}
	mt := s.meter(workRekey, nil, 0, s.countIn(Range{Start: n.m.next}))
	defer func() { mt.end(err) }()
	start := s.keys.Elapsed()
	for done := false; !done; {
		var cost cost
		if cost, done, err = s.renewTurn(ctx, n, mt); err != nil {
			return err
		}
		if err = s.pace(ctx, cost); err != nil {
			return err
		}
	}
	if n.damaged != nil {
		return n.damaged
	}
	s.keys.Emit(keyring.Event{Kind: keyring.Progressed, Detail: fmt.Sprintf("replaced %d DEKs that were too old", n.renewed),
		Duration: s.keys.Elapsed() - start})
	return nil
}

// renewal is one that is under way.
type renewal struct {
	session   uint64
	rotations uint64 // Store.rotations when it began
	m         marker // epoch: DEKs before it are replaced
	step      int
	renewed   uint64
	damaged   error // the first block that could not be opened
}

// beginRenewal returns what is due, or nil.
func (s *Store) beginRenewal(ctx context.Context) (*renewal, error) {
	if err := s.takeRewriting(ctx, "renew DEKs"); err != nil {
		return nil, err
	}
	defer func() { <-s.rewriting }()
	h, err := s.keys.Acquire()
	if err != nil {
		return nil, err
	}
	defer func() { h.Release() }()
	n := &renewal{session: h.Session(), rotations: s.rotations}
	bound, err := s.dueBefore(ctx, &h)
	if err != nil || bound == 0 {
		return nil, err
	}
	// From the start, also after a restart: what is done shows in the records' epochs.
	n.m = marker{epoch: bound}
	if h.CurrentEpoch() >= bound {
		return n, nil
	}
	h.Release()
	err = s.keys.Rotate(ctx)
	if h, err = again(s.keys, n.session, err); err != nil {
		return nil, err
	}
	return n, nil
}

// again takes a hold again after something was done without it, unless that failed.
func again(keys *keyring.Keyring, session uint64, err error) (keyring.Hold, error) {
	if err != nil {
		return keyring.Hold{}, err
	}
	return keys.AcquireSession(session)
}

// renewTurn is one step, with the turn of rewriting operations, in one hold.
func (s *Store) renewTurn(ctx context.Context, n *renewal, mt *meter) (c cost, done bool, err error) {
	if err := s.takeRewriting(ctx, "renew DEKs"); err != nil {
		return c, false, err
	}
	defer func() { <-s.rewriting }()
	if s.rotations != n.rotations {
		return c, false, errOvertaken
	}
	h, err := s.keys.AcquireSession(n.session)
	if err != nil {
		return c, false, err
	}
	defer func() { h.Release() }()
	if err := s.mayWrite(ctx, &h); err != nil {
		return c, false, err
	}
	if n.step == 0 {
		if err := s.part.RaiseFloor(ctx, n.m.epoch); err != nil {
			return c, false, err
		}
		if err := s.writeMarker(ctx, &h, metaRenew, n.m); err != nil { // for Inspect
			return c, false, err
		}
	}
	n.step++
	w := s.newRewriter()
	s.track(w)
	defer s.finish(w)
	next, err := s.collectTooOld(ctx, &h, w, n, mt)
	if err != nil {
		return c, false, err
	}
	c = cost{bytes: uint64(w.bytes), blocks: uint64(len(w.was))}
	n.renewed += c.blocks
	if err := w.flush(ctx); err != nil {
		return c, false, err
	}
	if n.m.next = next; next != nil {
		return c, false, nil
	}
	return c, true, s.endRenewal(ctx, &h, n)
}

// endRenewal drops the epochs that nothing names any more, unless a block could not be
// opened: it is left as it is.
func (s *Store) endRenewal(ctx context.Context, h *keyring.Hold, n *renewal) error {
	if err := s.part.Sync(ctx); err != nil {
		return err
	}
	if n.damaged == nil {
		a, err := s.dekAge(ctx, h)
		if err != nil {
			return err
		}
		h.Release()
		_, err = s.keys.DropEpochs(ctx, n.m.epoch)
		if *h, err = again(s.keys, n.session, err); err != nil {
			return err
		}
		if a.epoch < n.m.epoch {
			if err := s.writeMeta(ctx, metaDEKAge, nil); err != nil {
				return err
			}
		}
	}
	return s.removeMarker(ctx, metaRenew)
}

// collectTooOld prepares the replacement of the next blocks whose DEKs are too old,
// and returns where to go on, nil at the end.
func (s *Store) collectTooOld(ctx context.Context, h *keyring.Hold, w *rewriter, n *renewal, mt *meter) (next []byte, err error) {
	view, err := s.part.View(ctx)
	if err != nil {
		return nil, s.damage(err)
	}
	s.track(view)
	defer s.finish(view)
	todo, next, err := s.listTooOld(ctx, view, n.m, mt)
	if err != nil {
		return nil, err
	}
	var row engine.Row
	var plain []byte
	defer func() { clear(plain[:cap(plain)]) }()
	for _, c := range todo {
		if w.full() {
			return c.ID, nil
		}
		p := pair{id: c.ID, record: c.Record}
		if p.value, err = sealedIn(ctx, view, c.ID, &row); err == nil {
			plain = roomFor(plain, p.value)
			var out []byte // nil if it does not open: plain stays, to be overwritten
			if out, err = s.openPair(ctx, h, p, plain); err == nil {
				plain = out
			}
		}
		if err == nil {
			err = s.reseal(ctx, h, w, c.ID, c.Record, plain)
		}
		if err = s.damage(err); errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) {
			if n.damaged == nil {
				n.damaged = fmt.Errorf("block: renew DEKs: block %s: %w", shownID(c.ID), err)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("block: renew DEKs: block %s: %w", shownID(c.ID), err)
		}
		mt.add(1, uint64(len(plain)))
	}
	return next, nil
}

// listTooOld returns the next records of which the DEKs are too old, and where to go
// on, nil at the end. It stops soon after one, so that a hold is short.
func (s *Store) listTooOld(ctx context.Context, r engine.Reader, m marker, mt *meter) (todo []engine.Was, next []byte, err error) {
	it, err := r.Cursor(ctx, engine.Record, m.next, nil)
	if err != nil {
		return nil, nil, s.damage(err)
	}
	defer it.Close()
	most := 64 * s.steps.records
	for ok := it.First(); ok; ok = it.Next() {
		id := it.ID()
		if len(todo) == s.steps.records || most == 0 {
			return todo, bytes.Clone(id), nil
		}
		record, err := it.Value()
		if err != nil {
			return nil, nil, s.damage(err)
		}
		in, err := keyring.ParseRecord(record)
		if err != nil {
			return nil, nil, fmt.Errorf("block: renew DEKs: block %s: %w", shownID(id), err)
		}
		most--
		switch {
		case in.Epoch < m.epoch:
			todo = append(todo, engine.Was{ID: bytes.Clone(id), Record: bytes.Clone(record)})
		case len(todo) == 0:
			mt.add(1, 0)
		}
	}
	return todo, nil, s.damage(it.Err())
}

// sealedIn returns a copy of a sealed block; that it is missing is damage.
func sealedIn(ctx context.Context, r engine.Reader, id []byte, row *engine.Row) ([]byte, error) {
	err := r.Get(ctx, id, engine.Sealed, row)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, errNoData
	}
	if err != nil {
		return nil, err
	}
	defer row.Release()
	return bytes.Clone(row.Sealed), nil
}
