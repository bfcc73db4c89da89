// Package transfer moves a store from one engine to another, as it is: its rows stay sealed, and
// nothing is opened. It knows neither keys nor what the meta records mean.
package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
)

// Counts is what an export has.
type Counts struct {
	Rows  uint64
	Bytes uint64 // of their records and sealed blocks
}

// tries is how often an export looks for a moment at which the document and the rows go together.
const tries = 100

// Export writes a partition to w. document names the meta record that says which epochs the rows
// may name: its value is the same before and after the moment that the rows are of. What else is
// changed meanwhile is in the export or is not. When ctx ends it does not wait for w, in which a Write may
// be under way then.
func Export(ctx context.Context, w io.Writer, p engine.Partition, document string) (c Counts, err error) {
	meta, v, err := moment(ctx, p, document)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	out, err := newWriter(&writeWithin{ctx: ctx, w: w})
	if err != nil {
		return c, err
	}
	for _, m := range meta {
		if err := out.writeMeta(m.Name, m.Value); err != nil {
			return c, err
		}
	}
	if err := c.rows(ctx, out, v); err != nil {
		return c, err
	}
	return c, out.end()
}

// moment returns the meta records, and a view of the rows that go with them.
func moment(ctx context.Context, p engine.Partition, document string) ([]engine.Swap, engine.View, error) {
	for range tries {
		var meta []engine.Swap
		var before []byte
		if err := p.ListMeta(ctx, "", func(name string, value []byte) error {
			value = append([]byte{}, value...)
			meta = append(meta, engine.Swap{Name: name, Value: value})
			if name == document {
				before = value
			}
			return nil
		}); err != nil {
			return nil, nil, err
		}
		if before == nil {
			return nil, nil, fmt.Errorf("transfer: meta record %s: %w", document, engine.ErrNotFound)
		}
		v, err := p.View(ctx)
		if err != nil {
			return nil, nil, err
		}
		after, err := engine.ReadMeta(ctx, p, document)
		if err == nil && bytes.Equal(before, after) {
			return meta, v, nil
		}
		if err := errors.Join(err, v.Close()); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("transfer: meta record %s changes all the time; export again when it does not", document)
}

// rows writes the rows. One with a part missing is damage, which would be moved along unseen.
func (c *Counts) rows(ctx context.Context, out *writer, v engine.View) (err error) {
	records, err := v.Cursor(ctx, engine.Record, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	blocks, err := records.Clone(engine.Sealed, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blocks.Close()) }()
	some, more := records.First(), blocks.First()
	for ; some && more; some, more = records.Next(), blocks.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !bytes.Equal(records.ID(), blocks.ID()) {
			return halfRow(min(string(records.ID()), string(blocks.ID())))
		}
		record, err := records.Value()
		if err != nil {
			return err
		}
		sealed, err := blocks.Value()
		if err != nil {
			return err
		}
		if err := out.writeRow(records.ID(), record, sealed); err != nil {
			return err
		}
		c.Rows++
		c.Bytes += uint64(len(record) + len(sealed))
	}
	if err := errors.Join(records.Err(), blocks.Err()); err != nil {
		return err
	}
	switch {
	case some:
		return halfRow(string(records.ID()))
	case more:
		return halfRow(string(blocks.ID()))
	}
	return nil
}

func halfRow(id string) error {
	return fmt.Errorf("transfer: of block %q there is the DEK record or the sealed block, and not both: %w", id, engine.ErrCorrupt)
}

// batchBytes is how much an import applies at a time.
const batchBytes = 4 << 20

// Arrival is an export whose meta records were read, and whose rows are to come.
type Arrival struct {
	Meta  []engine.Swap // by ascending names, each of a record that there must not be
	Last  sync.Locker   // held while the meta records are written, with which the store is there
	in    *reader
	first frame // the first row, or the end
}

// Read reads an export up to its rows. ctx is for the rows, too: when it ends nobody waits for r, in
// which a Read may be under way then.
func Read(ctx context.Context, r io.Reader) (*Arrival, error) {
	in, err := newReader(&readWithin{ctx: ctx, r: r})
	if err != nil {
		return nil, err
	}
	a := &Arrival{in: in}
	for a.first, err = in.next(); err == nil && a.first.kind == kindMeta; a.first, err = in.next() {
		a.Meta = append(a.Meta, engine.Swap{Name: a.first.name, Value: append([]byte{}, a.first.value...)})
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Value returns the value of a meta record, or nil if there is none.
func (a *Arrival) Value(name string) []byte {
	for _, m := range a.Meta {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// Into fills a partition that holds nothing. The meta records are written last, when everything else
// is durable, so that of an import that was cut off there is none. What one leaves that fails is for
// the caller to clear.
func (a *Arrival) Into(ctx context.Context, p engine.Partition) (c Counts, err error) {
	if some, err := engine.HoldsAnything(ctx, p); err != nil {
		return c, err
	} else if some {
		return c, errors.New("transfer: the partition is not empty")
	}
	if err := c.fill(ctx, a.in, a.first, p); err != nil {
		return c, err
	}
	if err := p.Sync(ctx); err != nil {
		return c, err
	}
	if a.Last != nil {
		a.Last.Lock()
		defer a.Last.Unlock()
	}
	_, err = p.SwapMeta(ctx, a.Meta...)
	return c, err
}

// fill applies the rows, from f on, which was read.
func (c *Counts) fill(ctx context.Context, in *reader, f frame, p engine.Partition) (err error) {
	b := p.NewBatch()
	defer func() { err = errors.Join(err, b.Close()) }()
	apply := func() error {
		if err := p.Apply(ctx, b, engine.Guard{Floor: p.Floor().Revision, Below: true}, false); err != nil {
			return err
		}
		err := b.Close()
		b = p.NewBatch()
		return err
	}
	for ; f.kind == kindRow; f, err = in.next() {
		if err != nil {
			return err
		}
		room, err := b.Put(f.id, f.record, len(f.sealed))
		if err != nil {
			return err
		}
		copy(room, f.sealed)
		c.Rows++
		c.Bytes += uint64(len(f.record) + len(f.sealed))
		if b.Size() < batchBytes {
			continue
		}
		if err := apply(); err != nil {
			return err
		}
	}
	if err != nil || b.Empty() {
		return err
	}
	return apply()
}
