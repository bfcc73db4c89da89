package pebble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine"
)

// manifest is what Pebble's MANIFEST needs. It must be known before the engine is opened, which
// deletes all that the MANIFEST does not name, and Pebble exports no other way. A MANIFEST is a log
// of edits of the list of files. An edit has fields, each a tag and integers as varints
// (pebble/internal/manifest/version_edit.go). An unknown tag is an error: the format version that
// Open sets has no others.
type manifest struct {
	tables map[uint64]table
	blobs  map[uint64]uint64 // number to size in bytes
	log    uint64            // logs from this number on may hold what is in no table; 0: all
}

type table struct {
	size uint64 // of its file, in bytes
	ends ends   // none: not known, because more than one table is in the file, or only range keys are
}

const (
	tagComparer       = 1
	tagLog            = 2
	tagNextFile       = 3
	tagLastSequence   = 4
	tagCompactPointer = 5
	tagDeletedTable   = 6
	tagPrevLog        = 9
	tagNewPlainTable  = 100 // without further fields
	tagNewTable       = 103
	tagNewRangeTable  = 104 // with range keys
	tagNewBacking     = 105
	tagRemovedBacking = 106
	tagNewBlob        = 107
	tagDeletedBlob    = 108

	tableEnd      = 1
	tableVirtual  = 66
	tableBlobs    = 69
	tableMustKnow = 1 << 6 // a tag with this bit must be known
)

// readManifest reads a MANIFEST as Pebble does: up to its end, or to an edit that was not written
// whole.
func readManifest(fs vfs.FS, path string) (m *manifest, err error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m = &manifest{tables: map[uint64]table{}, blobs: map[uint64]uint64{}}
	live := liveTables{level: map[[2]uint64]uint64{}, uses: map[uint64]int{}}
	for rr := record.NewReader(f, 0); ; {
		r, err := rr.Next()
		if errors.Is(err, io.EOF) || record.IsInvalidRecord(err) {
			break
		}
		if err != nil {
			return nil, err
		}
		whole, err := io.ReadAll(r) // an edit counts as a whole or not at all
		if errors.Is(err, io.ErrUnexpectedEOF) || record.IsInvalidRecord(err) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := m.edit(newEdit(whole), &live); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", engine.ErrCorrupt, fs.PathBase(path), err)
		}
	}
	for n := range m.tables {
		if live.uses[n] == 0 {
			delete(m.tables, n)
		}
	}
	return m, nil
}

// liveTables are the tables of each level. One edit may delete a table from one level and add it to
// another.
type liveTables struct {
	level map[[2]uint64]uint64 // level and table number to the number of the table's file
	uses  map[uint64]int       // number of tables in a file
}

func (m *manifest) edit(e *edit, live *liveTables) error {
	var added, deleted [][2]uint64
	files := map[[2]uint64]uint64{}
	for {
		tag, err := binary.ReadUvarint(e.r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch tag {
		case tagComparer:
			e.bytes()
		case tagLog:
			m.log = e.number()
		case tagNextFile, tagLastSequence, tagPrevLog, tagRemovedBacking:
			e.number()
		case tagCompactPointer:
			e.number()
			e.bytes()
		case tagDeletedTable:
			deleted = append(deleted, [2]uint64{e.number(), e.number()})
		case tagNewPlainTable, tagNewTable, tagNewRangeTable:
			at, size := [2]uint64{e.number(), e.number()}, e.number()
			files[at] = at[1]
			if ends, file, virtual := e.table(tag); virtual {
				files[at] = file // the file's size is in a field of its own
			} else {
				m.tables[at[1]] = table{size, ends}
			}
			added = append(added, at)
		case tagNewBacking:
			n := e.number()
			m.tables[n] = table{size: e.number()}
		case tagNewBlob:
			_, n, size := e.number(), e.number(), e.number()
			e.number()
			e.number()
			m.blobs[n] = size
		case tagDeletedBlob:
			e.number()
			delete(m.blobs, e.number())
		default:
			return fmt.Errorf("a field has tag %d, which is not known", tag)
		}
		if e.err != nil {
			return e.err
		}
	}
	for _, at := range deleted {
		if file, ok := live.level[at]; ok {
			live.uses[file]--
			delete(live.level, at)
		}
	}
	for _, at := range added {
		live.level[at] = files[at]
		live.uses[files[at]]++
	}
	return nil
}

// edit reads the fields of an edit. It keeps the first error; what is read after that is zero.
type edit struct {
	r   *bytes.Reader
	err error
}

func newEdit(b []byte) *edit { return &edit{r: bytes.NewReader(b)} }

func (e *edit) number() uint64 {
	if e.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(e.r)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if e.err = err; err != nil {
		return 0
	}
	return n
}

// bytes reads a field that begins with its length.
func (e *edit) bytes() []byte {
	n := e.number()
	if e.err == nil && n > uint64(e.r.Len()) {
		e.err = fmt.Errorf("a field has %d bytes, which is more than there are", n)
	}
	if e.err != nil {
		return nil
	}
	b := make([]byte, n)
	_, e.err = io.ReadFull(e.r, b)
	return b
}

// table reads what follows a table's level, number and size. If the table is virtual, it returns
// the file that the table is a part of. A table with range keys has ends of its own for them, and
// Pebble's other tables have none.
func (e *edit) table(tag uint64) (ends ends, file uint64, virtual bool) {
	points := true
	if tag == tagNewRangeTable {
		bounds, err := e.r.ReadByte()
		if e.err == nil {
			e.err = err
		}
		points = bounds&1 != 0
	}
	if points {
		ends.first, ends.last = e.bytes(), e.bytes()
	}
	if tag == tagNewRangeTable {
		e.bytes()
		e.bytes()
	}
	e.number() // two sequence numbers of Pebble's
	e.number()
	for tag != tagNewPlainTable && e.err == nil {
		switch custom := e.number(); {
		case custom == tableEnd:
			return ends, file, virtual
		case custom == tableVirtual:
			file, virtual = e.number(), true
		case custom == tableBlobs:
			e.number()
			for n := e.number(); n > 0 && e.err == nil; n-- {
				e.number()
				e.number()
			}
		case custom&tableMustKnow != 0 && custom != tableVirtual+1 && custom != tableVirtual+2:
			// 67 and 68 are a table's synthetic prefix and suffix.
			e.err = fmt.Errorf("a table has a field with tag %d, which is not known", custom)
		default:
			e.bytes()
		}
	}
	return ends, file, virtual
}
