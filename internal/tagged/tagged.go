// Package tagged is the form of meta records that steer what a store does to its keys, so
// that whoever can write the disk must not be able to make one.
package tagged

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// Version is the first byte of a tagged record. On disk, and must not change:
//
//	offset  size  field
//	     0     1  version, 2; 1 was the record alone, and is not believed any more
//	     1    32  a hold's Tag of the record's name and the record
//	    33     .  the record
const Version = 2

// Split takes a tagged record apart; ok is false if b is none. Nothing has looked at the tag
// yet. tag and record are parts of b.
func Split(b []byte) (tag, record []byte, ok bool) {
	if len(b) < 1+inner.TagSize || b[0] != Version {
		return nil, nil, false
	}
	return b[1 : 1+inner.TagSize], b[1+inner.TagSize:], true
}

// Join puts a tagged record together.
func Join(tag [inner.TagSize]byte, record []byte) []byte {
	return bytes.Join([][]byte{{Version}, tag[:], record}, nil)
}

// Record returns the tagged record of a name.
func Record(h *keyring.Hold, name string, record []byte) ([]byte, error) {
	tag, err := h.For(inner.Block{}).Tag(name, record)
	if err != nil {
		return nil, fmt.Errorf("the record %s: %w", name, err)
	}
	return Join(tag, record), nil
}

// Read reads a tagged record. One that is not authentic counts as none: then the work that
// it speaks of is done again. Errors are those of the engine and of h.
func Read(ctx context.Context, part engine.Meta, h *keyring.Hold, name string) (record []byte, found bool, err error) {
	b, err := engine.ReadMeta(ctx, part, name)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	tag, record, ok := Split(b)
	if !ok {
		return nil, false, nil
	}
	want, err := h.For(inner.Block{}).Tag(name, record)
	if err != nil {
		return nil, false, err
	}
	return record, hmac.Equal(tag, want[:]), nil
}
