package row

import (
	"bytes"
	"fmt"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Limits in bytes.
const (
	MaxID    = engine.MaxID
	MaxBlock = 64 << 20
	// Overhead is how many bytes a sealed block has beyond its plaintext: the version byte, the
	// nonce and the tag.
	Overhead = 1 + dek.Overhead
)

// A sealed block has this layout:
//
//	offset  size  field
//	     0     1  version, 1
//	     1    12  nonce
//	    13     n  ciphertext, as long as the block
//	  13+n    16  tag
//
// AES-256-GCM under the block's DEK, which seals this version of this block alone. The AAD is the
// version byte, the store id (16 bytes) and the block id: a sealed block opens for no other store
// or id. The number of the partition that an engine keeps the store in is not a part of it, so that
// a store can move to another engine (docs/adr/0020-many-stores.md).
const blockVersion = 1

// CheckID refuses an id that no block can have.
func CheckID(id []byte) error {
	if len(id) == 0 || len(id) > MaxID {
		return fmt.Errorf("the id has %d bytes, want 1 to %d: %w", len(id), MaxID, ErrInvalidID)
	}
	return nil
}

// CheckBlock refuses a block that cannot be put.
func CheckBlock(id, data []byte) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if len(data) > MaxBlock {
		return fmt.Errorf("the block has %d bytes, the most is %d: %w", len(data), MaxBlock, ErrTooLarge)
	}
	return nil
}

// CheckRange refuses a start after the end, and a bound of more than MaxID+1 bytes; a nil bound is
// none. The last useful bound is the longest id and one byte more.
func CheckRange(start, end []byte) error {
	for _, bound := range [][]byte{start, end} {
		if len(bound) > MaxID+1 {
			return fmt.Errorf("a bound of the range has %d bytes, the most is %d: %w", len(bound), MaxID+1, ErrInvalidID)
		}
	}
	return ordered(start, end)
}

func ordered(start, end []byte) error {
	if start != nil && end != nil && bytes.Compare(start, end) > 0 {
		return fmt.Errorf("the range starts at %s, after its end %s: %w", Shown(start), Shown(end), ErrInvalidID)
	}
	return nil
}

// checkSealed checks the version and the least size of a sealed block, and returns what the DEK
// sealed.
func checkSealed(value []byte) ([]byte, error) {
	if len(value) == 0 {
		return nil, fmt.Errorf("the sealed block is empty: %w", keyring.ErrCorrupt)
	}
	if value[0] != blockVersion {
		return nil, fmt.Errorf("the sealed block has version %d, this release reads %d: %w", value[0], blockVersion, keyring.ErrVersion)
	}
	if len(value) < Overhead {
		return nil, fmt.Errorf("the sealed block has %d bytes, want at least %d: %w", len(value), Overhead, keyring.ErrCorrupt)
	}
	return value[1:], nil
}
