package engine

import (
	"context"
	"errors"
)

// HoldsAnything reports whether a partition has a meta record or a part of a row.
func HoldsAnything(ctx context.Context, p Partition) (some bool, err error) {
	found := errors.New("found")
	if err := p.ListMeta(ctx, "", func(string, []byte) error { return found }); errors.Is(err, found) {
		return true, nil
	} else if err != nil {
		return false, err
	}
	for _, part := range []Parts{Record, Sealed} {
		c, err := p.Cursor(ctx, part, nil, nil)
		if err != nil {
			return false, err
		}
		some = some || c.First()
		if err := errors.Join(c.Err(), c.Close()); err != nil {
			return false, err
		}
	}
	return some, nil
}
