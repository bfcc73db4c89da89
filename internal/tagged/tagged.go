// Package tagged is the form of meta records that steer what a store does to its keys. Nobody can
// make one without the keys.
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
//	     0     1  version, 2; 1 had no tag, and is not believed
//	     1    32  tag, by a hold (inner), of the meta record's name and the content
//	    33     .  the content
const Version = 2

// Split splits a tagged record; ok is false if b is none. tag and content are parts of b. Split
// does not check the tag.
func Split(b []byte) (tag, content []byte, ok bool) {
	if len(b) < 1+inner.TagSize || b[0] != Version {
		return nil, nil, false
	}
	return b[1 : 1+inner.TagSize], b[1+inner.TagSize:], true
}

// Join returns a tagged record.
func Join(tag [inner.TagSize]byte, content []byte) []byte {
	return bytes.Join([][]byte{{Version}, tag[:], content}, nil)
}

// Record returns the tagged record of a name and a content.
func Record(h *keyring.Hold, name string, content []byte) ([]byte, error) {
	tag, err := h.For(inner.Block{}).Tag(name, content)
	if err != nil {
		return nil, fmt.Errorf("the record %s: %w", name, err)
	}
	return Join(tag, content), nil
}

// Read returns the content of a tagged record. A record that is not authentic counts as none: the
// work that it speaks of is then done again. Errors are those of the engine and of h.
func Read(ctx context.Context, part engine.Meta, h *keyring.Hold, name string) (content []byte, found bool, err error) {
	b, err := engine.ReadMeta(ctx, part, name)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	tag, content, ok := Split(b)
	if !ok {
		return nil, false, nil
	}
	want, err := h.For(inner.Block{}).Tag(name, content)
	if err != nil {
		return nil, false, err
	}
	return content, hmac.Equal(tag, want[:]), nil
}
