package engine

import (
	"context"
	"fmt"
	"math"
	"strings"
)

// Meta has the meta records of a partition: some thousands at most, of some MiB at most, under
// names of 1 to [MaxName] bytes without a zero byte.
//
// A meta record has a revision, which is another whenever the record swaps, and is never given
// twice. It is not 0, which is the revision of a record that does not exist. It may lose its
// meaning when the engine is closed.
type Meta interface {
	// LoadMeta returns a copy of a meta record, or ErrNotFound and revision 0.
	LoadMeta(ctx context.Context, name string) (value []byte, revision uint64, err error)
	// ListMeta calls f for each meta record whose name begins with prefix, in the order of the
	// names and of one state, until f returns an error. value is valid within f.
	ListMeta(ctx context.Context, prefix string, f func(name string, value []byte) error) error
	// SwapMeta does all swaps if each record has the revision that its swap names; else it does
	// none and returns ErrConflict. When it returns nil the swaps are durable, as is all that was
	// applied before. It returns the new revisions, in the order of the swaps. No two swaps may
	// name one record. With ErrOutcomeUnknown all swaps may have been done, or
	// none; the revisions are what they have then.
	SwapMeta(ctx context.Context, swaps ...Swap) (revisions []uint64, err error)
}

// Swap replaces or deletes a meta record.
type Swap struct {
	Name     string
	Revision uint64 // the present one; 0 if there must be no record; or AnyRevision
	Value    []byte // nil: delete the record

	Tell   bool // other processes are told of it, as a [Hearer] hears; else it is for them to find out
	Turned bool // it is of who has the turn, as Replace is; see [Turner]
}

// AnyRevision is for callers that replace whatever is there.
const AnyRevision = math.MaxUint64

// MaxName is the most bytes of a meta record's name.
const MaxName = 255

// CheckName refuses what is not a meta record's name.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > MaxName || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("engine: %q is no name of a meta record: it has %d bytes, want 1 to %d, none of them zero", name, len(name), MaxName)
	}
	return nil
}

// CheckSwaps refuses bad names, and two swaps of one meta record.
func CheckSwaps(swaps []Swap) error {
	seen := make(map[string]bool, len(swaps))
	for _, c := range swaps {
		if err := CheckName(c.Name); err != nil {
			return err
		}
		if seen[c.Name] {
			return fmt.Errorf("engine: two swaps of meta record %s at once", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// SwapLater is SwapMeta for who goes on to change something else that is to be durable, and needs the
// swaps to be so no sooner: see [Deferrer]. An engine that is none makes them durable at once.
func SwapLater(ctx context.Context, m Meta, swaps ...Swap) (revisions []uint64, err error) {
	if d, ok := m.(Deferrer); ok {
		return d.SwapMetaLater(ctx, swaps...)
	}
	return m.SwapMeta(ctx, swaps...)
}

// ReadMeta returns a copy of a meta record, or ErrNotFound.
func ReadMeta(ctx context.Context, p Meta, name string) ([]byte, error) {
	value, _, err := p.LoadMeta(ctx, name)
	return value, err
}

// SetMeta replaces a meta record, or deletes it if value is nil. It is durable then, as is all that
// was applied before. All who write the record have one lock or turn. SetMeta is mostly one step of
// several that belong together, so that it ignores the end of ctx.
func SetMeta(ctx context.Context, p Meta, name string, value []byte) error {
	_, err := p.SwapMeta(context.WithoutCancel(ctx), Swap{Name: name, Revision: AnyRevision, Value: value})
	return err
}
