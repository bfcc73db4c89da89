package block

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Rekey gives the blocks of r fresh DEKs: it opens each, seals it under a new key,
// and writes it in place of the old one unless somebody else has written it in
// between. It runs while the store serves, at most Options.RewriteRate bytes a
// second; with ByKEK, at most Options.VaultRate vault calls in 10 seconds, of which a
// block takes two, and one more if its DEK is not in the cache.
//
// An operation that was cut off, by a crash or by ctx, goes on where it was when it
// is called again with the same range in the same epoch. Blocks that are put while it runs may or may
// not be given one more DEK; they have a fresh one anyway.
//
// It refuses with [ErrInvalidID], before anything is written, a range that starts after
// its end, or with a bound of more than [MaxID] bytes and one.
func (s *Store) Rekey(ctx context.Context, r Range, p Progress) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("block: rekey: %w", err)
	}
	if err := s.takeRewriting(ctx, "rekey"); err != nil {
		return err
	}
	defer func() { <-s.rewriting }()
	if err := s.rekey(ctx, r, p); err != nil {
		return fmt.Errorf("block: rekey: %w", err)
	}
	return nil
}

func (s *Store) rekey(ctx context.Context, r Range, p Progress) (err error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return err
	}
	session := h.Session()
	m, found, err := s.readMarker(ctx, &h, metaRekey)
	work, workErr := h.Work()
	current := h.CurrentEpoch()
	h.Release()
	if err = errors.Join(err, workErr); err != nil {
		return err
	}
	if !found || m.work != work || m.epoch != current || !m.r.equal(r) {
		m = marker{epoch: current, r: r, next: r.Start}
		if m.work, err = s.keys.BeginWork(ctx); err != nil {
			return err
		}
	}
	mt := s.meter(workRekey, p, 0, s.countIn(Range{Start: m.next, End: m.r.End}))
	defer func() { mt.end(err) }()
	for step := 0; ; step++ {
		c, done, err := s.rekeyStep(ctx, session, &m, mt, step)
		if err != nil {
			return err
		}
		if done {
			break
		}
		mt.between()
		if err := s.pace(ctx, c); err != nil {
			return err
		}
	}
	// From here on no marker of this one is believed, wherever it comes from.
	if err := s.keys.EndWork(ctx); err != nil {
		return err
	}
	if err := s.removeMarker(ctx, metaRekey); err != nil {
		return err
	}
	mt.done()
	return nil
}

// rekeyStep re-encrypts the next chunk of blocks, in one hold.
func (s *Store) rekeyStep(ctx context.Context, session uint64, m *marker, mt *meter, step int) (n cost, done bool, err error) {
	if err := ctx.Err(); err != nil {
		return n, false, err
	}
	h, err := s.keys.AcquireSession(session)
	if err != nil {
		return n, false, err
	}
	defer func() { h.Release() }()
	if err := s.mayWrite(ctx, &h); err != nil {
		return n, false, err
	}
	if step%s.steps.mark == 0 {
		if err := s.writeMarker(ctx, &h, metaRekey, *m); err != nil {
			return n, false, err
		}
	}
	c, err := s.newCursor(ctx, s.part, Range{Start: m.next, End: m.r.End})
	if err != nil {
		return n, false, err
	}
	defer func() {
		s.finish(c)
		clear(c.plain[:cap(c.plain)])
	}()
	w := s.newRewriter()
	s.track(w)
	defer s.finish(w)
	var next []byte
	for {
		p, ok, err := c.pair()
		if err != nil {
			return n, false, err
		}
		if !ok {
			break
		}
		if w.full() {
			next = bytes.Clone(p.id)
			break
		}
		size, err := s.rekeyOne(ctx, &h, c, w, p)
		if err != nil {
			return n, false, fmt.Errorf("block %s: %w", shownID(p.id), err)
		}
		n.bytes += size
		n.blocks++
		mt.add(1, size)
	}
	if err := w.flush(ctx); err != nil {
		return n, false, err
	}
	if m.next = next; next != nil {
		return n, false, nil
	}
	return n, true, s.part.Sync(ctx)
}

// rekeyOne prepares the replacement of one block.
func (s *Store) rekeyOne(ctx context.Context, h *keyring.Hold, c *cursor, w *rewriter, p pair) (uint64, error) {
	if err := c.whole(); err != nil {
		return 0, err
	}
	old := bytes.Clone(p.record)
	data, err := c.open(ctx, h, p)
	if err != nil {
		return 0, err
	}
	return uint64(len(data)), s.reseal(ctx, h, w, p.id, old, data)
}

// reseal prepares the replacement of a block, whose record is old, by the same data
// under a fresh DEK.
func (s *Store) reseal(ctx context.Context, h *keyring.Hold, w *rewriter, id, old, data []byte) error {
	sc := s.take(id)
	defer s.give(sc)
	if err := s.seal(ctx, h, w.batch, sc, id, data); err != nil {
		return err
	}
	if err := s.proveRecord(ctx, h, sc, id); err != nil {
		return err
	}
	w.was = append(w.was, engine.Was{ID: bytes.Clone(id), Record: old})
	w.bytes += len(data)
	return nil
}

// proveRecord has the vault unwrap a DEK that it just wrapped (ByKEK): what it answered
// is about to replace a wrap that is good.
func (s *Store) proveRecord(ctx context.Context, h *keyring.Hold, sc *scratch, id []byte) error {
	in, err := keyring.ParseRecord(sc.row.Record)
	if err != nil || in.Wrapping != keyring.ByKEK {
		return err
	}
	again := s.take(id)
	defer s.give(again)
	if err := h.OpenDEK(ctx, &again.key, sc.row.Record, &again.binding); err != nil {
		return fmt.Errorf("the vault's wrap of the new DEK is of no use: %w", err)
	}
	if subtle.ConstantTimeCompare(again.key.Bytes(), sc.key.Bytes()) != 1 {
		return fmt.Errorf("the vault unwrapped to another DEK than it had wrapped: %w", ErrCorrupt)
	}
	return nil
}

// cost is what a step of re-encrypting took.
type cost struct{ bytes, blocks uint64 }

// pace waits for as long as that takes at Options.RewriteRate and, with ByKEK, at
// Options.VaultRate.
func (s *Store) pace(ctx context.Context, c cost) error {
	if s.keys.Wrapping() == keyring.ByKEK {
		if err := s.budget.take(ctx, callsPerRewrap*int(c.blocks)); err != nil {
			return err
		}
	}
	rate := s.opts.RewriteRate
	if rate <= 0 || c.bytes == 0 {
		return ctx.Err()
	}
	return s.keys.Sleep(ctx, time.Duration(float64(c.bytes)/float64(rate)*float64(time.Second)))
}
