package rewrite

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// Marker is what a long rewriting operation leaves while it is unfinished. That of
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
type Marker struct {
	Epoch uint32
	Work  inner.WorkID
	Start []byte
	End   []byte // nil: no end
	Next  []byte
}

const (
	markerVersion = 1
	fixedMarker   = 21
	noEnd         = 1<<32 - 1

	MarkerRotateEpoch = "rotate-epoch"
	MarkerRekey       = "rekey"
	MarkerRenew       = "renew"
)

// Markers returns the names of all markers.
func Markers() []string { return []string{MarkerRotateEpoch, MarkerRekey, MarkerRenew} }

// isOf reports whether the marker is of a range with these bounds.
func (m Marker) isOf(start, end []byte) bool {
	return bytes.Equal(m.Start, start) && bytes.Equal(m.End, end) && (m.End == nil) == (end == nil)
}

// Encode returns the marker as it is on disk.
func (m Marker) Encode() []byte {
	b := []byte{markerVersion}
	b = binary.BigEndian.AppendUint32(b, m.Epoch)
	b = append(b, m.Work[:]...)
	b = appendLong(b, m.Start)
	if m.End == nil {
		b = binary.BigEndian.AppendUint32(b, noEnd)
	} else {
		b = appendLong(b, m.End)
	}
	return appendLong(b, m.Next)
}

func appendLong(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// DecodeMarker reads a marker; its error matches keyring.ErrCorrupt or ErrVersion.
func DecodeMarker(b []byte) (m Marker, err error) {
	bad := fmt.Errorf("block: the marker of a rewriting operation is damaged: %w", keyring.ErrCorrupt)
	if len(b) > 0 && b[0] != markerVersion {
		return m, fmt.Errorf("block: the marker of a rewriting operation: %w", keyring.ErrVersion)
	}
	if len(b) < fixedMarker {
		return m, bad
	}
	m.Epoch = binary.BigEndian.Uint32(b[1:])
	m.Work = inner.WorkID(b[5:fixedMarker])
	rest := b[fixedMarker:]
	for i, dst := range []*[]byte{&m.Start, &m.End, &m.Next} {
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
func (w *Rewriter) readMarker(ctx context.Context, h *keyring.Hold, name string) (m Marker, found bool, err error) {
	b, found, err := w.readTagged(ctx, h, name)
	if err != nil || !found {
		return Marker{}, false, err
	}
	if m, err = DecodeMarker(b); err != nil {
		return Marker{}, false, nil
	}
	return m, true, nil
}

// writeMarker replaces an operation's marker, after everything it says is done.
func (w *Rewriter) writeMarker(ctx context.Context, h *keyring.Hold, name string, m Marker) error {
	return w.writeTagged(ctx, h, name, m.Encode())
}

// removeMarker removes an operation's marker, after everything that it did.
func (w *Rewriter) removeMarker(ctx context.Context, name string) error {
	return w.setMeta(ctx, name, nil)
}

// HasMarker reports whether there is a marker, authentic or not: without a key nobody
// can tell.
func HasMarker(ctx context.Context, p engine.Partition, name string) (bool, error) {
	_, err := engine.ReadMeta(ctx, p, name)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil, row.Damage(err)
}

func (w *Rewriter) readTagged(ctx context.Context, h *keyring.Hold, name string) (record []byte, found bool, err error) {
	record, found, err = tagged.Read(ctx, w.Table.Part, h, name)
	return record, found, row.Damage(err)
}

// writeTagged replaces a tagged record durably, and what was applied before it.
func (w *Rewriter) writeTagged(ctx context.Context, h *keyring.Hold, name string, record []byte) error {
	value, err := tagged.Record(h, name, record)
	if err != nil {
		return err
	}
	return w.setMeta(ctx, name, value)
}

// setMeta sets a meta record durably, or deletes it if value is nil.
func (w *Rewriter) setMeta(ctx context.Context, name string, value []byte) error {
	if err := engine.SetMeta(ctx, w.Table.Part, name, value); err != nil {
		return err
	}
	w.Changed()
	return nil
}
