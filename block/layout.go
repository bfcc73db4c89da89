package block

import (
	"bytes"
	"fmt"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
)

// Limits in bytes.
const (
	// MaxID is the size of the longest block id; the shortest has 1 byte.
	MaxID = 4096
	// MaxBlock is the size of the largest block; the smallest has 0 bytes.
	MaxBlock = 64 << 20
	// MaxBatch bounds the sum of a batch's ids, blocks and records.
	MaxBatch = engine.MaxBatch
	// Overhead is what a block occupies beyond its plaintext and its keys: the
	// version byte, the seal's overhead, and the DEK record (keyring.RecordSize).
	blockOverhead = 1 + dek.Overhead
)

// partitionSize is the size of a partition's number in what a block is bound to. The number
// is that of the store's partition in the engine.
const partitionSize = 4

// A sealed block, beside its DEK record in the engine's row (package engine):
//
//	offset  size  field
//	     0     1  version, 1
//	     1    12  nonce
//	    13     n  ciphertext, as long as the block
//	  13+n    16  tag
//
// AES-256-GCM under the block's DEK, which seals this version of this block and
// nothing else. The AAD is the version byte, the store id (16 bytes), the
// partition (4 bytes, big-endian) and the block id: a sealed block opens for no
// other store, partition or id.
const blockVersion = 1

// check refuses bounds that no id reaches, and a start after the end. The longest bound
// that says more than a shorter one is what follows the longest id.
func (r Range) check() error {
	for _, bound := range [][]byte{r.Start, r.End} {
		if len(bound) > MaxID+1 {
			return fmt.Errorf("a bound of the range has %d bytes, the most is %d: %w", len(bound), MaxID+1, ErrInvalidID)
		}
	}
	return r.ordered()
}

func (r Range) ordered() error {
	if r.Start != nil && r.End != nil && bytes.Compare(r.Start, r.End) > 0 {
		return fmt.Errorf("the range starts at %s, after its end %s: %w", shownID(r.Start), shownID(r.End), ErrInvalidID)
	}
	return nil
}

func checkID(id []byte) error {
	if len(id) == 0 || len(id) > MaxID {
		return fmt.Errorf("the id has %d bytes, want 1 to %d: %w", len(id), MaxID, ErrInvalidID)
	}
	return nil
}

func checkBlock(id, data []byte) error {
	if err := checkID(id); err != nil {
		return err
	}
	if len(data) > MaxBlock {
		return fmt.Errorf("the block has %d bytes, the most is %d: %w", len(data), MaxBlock, ErrTooLarge)
	}
	return nil
}

// checkSealed checks the version and the least size of a sealed block and returns
// what the DEK sealed.
func checkSealed(value []byte) ([]byte, error) {
	if len(value) == 0 {
		return nil, fmt.Errorf("the sealed block is empty: %w", ErrCorrupt)
	}
	if value[0] != blockVersion {
		return nil, fmt.Errorf("the sealed block has version %d, this release reads %d: %w", value[0], blockVersion, ErrVersion)
	}
	if len(value) < blockOverhead {
		return nil, fmt.Errorf("the sealed block has %d bytes, want at least %d: %w", len(value), blockOverhead, ErrCorrupt)
	}
	return value[1:], nil
}
