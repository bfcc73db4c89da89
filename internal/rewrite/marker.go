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

// Marker says that a long rewriting operation is unfinished. That of Rekey also says how far it has
// come, so that it goes on there after a restart; those of the others only serve Inspect, and no
// operation reads them. It is a tagged record under the operation's name. On disk, and must not
// change:
//
//	offset  size  field
//	     0     1  version, 1
//	     1     4  epoch: that RotateEpoch rewraps to; that was the current one when
//	              Rekey began; before which a renewal replaces DEKs
//	     5    16  id of the work, as in the keyring document; zeros but in "rekey"
//	    21     4  length of start | start
//	     .     4  length of end | end; the length 2^32-1 is no end
//	     .     4  length of next | next: the block id to go on with
//
// What a marker says is done was in the engine before the marker. The tag refuses a marker that
// somebody else made. The id of the work refuses one that the store made for an earlier operation:
// the document has no id but that of the present one.
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

// DecodeMarker reads a marker. Errors: keyring.ErrCorrupt, keyring.ErrVersion.
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

// readMarker returns the marker of an unfinished operation. An authentic one that cannot be read,
// such as a later release's, counts as none: a marker only saves work, and as an error it would
// block the operation until somebody removed it by hand.
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

// writeMarker replaces an operation's marker, after all that it says is done.
func (w *Rewriter) writeMarker(ctx context.Context, h *keyring.Hold, name string, m Marker) error {
	return w.writeTagged(ctx, h, name, m.Encode())
}

// removeMarker removes an operation's marker, after all that the operation did.
func (w *Rewriter) removeMarker(ctx context.Context, name string) error {
	return w.setMeta(ctx, name, nil)
}

// HasMarker reports whether there is a marker. It needs no key, and so cannot tell whether the
// marker is authentic.
func HasMarker(ctx context.Context, p engine.Partition, name string) (bool, error) {
	_, err := engine.ReadMeta(ctx, p, name)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil, row.Damage(err)
}

func (w *Rewriter) readTagged(ctx context.Context, h *keyring.Hold, name string) (content []byte, found bool, err error) {
	content, found, err = tagged.Read(ctx, w.Table.Part, h, name)
	return content, found, row.Damage(err)
}

// writeTagged replaces a tagged record. It is durable then, as is all that was applied before.
func (w *Rewriter) writeTagged(ctx context.Context, h *keyring.Hold, name string, content []byte) error {
	value, err := tagged.Record(h, name, content)
	if err != nil {
		return err
	}
	return w.setMeta(ctx, name, value)
}

func (w *Rewriter) setMeta(ctx context.Context, name string, value []byte) error {
	if err := engine.SetMeta(ctx, w.Table.Part, name, value); err != nil {
		return err
	}
	w.Wrote()
	return nil
}
