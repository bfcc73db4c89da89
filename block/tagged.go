package block

import (
	"context"

	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// readTagged reads a tagged record of the store's; see [tagged.Read].
func (s *Store) readTagged(ctx context.Context, h *keyring.Hold, name string) (record []byte, found bool, err error) {
	record, found, err = tagged.Read(ctx, s.part, h, name)
	return record, found, s.damage(err)
}

// writeTagged replaces a tagged record durably, and what was applied before it.
func (s *Store) writeTagged(ctx context.Context, h *keyring.Hold, name string, record []byte) error {
	b, err := tagged.Record(h, name, record)
	if err != nil {
		return err
	}
	return s.writeMeta(ctx, name, b)
}
