package block

import (
	"cmp"
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// A DB whose engine is in no directory has no lock, no files and no list of them, and its engine may
// be other processes' too (engine.Sharer). What that changes here is in this file, or asks shared.
// A program that has such a DB imports a package beneath this one, and no other links its engine.

// overEngine is how such a package makes its DB.
type overEngine DBOptions

// For is for packages of this module that make a DB over an engine of their own: nobody outside of
// it can write its argument.
func (o *DBOptions) For(inner.Block) *overEngine { return (*overEngine)(o) }

// Open returns a DB over an engine, which it closes, also if it fails. name says, in errors, where
// the engine is.
func (o *overEngine) Open(ctx context.Context, e engine.Engine, name string) (*DB, error) {
	opts, err := (*DBOptions)(o).withDefaults()
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	d := unopenedDB(opts)
	d.attach(e)
	if d.place, err = place.Elsewhere(ctx, d.catalogue.Meta(), name, opts.ReadOnly); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	if err := d.finish(ctx); err != nil {
		return nil, errors.Join(err, d.release())
	}
	return d, nil
}

// isShared reports whether other processes may have the engine too.
func isShared(e engine.Engine) bool {
	_, shared := e.(engine.Sharer)
	return shared
}

// keeps returns where the engine keeps what it was told to remove for longer than it knows, or
// errors.ErrUnsupported for one that says nothing of that and does not promise to forget it either.
func (d *DB) keeps(p engine.Partition) ([]string, error) {
	if _, ok := p.(engine.Purger); ok {
		return nil, nil
	}
	if s, ok := d.engine.(engine.Sharer); ok {
		return s.Keeps(), nil
	}
	return nil, fmt.Errorf("the engine cannot promise that its files forget; nothing was destroyed: %w", errors.ErrUnsupported)
}

// present marks that a store has its document. Who finds the document of another one's creation
// does so as well, so that it may be done already. If the name is another's by now, whose creation
// did not wait for this one, it is ErrExists, and ErrLocked while that one is not finished.
func (d *DB) present(ctx context.Context, e catalogue.Entry) error {
	_, err := d.catalogue.Advance(ctx, e, catalogue.Present)
	if !errors.Is(err, catalogue.ErrMoved) {
		return row.Damage(err)
	}
	now, again := d.catalogue.Find(ctx, e.Name)
	switch {
	case errors.Is(again, catalogue.ErrNone):
		return fmt.Errorf("%w: %q was dropped meanwhile", ErrNoStore, e.Name)
	case again != nil:
		return errors.Join(row.Damage(again), err)
	case now.Number != e.Number:
		if now.State == catalogue.Creating {
			if none, again := d.none(ctx)(now); none || again != nil {
				return fmt.Errorf("%w: somebody else is making store %q; try again: %w", ErrLocked, e.Name, err)
			}
		}
		return fmt.Errorf("%w: %q was made by somebody else meanwhile", ErrExists, e.Name)
	case now.State == catalogue.Dropping:
		return fmt.Errorf("%w: %q is being dropped", ErrNoStore, e.Name)
	}
	return nil
}

// droppedByOther returns the receipt of a drop that another process has finished meanwhile, or err.
func (d *DB) droppedByOther(ctx context.Context, e catalogue.Entry, err error) (r Receipt, _ error) {
	b, again := engine.ReadMeta(ctx, d.catalogue.Meta(), receiptName(e.Number))
	if again == nil {
		r, again = readReceipt(b)
	}
	if again != nil || r.Name != e.Name || !r.Dropped {
		return Receipt{}, err
	}
	return r, nil
}

// addToSequence is saveSequence where other processes save the number too: each adds the writes
// that it has applied since it did so last. The caller holds q.saving. A lock does not wait for a server
// that does not answer.
//
// A number that has gone back is left as it is: the database has lost what it had acknowledged.
func (s *Store) addToSequence(ctx context.Context, h *keyring.Hold) (uint64, error) {
	ctx, end := h.For(inner.Block{}).Within(ctx)
	n, err := s.addToSequenceNow(ctx, h)
	return n, end(err)
}

func (s *Store) addToSequenceNow(ctx context.Context, h *keyring.Hold) (uint64, error) {
	q := &s.sequence
	for {
		value, revision, err := s.part.LoadMeta(ctx, metaSequence)
		if err == nil && revision == q.unsure.revision { // it was saved after all
			s.writes.n.Add(q.unsure.before - q.saved)
			q.saved, q.unsure = q.unsure.saved, unsure{}
		}
		if errors.Is(err, engine.ErrNotFound) && q.saved > 0 {
			return 0, fmt.Errorf("block: save the sequence number: %w: its record is gone: the store was dropped, or lost", ErrNoStore)
		}
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return 0, fmt.Errorf("block: save the sequence number: %w", row.Damage(err))
		}
		before, tag, content, ok := decodeSequence(value)
		if ok {
			want, err := h.For(inner.Block{}).Tag(metaSequence, content)
			if err != nil {
				return 0, err
			}
			ok = hmac.Equal(tag, want[:])
		}
		if !ok {
			before = 0
		}
		if before < q.saved {
			return 0, fmt.Errorf("block: save the sequence number: it has gone back from %d to %d: the database has lost writes that it had acknowledged, "+
				"as after a failover to a standby that was behind: %w; nothing was replaced", q.saved, before, keyring.ErrUnexpected)
		}
		n := before + s.writes.n.Load() - q.saved
		if n == before && (ok || n == 0) {
			s.writes.n.Add(before - q.saved)
			q.saved = n
			return n, nil
		}
		next, err := tagged.Record(h, metaSequence, binary.BigEndian.AppendUint64([]byte{sequenceRecordVersion}, n))
		if err == nil {
			var given []uint64
			given, err = s.part.SwapMeta(ctx, engine.Swap{Name: metaSequence, Revision: revision, Value: next})
			if errors.Is(err, engine.ErrOutcomeUnknown) && len(given) == 1 {
				// Unless somebody else saves in between, the next look tells, and the writes are counted once.
				q.unsure = unsure{given[0], before, n}
			}
		}
		if errors.Is(err, engine.ErrConflict) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("block: save the sequence number: %w", err)
		}
		s.writes.n.Add(before - q.saved)
		q.saved = n
		return n, nil
	}
}

// lookAtDocument has the keyring take up what other processes have saved, if the keys are accessible:
// for what says of the keyring what somebody may act upon. Without access each check tries that.
func (s *Store) lookAtDocument(ctx context.Context) error {
	if !s.db.shared {
		return nil
	}
	h, err := s.keys.Acquire()
	if errors.Is(err, keyring.ErrInaccessible) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Release()
	return h.For(inner.Block{}).Reload(ctx)
}

// startFollowing has the store look when another process tells that it has changed the document or the
// floor. What it cannot take up now, because it has no access or the server does not answer, the next
// commit or check finds, and says why not.
func (s *Store) startFollowing() {
	p, ok := s.part.(engine.Hearer)
	if !ok {
		return
	}
	heard := make(chan struct{}, 1) // what is told while it looks is one more look
	stop := p.Hear(func() {
		select {
		case heard <- struct{}{}:
		default:
		}
	})
	if !s.spawn(func() {
		defer stop()
		for {
			select {
			case <-heard:
			case <-s.ctx.Done():
				return
			}
			if h, err := s.keys.Acquire(); err == nil {
				_ = s.table.Follow(s.ctx, &h)
				h.Release()
			}
		}
	}) {
		stop()
	}
}

// has is row.Table.Has. A lock does not wait for a server that does not answer; see row's within.
func (s *Store) has(ctx context.Context, h *keyring.Hold, r engine.Reader, id []byte) (bool, error) {
	if !s.db.shared {
		return s.table.Has(ctx, r, id)
	}
	ctx, end := h.For(inner.Block{}).Within(ctx)
	ok, err := s.table.Has(ctx, r, id)
	return ok, end(err)
}

// lease is the store's.
func (s *Store) lease() time.Duration { return cmp.Or(s.opts.Keyring.Lease, keyring.DefaultLease) }
