package transfer

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/blockseal/blockseal/internal/engine"
)

// An export is a head, frames, and an end. It is a format that others keep and must not change.
//
//	offset  size  field
//	     0    16  "blockseal export"
//	    16     1  version, 1
//	    17     .  frames
//
// A frame:
//
//	offset  size  field
//	     0     1  kind: 'M' meta record, 'R' row, 'E' end
//	     1     4  size of what follows, big-endian
//	     5     .  content
//
//	M   1  size of the name (1 to 255)          R   2  size of the id, big-endian (1 to 4,096)
//	    .  name                                     2  size of the DEK record, big-endian
//	    .  value                                    .  id
//	                                                .  DEK record
//	                                                .  sealed block
//
//	E   8  number of meta records, big-endian
//	    8  number of rows, big-endian
//	   32  SHA-256 of everything before this frame
//
// First come the meta records, by ascending names, then the rows, by ascending ids, then the end,
// after which nothing comes. The sum finds what was damaged or cut off; it keeps nobody from
// making another export.
const (
	head        = "blockseal export"
	headVersion = 1

	kindMeta = 'M'
	kindRow  = 'R'
	kindEnd  = 'E'

	frameHead = 1 + 4
	endSize   = 8 + 8 + sha256.Size

	// maxFrame bounds what a reader takes into memory: the largest block, sealed, with its id and
	// record, is less.
	maxFrame = 80 << 20
	// maxMeta bounds the meta records of an export together, their names and values: a reader has all
	// of them in memory. The largest that a store has are its document, 2 MiB, and its register.
	maxMeta = 64 << 20
)

// writer writes frames, and their sum.
type writer struct {
	w          *bufio.Writer
	sum        hash.Hash
	meta, rows uint64
	metaSize   int
}

func newWriter(w io.Writer) (*writer, error) {
	out := &writer{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	return out, out.write([]byte(head), []byte{headVersion})
}

func (w *writer) write(parts ...[]byte) error {
	for _, p := range parts {
		w.sum.Write(p)
		if _, err := w.w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) frame(kind byte, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size > maxFrame {
		return fmt.Errorf("transfer: a frame would have %d bytes, the most is %d", size, maxFrame)
	}
	return w.write(append([][]byte{binary.BigEndian.AppendUint32([]byte{kind}, uint32(size))}, parts...)...)
}

func (w *writer) writeMeta(name string, value []byte) error {
	w.meta++
	if w.metaSize += len(name) + len(value); w.metaSize > maxMeta {
		return fmt.Errorf("transfer: the meta records have more than %d bytes", maxMeta)
	}
	return w.frame(kindMeta, []byte{byte(len(name))}, []byte(name), value)
}

func (w *writer) writeRow(id, record, sealed []byte) error {
	if len(id) == 0 {
		return fmt.Errorf("transfer: a row without an id: %w", engine.ErrCorrupt)
	}
	w.rows++
	var sizes [4]byte
	binary.BigEndian.PutUint16(sizes[:], uint16(len(id)))
	binary.BigEndian.PutUint16(sizes[2:], uint16(len(record)))
	return w.frame(kindRow, sizes[:], id, record, sealed)
}

func (w *writer) end() error {
	b := binary.BigEndian.AppendUint64(nil, w.meta)
	b = binary.BigEndian.AppendUint64(b, w.rows)
	b = w.sum.Sum(b)
	return errors.Join(w.frame(kindEnd, b), w.w.Flush())
}

// reader reads frames. The memory of a frame is the next one's.
type reader struct {
	r          *bufio.Reader
	sum        hash.Hash
	buf        []byte
	meta, rows uint64
	metaSize   int
	last       []byte // name or id of the frame before; nil: none
	inRows     bool
}

func bad(format string, args ...any) error {
	return fmt.Errorf("transfer: the export %s: %w", fmt.Sprintf(format, args...), engine.ErrCorrupt)
}

// cut says of an error of reading what it means for the export.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return bad("is cut off")
	}
	return fmt.Errorf("transfer: read the export: %w", err)
}

func newReader(r io.Reader) (*reader, error) {
	in := &reader{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	b, err := in.read(len(head) + 1)
	if err != nil {
		return nil, err
	}
	if string(b[:len(head)]) != head {
		return nil, bad("does not begin with %q", head)
	}
	if v := b[len(head)]; v != headVersion {
		return nil, fmt.Errorf("transfer: the export has version %d, this release reads %d: %w", v, headVersion, engine.ErrVersion)
	}
	in.sum.Write(b)
	return in, nil
}

// read reads n bytes. What is there decides how much memory is taken, and not what was claimed.
func (r *reader) read(n int) ([]byte, error) {
	const step = 1 << 20
	b := r.buf[:0]
	for len(b) < n {
		some := min(n-len(b), max(step, len(b)))
		b = append(b, make([]byte, some)...)
		if _, err := io.ReadFull(r.r, b[len(b)-some:]); err != nil {
			return nil, cut(err)
		}
	}
	r.buf = b
	return b, nil
}

// frame is what next returns: a meta record, a row, or neither at the end.
type frame struct {
	kind       byte
	name       string
	value      []byte // of a meta record
	id, record []byte
	sealed     []byte
}

// next reads a frame; the end is checked here.
func (r *reader) next() (f frame, err error) {
	b, err := r.read(frameHead)
	if err != nil {
		return f, err
	}
	first := [frameHead]byte(b)
	f.kind = first[0]
	size := binary.BigEndian.Uint32(first[1:])
	if size > maxFrame {
		return f, bad("has a frame of %d bytes, the most is %d", size, maxFrame)
	}
	if b, err = r.read(int(size)); err != nil {
		return f, err
	}
	if f.kind == kindEnd {
		return f, r.checkEnd(b)
	}
	r.sum.Write(first[:])
	r.sum.Write(b)
	switch f.kind {
	case kindMeta:
		return f, r.parseMeta(&f, b)
	case kindRow:
		return f, r.parseRow(&f, b)
	}
	return f, bad("has a frame of kind %q", f.kind)
}

func (r *reader) parseMeta(f *frame, b []byte) error {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return bad("has a meta record that is cut off")
	}
	end := 1 + int(b[0]) // as a byte it would begin anew at 256
	f.name, f.value = string(b[1:end]), b[end:]
	if err := engine.CheckName(f.name); err != nil {
		return bad("has a meta record with a wrong name")
	}
	if r.inRows {
		return bad("has a meta record after its first row")
	}
	r.meta++
	if r.metaSize += len(b) - 1; r.metaSize > maxMeta {
		return bad("has more than %d bytes of meta records", maxMeta)
	}
	return r.follows([]byte(f.name))
}

func (r *reader) parseRow(f *frame, b []byte) error {
	if len(b) < 4 {
		return bad("has a row that is cut off")
	}
	id, record := int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	b = b[4:]
	if id == 0 || id > engine.MaxID || len(b) < id+record {
		return bad("has a row of wrong sizes")
	}
	f.id, f.record, f.sealed = b[:id:id], b[id:id+record:id+record], b[id+record:]
	if !r.inRows {
		r.inRows, r.last = true, nil
	}
	r.rows++
	return r.follows(f.id)
}

// follows checks that a name or an id comes after the one before.
func (r *reader) follows(what []byte) error {
	if r.last != nil && string(what) <= string(r.last) {
		return bad("is not in order at %q", what)
	}
	r.last = append(append(r.last[:0], what...), 0)[:len(what)] // never nil
	return nil
}

func (r *reader) checkEnd(b []byte) error {
	if len(b) != endSize {
		return bad("has an end of %d bytes, want %d", len(b), endSize)
	}
	meta, rows := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if meta != r.meta || rows != r.rows {
		return bad("has %d meta records and %d rows, and says that it has %d and %d", r.meta, r.rows, meta, rows)
	}
	if string(r.sum.Sum(nil)) != string(b[16:]) {
		return bad("is damaged: its sum is another")
	}
	if _, err := r.r.ReadByte(); err == nil {
		return bad("goes on after its end")
	} else if !errors.Is(err, io.EOF) {
		return cut(err)
	}
	return nil
}
