package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
)

// maxProblems is the most problems that a Report describes; it counts all of them.
const maxProblems = 100

// Report is what Verify found.
type Report struct {
	Blocks uint64 `json:"blocks"` // that authenticated
	Bytes  uint64 `json:"bytes"`  // of their plaintext
	// DEKs counts the DEK records by the epoch that wraps them.
	DEKs map[uint32]uint64 `json:"deks"`
	// ByKEK counts the DEK records that the vault wraps, by KEK id; see keyring.Info.
	ByKEK map[uint32]uint64 `json:"byKEK"`
	// Problems describes the first 100 things that are wrong, and Damaged counts all of them.
	Problems []Problem `json:"problems"`
	Damaged  uint64    `json:"damaged"`
}

// Problem is one thing that Verify found wrong.
type Problem struct {
	ID  []byte `json:"id"`    // of the block
	Err error  `json:"error"` // matches ErrCorrupt or ErrVersion
}

// Verify opens every DEK record and authenticates every block, as they are when it begins, while
// the store serves. If anything is wrong, it returns an error that matches [ErrCorrupt] and all of
// it in the report; any other error says that it could not finish. Records that the vault wraps
// cost a call each.
func (s *Store) Verify(ctx context.Context, p Progress) (rep Report, err error) {
	rep = Report{DEKs: map[uint32]uint64{}, ByKEK: map[uint32]uint64{}}
	h, err := s.keys.Acquire()
	if err != nil {
		return rep, fmt.Errorf("block: verify: %w", err)
	}
	session := h.For(inner.Block{}).Session()
	defer h.Pin()()
	begin := context.WithoutCancel(ctx) // a ctx that has ended ends Verify below, where it is measured
	view, err := s.part.View(begin)
	if err != nil {
		h.Release()
		return rep, fmt.Errorf("block: verify: %w", row.Damage(err))
	}
	s.use.Track(view)
	defer s.use.Finish(view)
	c, err := s.table.Cursor(begin, view, nil, nil, false)
	h.Release()
	if err != nil {
		return rep, fmt.Errorf("block: verify: %w", err)
	}
	defer c.Finish()

	m := s.board.Meter(workVerify, p.report(), 0, func(ctx context.Context) (uint64, error) { return s.table.Count(ctx, nil, nil) })
	defer func() { m.End(err) }()
	for {
		more, err := s.verifyNext(ctx, session, c, m, &rep)
		if err != nil {
			return rep, fmt.Errorf("block: verify: %w", err)
		}
		if !more {
			break
		}
		m.Between()
	}
	m.Done()
	if rep.Damaged > 0 {
		return rep, fmt.Errorf("block: verify: %w: %d of %d blocks, the first is %s: %w",
			ErrCorrupt, rep.Damaged, rep.Damaged+rep.Blocks, row.Shown(rep.Problems[0].ID), rep.Problems[0].Err)
	}
	return rep, nil
}

// verifyNext verifies the next block, in a hold of its own.
func (s *Store) verifyNext(ctx context.Context, session uint64, c *row.Cursor, m *progress.Meter, rep *Report) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	h, err := s.keys.For(inner.Block{}).AcquireSession(session)
	if err != nil {
		return false, err
	}
	defer func() { h.Release() }()
	pair, ok, err := c.Pair()
	if err != nil || !ok {
		return false, err
	}
	var data []byte
	if err = c.Whole(); err == nil {
		data, err = c.Open(ctx, &h, pair)
	}
	switch {
	case err == nil:
		rep.Blocks++
		rep.Bytes += uint64(len(data))
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion):
		s.counts.Fail(tally.Verify, err)
		if rep.Damaged++; len(rep.Problems) < maxProblems {
			rep.Problems = append(rep.Problems, Problem{ID: bytes.Clone(pair.ID), Err: err})
		}
	default:
		return false, err
	}
	if in, err := keyring.ParseRecord(pair.Record); err == nil {
		rep.DEKs[in.Epoch]++
		if in.Wrapping == keyring.ByKEK {
			rep.ByKEK[in.KEK]++
		}
	}
	m.Add(1, uint64(len(data)))
	return true, nil
}

// MarshalJSON implements [json.Marshaler].
func (p Problem) MarshalJSON() ([]byte, error) {
	type plain Problem
	return json.Marshal(struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain(p), errorText(p.Err)})
}
