package place

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// An engine that is in no directory has no identity file and no lock: what such a file says of the
// engine's files is for others to know. What tells its stores from their copies is a meta record of
// its own. On disk, and must not change:
//
//	offset  size  field
//	     0     1  version, 1
//	     1    16  instance
//
// Whoever removes it, or puts another in its place, makes copies of the stores, which wait for
// Revalidate. What a database's own tools copy has the record that the source has.
const (
	elsewhereName    = "elsewhere"
	elsewhereVersion = 1
)

// Elsewhere returns the place of an engine that is in no directory, and which name says where it is.
// Meta is that of its catalogue's partition. If there is no record of the instance, it is made,
// unless the place is read only: then that is [ErrNotStore]. Of a Place there is, only Dir, Instance, Stores,
// SetStores, CheckTag, Leave and Unlock are called.
func Elsewhere(ctx context.Context, meta engine.Meta, name string, readOnly bool) (*Place, error) {
	for {
		b, err := engine.ReadMeta(ctx, meta, elsewhereName)
		if errors.Is(err, engine.ErrNotFound) {
			if readOnly {
				return nil, fmt.Errorf("block: open %s: %w: nothing was made there yet", name, ErrNotStore)
			}
			_, err = meta.SwapMeta(ctx, engine.Swap{Name: elsewhereName, Value: encodeElsewhere(NewInstance())})
			if err == nil || errors.Is(err, engine.ErrConflict) || errors.Is(err, engine.ErrOutcomeUnknown) && ctx.Err() == nil {
				continue // what is there now decides
			}
		}
		if err != nil {
			return nil, fmt.Errorf("block: open %s: %w", name, row.Damage(err))
		}
		id, err := DecodeElsewhere(b)
		if err != nil {
			return nil, fmt.Errorf("block: open %s: %w", name, err)
		}
		// Nothing is written to files: there are none.
		return &Place{dir: name, readOnly: true, id: identity{instance: id}}, nil
	}
}

func encodeElsewhere(id inner.InstanceID) []byte { return append([]byte{elsewhereVersion}, id[:]...) }

// DecodeElsewhere reads the record of an instance. Errors: keyring.ErrCorrupt, keyring.ErrVersion.
func DecodeElsewhere(b []byte) (id inner.InstanceID, err error) {
	if len(b) > 0 && b[0] != elsewhereVersion {
		return id, fmt.Errorf("the record of the engine's instance: %w", keyring.ErrVersion)
	}
	if len(b) != 1+len(id) {
		return id, fmt.Errorf("the record of the engine's instance has %d bytes, want %d: %w", len(b), 1+len(id), keyring.ErrCorrupt)
	}
	return inner.InstanceID(b[1:]), nil
}
