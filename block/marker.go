package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// A marker is what a long rewriting operation leaves while it is unfinished. That of
// Rekey is how far it has come, so that it goes on after a restart where it was; those of
// the others only say that there is one (Inspect), and are never read. On disk, in a
// tagged meta record under the operation's name; it must not change.
//
//	offset  size  field
//	     0     1  version, 1
//	     1     4  epoch: that RotateEpoch rewraps to; that was the current one when
//	              Rekey began; before which a renewal replaces DEKs
//	     5    16  id of the work, as in the keyring document; zeros but in "rekey"
//	    21     4  length of start | start
//	     .     4  length of end | end; the length 2^32-1 is no end
//	     .     4  length of next | next: the block id that it has not done yet
//
// A marker is only ever too early: what it says is done is in the engine before it.
// The tag keeps markers out that somebody else made, and the id of the work those that
// the store itself made for an earlier operation: the document has forgotten theirs.
type marker struct {
	epoch uint32
	work  keyring.WorkID
	r     Range
	next  []byte
}

const (
	markerVersion = 1
	fixedMarker   = 21
	noEnd         = 1<<32 - 1

	metaRotateEpoch = "rotate-epoch"
	metaRekey       = "rekey"
	metaRenew       = "renew"
)

// equal reports whether two ranges have the same bounds.
func (r Range) equal(o Range) bool {
	return bytes.Equal(r.Start, o.Start) && bytes.Equal(r.End, o.End) && (r.End == nil) == (o.End == nil)
}

func (m marker) encode() []byte {
	b := []byte{markerVersion}
	b = binary.BigEndian.AppendUint32(b, m.epoch)
	b = append(b, m.work[:]...)
	b = appendLong(b, m.r.Start)
	if m.r.End == nil {
		b = binary.BigEndian.AppendUint32(b, noEnd)
	} else {
		b = appendLong(b, m.r.End)
	}
	return appendLong(b, m.next)
}

func appendLong(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func decodeMarker(b []byte) (m marker, err error) {
	bad := fmt.Errorf("block: the marker of a rewriting operation is damaged: %w", ErrCorrupt)
	if len(b) > 0 && b[0] != markerVersion {
		return m, fmt.Errorf("block: the marker of a rewriting operation: %w", ErrVersion)
	}
	if len(b) < fixedMarker {
		return m, bad
	}
	m.epoch = binary.BigEndian.Uint32(b[1:])
	m.work = keyring.WorkID(b[5:fixedMarker])
	rest := b[fixedMarker:]
	for i, dst := range []*[]byte{&m.r.Start, &m.r.End, &m.next} {
		if len(rest) < 4 {
			return m, bad
		}
		n := binary.BigEndian.Uint32(rest)
		rest = rest[4:]
		if i == 1 && n == noEnd {
			continue
		}
		if uint64(n) > uint64(len(rest)) {
			return m, bad
		}
		if n > 0 || i == 1 {
			*dst = bytes.Clone(rest[:n:n])
			if *dst == nil {
				*dst = []byte{}
			}
		}
		rest = rest[n:]
	}
	if len(rest) != 0 {
		return m, bad
	}
	return m, nil
}

// readMarker returns the marker of an operation that was not finished. One that is
// authentic and cannot be read, because a later release wrote it, for one, counts as none:
// a marker saves work and nothing else, without it all of the work is done, and if it was
// an error nothing but taking it away by hand would ever let the operation begin again.
func (s *Store) readMarker(ctx context.Context, h *keyring.Hold, name string) (m marker, found bool, err error) {
	b, found, err := s.readTagged(ctx, h, name)
	if err != nil || !found {
		return marker{}, false, err
	}
	if m, err = decodeMarker(b); err != nil {
		return marker{}, false, nil
	}
	return m, true, nil
}

// writeMarker replaces an operation's marker, after everything it says is done.
func (s *Store) writeMarker(ctx context.Context, h *keyring.Hold, name string, m marker) error {
	return s.writeTagged(ctx, h, name, m.encode())
}

// removeMarker removes an operation's marker, after everything that it did.
func (s *Store) removeMarker(ctx context.Context, name string) error {
	return s.writeMeta(ctx, name, nil)
}

// hasMarker reports whether there is a marker, authentic or not: without a key nobody
// can tell.
func (s *Store) hasMarker(ctx context.Context, name string) (bool, error) {
	_, err := engine.ReadMeta(ctx, s.part, name)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil, s.damage(err)
}
