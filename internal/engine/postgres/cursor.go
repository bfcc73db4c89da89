package postgres

import (
	"bytes"
	"context"
	"slices"
	"sort"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// A cursor reads a chunk of rows at a time: a few after a seek, because mostly few are wanted
// then, and eight times as many with each that follows; and of few bytes, whatever is in them.
const (
	firstChunk   = 16
	largestChunk = 1024
	chunkBytes   = 4 << 20
)

// cursor walks the rows of a snapshot that have a part.
type cursor struct {
	p            *partition
	s            *snapshot
	part         engine.Parts
	lower, upper []byte // upper may be nil

	rows   []entry // some that follow each other, in the order of their ids
	at     int     // the row of rows that it is on, or -1, or len(rows)
	next   int     // how many rows the next chunk has at most
	whole  [2]bool // by direction: nothing is beyond rows
	err    error
	closed bool
}

type entry struct{ id, value []byte }

// Cursor implements [engine.Reader]. It waits while as many views and cursors are open as may be.
func (p *partition) Cursor(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	if err := p.e.ready(ctx); err != nil {
		return nil, err
	}
	s, err := p.e.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return newCursor(p, s, part, lower, upper), nil
}

// newCursor returns a cursor that is one of the users of s.
func newCursor(p *partition, s *snapshot, part engine.Parts, lower, upper []byte) *cursor {
	return &cursor{p: p, s: s, part: part, lower: notNil(bytes.Clone(lower)), upper: bytes.Clone(upper), next: firstChunk}
}

// Clone implements [engine.Cursor].
func (c *cursor) Clone(part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
	c.s.use()
	return newCursor(c.p, c.s, part, lower, upper), nil
}

// Close implements [io.Closer].
func (c *cursor) Close() error {
	if !c.closed {
		c.closed = true
		c.s.done()
	}
	return nil
}

// First implements [engine.Cursor], and so do the next ones.
func (c *cursor) First() bool { return c.seekGE(c.lower) }
func (c *cursor) Last() bool  { return c.seekLT(c.upper) }

func (c *cursor) SeekGE(id []byte) bool {
	if bytes.Compare(id, c.lower) < 0 {
		id = c.lower
	}
	return c.seekGE(id)
}

func (c *cursor) SeekLT(id []byte) bool {
	if id = notNil(id); c.upper != nil && bytes.Compare(id, c.upper) > 0 {
		id = c.upper
	}
	return c.seekLT(id)
}

func (c *cursor) Next() bool {
	switch {
	case len(c.rows) == 0:
		return c.at < 0 && c.First()
	case c.at < len(c.rows)-1:
		c.at++
		return true
	case c.at == len(c.rows) || c.whole[forward]:
		c.at = len(c.rows)
		return false
	}
	last := c.rows[c.at].id
	return c.fetch(forward, append(bytes.Clone(last), 0), c.upper) // what follows it directly
}

func (c *cursor) Prev() bool {
	switch {
	case len(c.rows) == 0:
		return c.at >= 0 && c.Last()
	case c.at > 0:
		c.at--
		return true
	case c.at < 0 || c.whole[backward]:
		c.at = -1
		return false
	}
	return c.fetch(backward, c.lower, c.rows[0].id)
}

// seekGE looks for a row in what was read, and else reads.
func (c *cursor) seekGE(id []byte) bool {
	if n := len(c.rows); n > 0 && bytes.Compare(c.rows[0].id, id) <= 0 && bytes.Compare(id, c.rows[n-1].id) <= 0 {
		c.at = sort.Search(n, func(i int) bool { return bytes.Compare(c.rows[i].id, id) >= 0 })
		return true
	}
	c.forget()
	return c.fetch(forward, id, c.upper)
}

// seekLT is seekGE for the row before id, or the last one if id is nil.
func (c *cursor) seekLT(id []byte) bool {
	if n := len(c.rows); n > 0 && id != nil && bytes.Compare(c.rows[0].id, id) < 0 && bytes.Compare(id, c.rows[n-1].id) <= 0 {
		c.at = sort.Search(n, func(i int) bool { return bytes.Compare(c.rows[i].id, id) >= 0 }) - 1
		return true
	}
	c.forget()
	return c.fetch(backward, c.lower, id)
}

func (c *cursor) forget() { c.rows, c.next, c.whole = nil, firstChunk, [2]bool{} }

// fetch reads the first rows of [from, to), or the last ones, and goes to the first or the last of
// them. Where there is none it is beyond those that it has.
func (c *cursor) fetch(direction int, from, to []byte) bool {
	c.err = nil
	var rows []entry
	whole := true
	if to == nil || bytes.Compare(from, to) < 0 {
		if rows, whole, c.err = c.chunk(direction, from, to); c.err != nil {
			c.forget()
			c.at = 0
			return false
		}
	}
	if direction == backward {
		slices.Reverse(rows)
	}
	if len(rows) > 0 {
		c.rows, c.at, c.whole = rows, 0, [2]bool{}
		c.whole[direction] = whole
		if direction == backward {
			c.at = len(rows) - 1
		}
		c.next = min(c.next*8, largestChunk)
		return true
	}
	if c.at = len(c.rows); direction == backward {
		c.at = -1
	}
	return false
}

// chunk asks for the next rows. whole says that there are no more in [from, to): neither of the bounds of a
// chunk has cut it off.
func (c *cursor) chunk(direction int, from, to []byte) (out []entry, whole bool, err error) {
	part := 0
	if c.part == engine.Sealed {
		part = 1
	}
	lower := split(from)
	sql, args := c.p.e.sql.chunks[part][direction][unbounded], []any{c.p.number, lower.head, lower.rest, c.next, chunkBytes}
	if to != nil {
		upper := split(to)
		sql, args = c.p.e.sql.chunks[part][direction][below], append(args, upper.head, upper.rest)
	}
	size := 0
	// For as long as the snapshot is there: a move has no context of its own.
	err = c.s.do(context.Background(), func(ctx context.Context, conn *pgxpool.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		out, size = nil, 0 // it may be asked for again
		var id, rest []byte
		var tail pgtype.DriverBytes
		for rows.Next() {
			var value []byte
			if err := rows.Scan(&id, &rest, &tail, &behind{to: &value, tail: &tail}); err != nil {
				return err
			}
			if len(rest) > 0 {
				id = join(make([]byte, 0, len(id)+len(rest)), id, rest)
			}
			out = append(out, entry{id, value})
			size += len(value)
		}
		return rows.Err()
	})
	return out, len(out) < c.next && size < chunkBytes, err
}

// behind has what is scanned put into new memory, and behind it a tail that was scanned before.
type behind struct {
	to   *[]byte
	tail *pgtype.DriverBytes
}

// ScanBytes implements [pgtype.BytesScanner].
func (b *behind) ScanBytes(data []byte) error {
	*b.to = append(append(make([]byte, 0, len(data)+len(*b.tail)), data...), *b.tail...)
	return nil
}

func (c *cursor) Valid() bool { return c.at >= 0 && c.at < len(c.rows) }
func (c *cursor) ID() []byte  { return c.rows[c.at].id }
func (c *cursor) Size() int   { return len(c.rows[c.at].value) }
func (c *cursor) Err() error  { return c.err }

// Value implements [engine.Cursor]. It was read with the row.
func (c *cursor) Value() ([]byte, error) { return c.rows[c.at].value, nil }
