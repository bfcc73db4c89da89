package row

import (
	"bytes"

	"github.com/blockseal/blockseal/internal/engine"
)

// way is a cursor with a direction: from the least id to the greatest, or back.
type way struct {
	engine.Cursor
	back bool
	key  []byte
}

func (w *way) First() bool {
	if w.back {
		return w.Cursor.Last()
	}
	return w.Cursor.First()
}

func (w *way) Next() bool {
	if w.back {
		return w.Cursor.Prev()
	}
	return w.Cursor.Next()
}

func (w *way) after(id []byte) bool {
	if w.back {
		return w.Cursor.SeekLT(id)
	}
	w.key = append(append(w.key[:0], id...), 0)
	return w.Cursor.SeekGE(w.key)
}

// compare is negative if a comes before b in this direction.
func (w *way) compare(a, b []byte) int {
	if w.back {
		a, b = b, a
	}
	return bytes.Compare(a, b)
}

func (w *way) clone(part engine.Parts, start, end []byte) (*way, error) {
	c, err := w.Cursor.Clone(part, start, end)
	if err != nil {
		return nil, Damage(err)
	}
	return &way{Cursor: c, back: w.back}, nil
}
