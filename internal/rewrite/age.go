package rewrite

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// A DEK has no date of its own; its epoch says when it was made at the earliest: when the epoch was
// created or, for DEKs that RotateEpoch or RewrapDEKs moved to a younger epoch, when the oldest of
// the epochs before was. A renewal replaces the DEKs of an epoch for which that is RekeyAfter ago.
// docs/design.md, section 8, has the argument and the bounds.
//
// The age of rewrapped DEKs is a tagged record. On disk, and must not change:
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

// dekAge says when the DEKs of epoch and of those before were made at the earliest. Zero says
// nothing.
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
		return a, fmt.Errorf("block: the record of the DEKs' age: %w", keyring.ErrVersion)
	}
	if len(b) != dekAgeSize {
		return a, fmt.Errorf("block: the record of the DEKs' age has %d bytes, want %d: %w", len(b), dekAgeSize, keyring.ErrCorrupt)
	}
	return dekAge{binary.BigEndian.Uint32(b[1:]), time.Unix(int64(binary.BigEndian.Uint64(b[5:])), 0).UTC()}, nil
}

// of returns when the oldest DEK of an epoch was made at the earliest.
func (a dekAge) of(e inner.EpochInfo) time.Time {
	if e.ID <= a.epoch && a.since.Before(e.Created) {
		return a.since
	}
	return e.Created
}

func (w *Rewriter) dekAge(ctx context.Context, h *keyring.Hold) (a dekAge, err error) {
	b, found, err := w.readTagged(ctx, h, metaDEKAge)
	if err != nil || !found {
		return a, err
	}
	return decodeDEKAge(b)
}

// inheritAge saves how old the DEKs of older epochs are, before they are rewrapped under epoch. The
// caller has the turn.
func (w *Rewriter) inheritAge(ctx context.Context, h *keyring.Hold, epoch uint32) error {
	if epoch <= w.aged {
		return nil
	}
	a, err := w.dekAge(ctx, h)
	if err != nil {
		return err
	}
	next := dekAge{epoch: epoch}
	for _, e := range h.For(inner.Block{}).Epochs() {
		if since := a.of(e); e.ID <= epoch && (next.since.IsZero() || since.Before(next.since)) {
			next.since = since
		}
	}
	if epoch > a.epoch {
		if err := w.writeTagged(ctx, h, metaDEKAge, next.encode()); err != nil {
			return err
		}
	}
	w.aged = epoch
	return nil
}

// dueBefore returns the epoch before which all DEKs are too old; 0: none are.
func (w *Rewriter) dueBefore(ctx context.Context, h *keyring.Hold) (bound uint32, err error) {
	after := w.Keys.Policy().RekeyAfter
	if after == 0 {
		return 0, nil
	}
	a, err := w.dekAge(ctx, h)
	if err != nil {
		return 0, err
	}
	now := w.Keys.For(inner.Block{}).Now()
	for _, e := range h.For(inner.Block{}).Epochs() {
		if now.Sub(a.of(e)) >= after {
			bound = e.ID + 1
		}
	}
	return bound, nil
}
