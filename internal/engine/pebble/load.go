package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine"
)

// load writes rows into tables of its own, DEK records apart from sealed blocks, which Pebble then
// links under names of its own and takes up in one change of its MANIFEST: all or none. Blocks lie in
// the tables and not in blob files.
//
// The tables are in the engine's directory under names that Pebble does not know. What a process that
// ended left of them, Open removes: they are in no MANIFEST.
type load struct {
	p        *partition
	number   uint64
	next     int         // of the next table
	records  tableWriter // DEK records
	blocks   tableWriter
	key      []byte
	ingested bool
	closed   bool
}

// The most bytes of a table. A purge rewrites tables of DEK records, so that those are small.
const (
	loadRecords = 16 << 20
	loadBlocks  = 64 << 20
)

// NewLoad implements [engine.Loader].
func (p *partition) NewLoad(ctx context.Context) (engine.Load, error) {
	if err := p.db.ready(ctx); err != nil {
		return nil, err
	}
	l := &load{p: p, number: p.db.loads.Add(1)}
	l.records, l.blocks = tableWriter{l: l, most: loadRecords}, tableWriter{l: l, most: loadBlocks}
	return l, nil
}

// Put implements [engine.Load].
func (l *load) Put(id, record, sealed []byte) error {
	l.key = appendKey(l.key[:0], spaceDEK, l.p.number, id)
	if err := l.records.set(l.key, record); err != nil {
		return err
	}
	l.key[0] = spaceData
	return l.blocks.set(l.key, sealed)
}

// Rewrite implements [engine.Load].
func (l *load) Rewrite(ctx context.Context, f func(id, record []byte) ([]byte, error)) error {
	if err := l.records.finish(); err != nil {
		return err
	}
	former := l.records.names
	l.records = tableWriter{l: l, most: loadRecords}
	for i, name := range former {
		err := l.p.db.eachOfTable(ctx, name, func(key, record []byte) error {
			again, err := f(key[prefixSize:], record)
			if err != nil {
				return err
			}
			return l.records.set(key, again)
		})
		if err == nil {
			err = l.p.db.files.Remove(name)
		}
		if err != nil {
			l.records.names = append(l.records.names, former[i:]...) // for Close
			return err
		}
	}
	return nil
}

// Prepare implements [engine.Load]. Where the tables overlap a memtable, Pebble takes them up once that
// is written out. That wait nothing ends but room on the disk, and all writes of the engine wait with
// it. So the memtables are written out before, where the wait holds up nobody, and what has come since
// is little. The log has an entry first: one that was never written to is missing to Survey.
func (l *load) Prepare(ctx context.Context) error {
	if err := errors.Join(l.records.finish(), l.blocks.finish()); err != nil {
		return err
	}
	if err := l.p.Sync(ctx); err != nil {
		return err
	}
	return l.p.db.Flush(ctx)
}

// Apply implements [engine.Load].
func (l *load) Apply(ctx context.Context, g engine.Guard) error {
	if err := l.p.db.ready(ctx); err != nil {
		return err
	}
	if err := errors.Join(l.records.finish(), l.blocks.finish()); err != nil {
		return err
	}
	names := slices.Concat(l.records.names, l.blocks.names)
	if len(names) == 0 {
		return nil
	}
	// What was applied before is durable when this is: the MANIFEST does not go by the log.
	if err := l.p.Sync(ctx); err != nil {
		return err
	}
	l.p.gate.RLock()
	defer l.p.gate.RUnlock()
	if floor := l.p.floor.Load(); !floor.Admits(g) {
		return fmt.Errorf("%w: it is epoch %d, revision %d; the load names epoch %d and went by revision %d",
			engine.ErrFloor, floor.Epoch, floor.Revision, g.Epoch, g.Floor)
	}
	if err := l.p.db.ingest(ctx, names); err != nil {
		return err
	}
	l.ingested = true
	return nil
}

// ingest has Pebble take up tables. Pebble gives a sequence number to each of them, which its log does
// not have. Survey takes a number that is missing in the log for a change that is. So the next entry of
// the log says how many were given: nobody else writes to it until then.
func (d *DB) ingest(ctx context.Context, names []string) error {
	admitted, err := d.admit()
	if err != nil {
		return err
	}
	defer admitted()
	d.quiet.Lock()
	defer d.quiet.Unlock()
	d.lookups.begin()
	defer d.lookups.end()
	defer d.log.ended()
	err = d.p.Ingest(context.WithoutCancel(ctx), names)
	b := d.p.NewBatch() // also after an error: the numbers may be gone
	defer b.Close()
	// Pebble's reader of logs passes over entries that change nothing. No meta record has this name.
	if logErr := errors.Join(b.LogData(ingested(len(names)), nil), b.Delete(appendKey(nil, spaceMeta, 0, "\x00"), nil)); logErr != nil {
		return errors.Join(err, logErr)
	}
	return d.room.because(translate(errors.Join(err, d.p.Apply(b, pebble.NoSync))))
}

// ingestedPrefix begins the entry in Pebble's log that says how many sequence numbers were given to
// tables before it, in decimal. On disk, and must not change; see docs/format.md, section 4.
const ingestedPrefix = "blockseal ingested "

func ingested(tables int) []byte { return strconv.AppendInt([]byte(ingestedPrefix), int64(tables), 10) }

// ingestedBefore returns how many numbers were given to tables before an entry of the log: 0 if the
// entry, a batch of Pebble's, does not begin by saying so. Pebble's own reader of batches does not look
// for the end of what it is given.
func ingestedBefore(entry []byte) uint64 {
	const kind, size = batchrepr.HeaderLen, batchrepr.HeaderLen + 1 // a varint, of one byte here
	if len(entry) <= size || entry[kind] != byte(pebble.InternalKeyKindLogData) {
		return 0
	}
	data := entry[size+1:]
	n := int(entry[size])
	if n > 127 || n > len(data) {
		return 0
	}
	digits, ok := bytes.CutPrefix(data[:n], []byte(ingestedPrefix))
	tables, err := strconv.ParseUint(string(digits), 10, 32)
	if !ok || err != nil {
		return 0
	}
	return tables
}

// Close implements [engine.Load].
func (l *load) Close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	l.records.abandon()
	l.blocks.abandon()
	var errs []error
	if !l.ingested { // else Pebble has removed these names
		for _, name := range slices.Concat(l.records.names, l.blocks.names) {
			errs = append(errs, l.p.db.files.Remove(name))
		}
	}
	return errors.Join(errs...)
}

// tableWriter writes keys, in order, into tables of a load.
type tableWriter struct {
	l     *load
	most  uint64
	w     *sstable.Writer // nil: the next key begins a table
	file  *buffered       // of w
	names []string
}

func (t *tableWriter) set(key, value []byte) error {
	if t.w == nil {
		if err := t.begin(); err != nil {
			return err
		}
	}
	if err := t.w.Set(key, value); err != nil {
		return translate(err)
	}
	if t.w.Raw().EstimatedSize() >= t.most {
		return t.finish()
	}
	return nil
}

func (t *tableWriter) begin() error {
	d := t.l.p.db
	name := d.files.PathJoin(d.dir, loadName(t.l.number, t.l.next))
	t.l.next++
	f, err := d.files.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	t.names = append(t.names, name)
	// Pebble's writable writes what it is given at once, in pieces of a block of 4 KiB.
	t.file = &buffered{File: f, buf: make([]byte, 0, 256<<10)}
	// Where the table is put is for Pebble to say; those of level 0 may be put anywhere.
	t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(t.file), d.options().MakeWriterOptions(0, d.p.TableFormat()))
	return nil
}

// finish makes the table durable that is being written; its name becomes so when Pebble links it.
func (t *tableWriter) finish() error {
	if t.w == nil {
		return nil
	}
	w := t.w
	t.w = nil
	return translate(w.Close())
}

// abandon closes the table that is being written, of which nothing more is written.
func (t *tableWriter) abandon() {
	if t.w != nil {
		t.file.dropped.Store(true)
		_ = t.finish() // it ends the goroutine that writes
	}
}

// buffered gathers what is written into larger writes.
type buffered struct {
	vfs.File
	buf     []byte
	dropped atomic.Bool
}

func (b *buffered) Write(p []byte) (int, error) {
	if b.dropped.Load() {
		return len(p), nil
	}
	if len(b.buf)+len(p) > cap(b.buf) {
		if err := b.flush(); err != nil {
			return 0, err
		}
		if len(p) >= cap(b.buf) {
			return b.File.Write(p)
		}
	}
	b.buf = append(b.buf, p...)
	return len(p), nil
}

func (b *buffered) flush() error {
	if len(b.buf) == 0 || b.dropped.Load() {
		return nil
	}
	_, err := b.File.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}

func (b *buffered) Sync() error {
	if err := b.flush(); err != nil {
		return err
	}
	if b.dropped.Load() {
		return nil
	}
	return b.File.Sync()
}

func (b *buffered) Close() error { return errors.Join(b.flush(), b.File.Close()) }

// eachOfTable calls f for the keys and values of a table of a load.
func (d *DB) eachOfTable(ctx context.Context, name string, f func(key, value []byte) error) (err error) {
	file, err := d.files.Open(name)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r, err := sstable.NewReader(ctx, readable, d.options().MakeReaderOptions())
	if err != nil {
		return errors.Join(translate(err), readable.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return translate(err)
	}
	defer func() { err = errors.Join(err, translate(it.Close())) }()
	for kv := it.First(); kv != nil; kv = it.Next() {
		value, _, err := kv.Value(nil)
		if err != nil {
			return translate(err)
		}
		if err := f(kv.K.UserKey, value); err != nil {
			return err
		}
	}
	return translate(it.Error())
}

const loadPrefix, loadSuffix = "blockseal-load-", ".sst"

func loadName(number uint64, table int) string {
	return fmt.Sprintf("%s%d-%d%s", loadPrefix, number, table, loadSuffix)
}

// removeLoads removes what is left of loads that were not applied. The caller has the directory's lock.
func removeLoads(dir string, fs vfs.FS) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if of, ok := strings.CutPrefix(name, loadPrefix); ok {
			if of, ok = strings.CutSuffix(of, loadSuffix); ok {
				if a, b, ok := strings.Cut(of, "-"); ok && number(a) && number(b) {
					errs = append(errs, fs.Remove(fs.PathJoin(dir, name)))
				}
			}
		}
	}
	return errors.Join(errs...)
}
