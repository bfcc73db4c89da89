// Package catalogue is the list of the stores of an engine: their names, and the partition that
// each has. It is kept in meta records of a partition of its own and has no secrets. It is
// not authenticated either: a store knows its own name by a tag that its keys have made, so that
// whoever rewrites the list can hide a store, and cannot pass one off as another.
package catalogue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/blockseal/blockseal/internal/engine"
)

// Partition is the number of the catalogue's own partition. No store is given it.
const Partition = math.MaxUint32

// MaxName is the size of the longest name of a store in bytes.
const MaxName = 255

var (
	// ErrNone says that there is no store of that name.
	ErrNone = errors.New("no such store")
	// ErrExists says that there is one.
	ErrExists = errors.New("the store exists")
	// ErrName refuses what is no name of a store.
	ErrName = errors.New("invalid name of a store")
	// ErrFull says that every number has been given.
	ErrFull = errors.New("no partition is left")
	// ErrMoved says that an entry is not the one any more that was read.
	ErrMoved = errors.New("the store's entry was changed by somebody else")
)

// State is how far a store is. The way is one: an entry goes from one to the next, and then
// it is gone.
type State uint8

const (
	// Creating: the store's keyring document may not be there yet. If it is, the store is.
	Creating State = iota + 1
	// Present: the document was there. If it is not any more, it was lost.
	Present
	// Dropping: nobody opens the store any more, and what is left of it is to be removed.
	Dropping
)

// Entry is a store's.
type Entry struct {
	Name   string
	Number uint32 // of its partition
	State  State

	revision uint64 // of the record that it was read from
}

// Catalogue is safe for concurrent use, also by several processes where the engine is.
type Catalogue struct{ meta engine.Partition }

// Of returns the catalogue of an engine.
func Of(e engine.Engine) *Catalogue { return &Catalogue{e.Partition(Partition)} }

// Meta returns the meta records of the catalogue's partition: others than the catalogue's own may be
// kept there, whose names begin with another word.
func (c *Catalogue) Meta() engine.Meta { return c.meta }

// CheckName refuses what is no name: it has 1 to 255 bytes of valid UTF-8. Names are compared
// byte by byte, and never made alike: what looks alike (another normal form, another alphabet)
// is another name.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > MaxName || !utf8.ValidString(name) {
		return fmt.Errorf("%w: %q has %d bytes; it takes 1 to %d bytes of valid UTF-8", ErrName, short(name), len(name), MaxName)
	}
	return nil
}

// short is enough of a name to find it by.
func short(name string) string {
	const most = 64
	if len(name) > most {
		return name[:most] + "..."
	}
	return name
}

// Find returns the entry of a store, or [ErrNone].
func (c *Catalogue) Find(ctx context.Context, name string) (Entry, error) {
	if err := CheckName(name); err != nil {
		return Entry{}, err
	}
	value, revision, err := c.meta.LoadMeta(ctx, key(name))
	if errors.Is(err, engine.ErrNotFound) {
		return Entry{}, fmt.Errorf("%w: %q", ErrNone, name)
	}
	if err != nil {
		return Entry{}, err
	}
	e, err := Decode(value)
	if err == nil && e.Name != name {
		err = fmt.Errorf("catalogue: the entry of store %q names %q: %w", name, e.Name, engine.ErrCorrupt)
	}
	e.revision = revision
	return e, err
}

// Add gives a store a number that no store has had, and makes its entry, in state Creating. One
// that was left in that state is replaced if again permits it: whoever makes the store knows
// whether its document is there. The entry is durable when that is (engine.Deferrer): a number is
// given again only if a crash has left nothing of what it was given to. Errors: [ErrExists],
// [ErrFull], [ErrName].
func (c *Catalogue) Add(ctx context.Context, name string, again func(Entry) (bool, error)) (Entry, error) {
	for {
		e, err := c.Find(ctx, name)
		switch {
		case errors.Is(err, ErrNone):
			e = Entry{Name: name}
		case err != nil:
			return Entry{}, err
		default:
			if err := c.Free(e, again); errors.Is(err, ErrMoved) {
				continue
			} else if err != nil {
				return Entry{}, err
			}
		}
		next, revision, err := c.next(ctx)
		if err != nil {
			return Entry{}, err
		}
		if next == Partition {
			return Entry{}, fmt.Errorf("%w: %d were given", ErrFull, uint32(Partition))
		}
		e.Number, e.State = next, Creating
		given, err := engine.SwapLater(ctx, c.meta,
			engine.Swap{Name: key(name), Revision: e.revision, Value: e.Encode()},
			engine.Swap{Name: nextName, Revision: revision, Value: encodeNext(next + 1)},
			e.mark())
		if errors.Is(err, engine.ErrConflict) {
			continue // somebody else was given the number, or has made the store
		}
		if err != nil {
			return Entry{}, err
		}
		e.revision = given[0]
		return e, nil
	}
}

// Free refuses an entry whose name is not free for another store, unless it is in state Creating and
// again permits that. Errors: [ErrExists], those of again.
func (c *Catalogue) Free(e Entry, again func(Entry) (bool, error)) error {
	switch e.State {
	case Creating:
		if ok, err := again(e); ok || err != nil {
			return err
		}
	case Dropping:
		return fmt.Errorf("%w: %q is being dropped, and its drop is not finished: drop it again, which goes on with that, or wait for whoever is at it", ErrExists, e.Name)
	}
	return fmt.Errorf("%w: %q", ErrExists, e.Name)
}

// Advance moves an entry to its next state, and with it sets other meta records of the catalogue's
// partition. Dropping is durable when it returns; Present need not be: a crash leaves an entry whose
// document is there. Errors: [ErrMoved].
func (c *Catalogue) Advance(ctx context.Context, e Entry, to State, besides ...engine.Swap) (Entry, error) {
	if to <= e.State || to > Dropping {
		return Entry{}, fmt.Errorf("catalogue: store %q: no way from state %d to %d", e.Name, e.State, to)
	}
	e.State = to
	swaps := []engine.Swap{{Name: key(e.Name), Revision: e.revision, Value: e.Encode()}, e.mark()}
	swaps = append(swaps, besides...)
	var given []uint64
	var err error
	if to == Present {
		given, err = engine.SwapLater(ctx, c.meta, swaps...)
	} else {
		given, err = c.meta.SwapMeta(ctx, swaps...)
	}
	if err != nil {
		return Entry{}, moved(e, err)
	}
	e.revision = given[0]
	return e, nil
}

// Remove removes an entry, and with it sets other meta records of the catalogue's partition: what
// is left of the store to say. Errors: [ErrMoved].
func (c *Catalogue) Remove(ctx context.Context, e Entry, besides ...engine.Swap) error {
	e.State = Present // so that no mark is left
	_, err := c.meta.SwapMeta(ctx, append([]engine.Swap{{Name: key(e.Name), Revision: e.revision}, e.mark()}, besides...)...)
	return moved(e, err)
}

// mark is the change of the mark that an entry is not [Present]: so that those are found without a
// look at all entries.
func (e Entry) mark() engine.Swap {
	s := engine.Swap{Name: markPrefix + key(e.Name)[len(entryPrefix):], Revision: engine.AnyRevision}
	if e.State != Present {
		s.Value = []byte(e.Name)
	}
	return s
}

// Unfinished returns the entries that are not [Present].
func (c *Catalogue) Unfinished(ctx context.Context) (out []Entry, err error) {
	var names []string
	if err := c.meta.ListMeta(ctx, markPrefix, func(_ string, name []byte) error {
		names = append(names, string(name))
		return nil
	}); err != nil {
		return nil, err
	}
	for _, name := range names {
		e, err := c.Find(ctx, name)
		switch {
		case errors.Is(err, ErrNone), errors.Is(err, ErrName), errors.Is(err, engine.ErrCorrupt):
			continue // that mark is of nothing
		case err != nil:
			return nil, err
		case e.State != Present:
			out = append(out, e)
		}
	}
	return out, nil
}

func moved(e Entry, err error) error {
	if errors.Is(err, engine.ErrConflict) {
		return fmt.Errorf("%w: %q: %w", ErrMoved, e.Name, err)
	}
	return err
}

// Each calls f for each entry, in no order that means anything and of one state, until it returns
// an error. An entry that cannot be read is given with the error, and without a name.
func (c *Catalogue) Each(ctx context.Context, f func(Entry, error) error) error {
	return c.meta.ListMeta(ctx, entryPrefix, func(name string, value []byte) error {
		e, err := Decode(value)
		if err == nil && key(e.Name) != name {
			err = fmt.Errorf("catalogue: the entry of store %q is in another one's place: %w", e.Name, engine.ErrCorrupt)
		}
		if err != nil {
			e = Entry{}
		}
		return f(e, err)
	})
}

// Given returns how many numbers were given.
func (c *Catalogue) Given(ctx context.Context) (uint32, error) {
	n, _, err := c.next(ctx)
	return n, err
}

// next returns the number that is given next, and the revision of its record.
func (c *Catalogue) next(ctx context.Context) (uint32, uint64, error) {
	value, revision, err := c.meta.LoadMeta(ctx, nextName)
	if errors.Is(err, engine.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	n, err := decodeNext(value)
	return n, revision, err
}

// key is the name of the meta record of a store's entry: a store's name may have bytes that
// those names may not, and be longer.
func key(name string) string {
	sum := sha256.Sum256([]byte(name))
	return entryPrefix + hex.EncodeToString(sum[:])
}
