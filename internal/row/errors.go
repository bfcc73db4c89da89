package row

import (
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// These errors are exported by package block under the same names.
var (
	ErrNotFound  = errors.New("block not found")
	ErrInvalidID = errors.New("invalid block id")
	ErrTooLarge  = errors.New("too large")
	ErrChanged   = errors.New("the block is not what it was to replace")
	ErrStale     = errors.New("the KEK was changed since the batch was begun")
)

var (
	errNoRecord = fmt.Errorf("the block has data and no DEK record: %w", keyring.ErrCorrupt)
	ErrNoData   = fmt.Errorf("the block has a DEK record and no data: %w", keyring.ErrCorrupt)
)

// Damage adds keyring.ErrCorrupt or keyring.ErrVersion to an engine's error of that kind.
func Damage(err error) error {
	switch {
	case errors.Is(err, engine.ErrCorrupt):
		return fmt.Errorf("%w: %w", keyring.ErrCorrupt, err)
	case errors.Is(err, engine.ErrVersion):
		return fmt.Errorf("%w: %w", keyring.ErrVersion, err)
	}
	return err
}

// Shown quotes an id for an error text, its first 64 bytes at most.
func Shown(id []byte) string {
	if len(id) > 64 {
		return fmt.Sprintf("%q... (%d bytes)", id[:64], len(id))
	}
	return fmt.Sprintf("%q", id)
}
