package block

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

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

// The engine's keys, in order. They are on disk and must not change.
//
//	01 | name                            meta: identity, keyring document
//	02 | partition u32 BE | block id     DEK record
//	03 | partition u32 BE | block id     sealed block
//
// The partition is 0 until there are partitions; the room is there so that they
// need no new format. A DEK record and its block are always written and deleted
// in one batch.
const (
	spaceMeta = 0x01
	spaceDEK  = 0x02
	spaceData = 0x03
	spaceEnd  = 0x04

	partitionSize = 4
	prefixSize    = 1 + partitionSize
)

// A sealed block, the value in the data space:
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

// appendKey appends the engine's key of a block in a space to dst.
func appendKey(dst []byte, space byte, partition uint32, id []byte) []byte {
	dst = append(dst, space)
	dst = binary.BigEndian.AppendUint32(dst, partition)
	return append(dst, id...)
}

// bounds returns the engine's keys between which the blocks of r lie in a space.
func (r Range) bounds(space byte, partition uint32) (lower, upper []byte) {
	lower = appendKey(nil, space, partition, r.Start)
	switch {
	case r.End != nil:
		upper = appendKey(nil, space, partition, r.End)
	case partition == math.MaxUint32:
		upper = []byte{space + 1}
	default:
		upper = appendKey(nil, space, partition+1, nil)
	}
	return lower, upper
}

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
