package block

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
)

// named refuses an entry of the catalogue that leads to another store's partition, by what the
// partition says of itself in clear. A store that has access looks at the tag of its name as well
// (register.CheckName). This is for what comes before, or without a key: to drop and to export a
// store, and to have its partition from the engine at all, which belongs to one store at a time, and
// may be that of another one which is open. Errors: ErrForeign; ErrCorrupt for a store that has lost
// its name.
func (d *DB) named(ctx context.Context, e catalogue.Entry) error {
	record, err := d.engine.Peek(ctx, e.Number, register.NameRecord)
	if errors.Is(err, engine.ErrNotFound) {
		there, err := d.there(ctx, e)
		if err == nil && there {
			err = fmt.Errorf("its own name is missing: %w", ErrCorrupt)
		}
		return row.Damage(err)
	}
	if err != nil {
		return row.Damage(err)
	}
	name, err := register.NameOf(record)
	if err == nil && name != e.Name {
		err = fmt.Errorf("what is found as store %q is store %s: %w", e.Name, row.Shown([]byte(name)), ErrForeign)
	}
	return err
}

// vacant refuses a number that was just given, and has a store: then the catalogue was put back to
// what it was before that one was made.
func (d *DB) vacant(ctx context.Context, e catalogue.Entry) error {
	there, err := d.there(ctx, e)
	if err == nil && there {
		err = fmt.Errorf("partition %d, which is given to store %q, has a store: %w", e.Number, e.Name, ErrCorrupt)
	}
	return row.Damage(err)
}
