package engine

import (
	"context"
	"fmt"
	"math"
	"strings"
)

// Meta is the meta records of a partition: at most some thousands, of at most some MiB, under
// names of 1 to [MaxName] bytes, none of them zero.
//
// A record has a revision, which changes whenever the record does and is never given twice. It
// is not 0, which is that of a record that is not there. It may mean nothing any more once the
// engine has been closed.
type Meta interface {
	// LoadMeta returns a copy of a record, or ErrNotFound, with revision 0.
	LoadMeta(ctx context.Context, name string) (value []byte, revision uint64, err error)
	// ListMeta calls f for each record whose name begins with prefix, in the order of their
	// names and of one state, until it returns an error. value is valid within f.
	ListMeta(ctx context.Context, prefix string, f func(name string, value []byte) error) error
	// SwapMeta makes changes of records, all or none, if each record still has the revision that
	// the change names; else it returns ErrConflict. When it returns nil they are durable, and
	// what was applied before. It returns the new revisions, in the order of the changes, each of
	// which is of another record.
	SwapMeta(ctx context.Context, changes ...Swap) (revisions []uint64, err error)
}

// Swap is a change of a meta record.
type Swap struct {
	Name     string
	Revision uint64 // that the record has: 0 if there must be none; or AnyRevision
	Value    []byte // nil: delete it
}

// AnyRevision is for changes whose caller does not care what was there.
const AnyRevision = math.MaxUint64

// MaxName is the size of the longest name of a meta record, in bytes.
const MaxName = 255

// CheckName refuses what is no name of a meta record.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > MaxName || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("engine: %q is no name of a meta record: it has %d bytes, want 1 to %d, none of them zero", name, len(name), MaxName)
	}
	return nil
}

// CheckSwaps refuses what no engine takes: names that are none, and two changes of one record.
func CheckSwaps(changes []Swap) error {
	seen := make(map[string]bool, len(changes))
	for _, c := range changes {
		if err := CheckName(c.Name); err != nil {
			return err
		}
		if seen[c.Name] {
			return fmt.Errorf("engine: two changes of meta record %s at once", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// ReadMeta returns a copy of a meta record, or ErrNotFound.
func ReadMeta(ctx context.Context, p Meta, name string) ([]byte, error) {
	value, _, err := p.LoadMeta(ctx, name)
	return value, err
}

// SetMeta sets a meta record durably, with what was applied before, or deletes it if value is
// nil. Whoever else may write it has the same lock or turn as the caller. It is mostly one step
// of several that belong together: a ctx that ends meanwhile does not come between them.
func SetMeta(ctx context.Context, p Meta, name string, value []byte) error {
	_, err := p.SwapMeta(context.WithoutCancel(ctx), Swap{Name: name, Revision: AnyRevision, Value: value})
	return err
}
