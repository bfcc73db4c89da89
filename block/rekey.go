package block

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/keyring"
)

// Rekey gives the blocks of r fresh DEKs: it opens each, seals it under a new key,
// and writes it in place of the old one unless somebody else has written it in
// between. It runs while the store serves, at most Options.RewriteRate bytes a
// second.
//
// An operation that was cut off, by a crash or by ctx, goes on where it was when it
// is called again with the same range. Blocks that are put while it runs may or may
// not be given one more DEK; they have a fresh one anyway.
func (s *Store) Rekey(ctx context.Context, r Range, p Progress) error {
	if err := s.takeRewriting(ctx, "rekey"); err != nil {
		return err
	}
	defer func() { <-s.rewriting }()
	if err := s.rekey(ctx, r, p); err != nil {
		return fmt.Errorf("block: rekey: %w", err)
	}
	return nil
}

func (s *Store) rekey(ctx context.Context, r Range, p Progress) error {
	h, err := s.keys.Acquire()
	if err != nil {
		return err
	}
	session := h.Session()
	m, found, err := s.readMarker(metaRekey)
	h.Release()
	if err != nil {
		return err
	}
	if !found || !bytes.Equal(m.r.Start, r.Start) || !bytes.Equal(m.r.End, r.End) || (m.r.End == nil) != (r.End == nil) {
		m = marker{r: r, next: r.Start}
	}
	mt := s.meter(p, 0)
	for step := 0; ; step++ {
		bytes, done, err := s.rekeyStep(ctx, session, &m, mt, step)
		if err != nil {
			return err
		}
		if done {
			break
		}
		if err := s.pace(ctx, bytes); err != nil {
			return err
		}
	}
	mt.done()
	return nil
}

// rekeyStep re-encrypts the next chunk of blocks, in one hold.
func (s *Store) rekeyStep(ctx context.Context, session uint64, m *marker, mt *meter, step int) (n uint64, done bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	h, err := s.keys.AcquireSession(session)
	if err != nil {
		return 0, false, err
	}
	defer func() { h.Release() }()
	if err := s.mayWrite(&h); err != nil {
		return 0, false, err
	}
	if step%markEvery == 0 {
		if err := s.writeMarker(metaRekey, m); err != nil {
			return 0, false, err
		}
	}
	c, err := s.newCursor(s.db, Range{Start: m.next, End: m.r.End})
	if err != nil {
		return 0, false, err
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
			return 0, false, err
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
			return 0, false, fmt.Errorf("block %s: %w", shownID(p.id), err)
		}
		n += size
		mt.add(1, size)
	}
	if _, err := w.flush(&h); err != nil {
		return 0, false, err
	}
	if m.next = next; next != nil {
		return n, false, nil
	}
	// Removing the marker is synced, and with it everything before.
	return n, true, s.writeMarker(metaRekey, nil)
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
	sc := s.take(0, p.id)
	defer s.give(sc)
	if err := s.seal(ctx, h, w.batch, sc, 0, p.id, data); err != nil {
		return 0, err
	}
	w.was = append(w.was, change{id: bytes.Clone(p.id), old: old})
	w.bytes += len(data)
	return uint64(len(data)), nil
}

// pace waits for as long as n bytes take at Options.RewriteRate.
func (s *Store) pace(ctx context.Context, n uint64) error {
	rate := s.opts.RewriteRate
	if rate <= 0 || n == 0 {
		return nil
	}
	return s.keys.Sleep(ctx, time.Duration(float64(n)/float64(rate)*float64(time.Second)))
}
