package block

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// A tagged record is a meta record that steers what the store does to its keys, so
// that whoever can write the disk must not be able to make one. On disk, and must not
// change.
//
//	offset  size  field
//	     0     1  version, 2; 1 was the record alone, and is not believed any more
//	     1    32  keyring.Hold.Tag of the record's name and the record
//	    33     .  the record
//
// A record that is not authentic counts as none: then the work is done again.
const taggedVersion = 2

func (s *Store) readTagged(ctx context.Context, h *keyring.Hold, name string) (record []byte, found bool, err error) {
	b, err := readMeta(ctx, s.part, name)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, s.damage(err)
	}
	tag, record, ok := splitTagged(b)
	if !ok {
		return nil, false, nil
	}
	want, err := h.Tag(name, record)
	if err != nil {
		return nil, false, err
	}
	return record, hmac.Equal(tag, want[:]), nil
}

func splitTagged(b []byte) (tag, record []byte, ok bool) {
	if len(b) < 1+keyring.TagSize || b[0] != taggedVersion {
		return nil, nil, false
	}
	return b[1 : 1+keyring.TagSize], b[1+keyring.TagSize:], true
}

// writeTagged replaces a tagged record durably, and what was applied before it.
func (s *Store) writeTagged(ctx context.Context, h *keyring.Hold, name string, record []byte) error {
	tagged, err := tagRecord(h, name, record)
	if err != nil {
		return err
	}
	return s.writeMeta(ctx, name, tagged)
}

func tagRecord(h *keyring.Hold, name string, record []byte) ([]byte, error) {
	tag, err := h.Tag(name, record)
	if err != nil {
		return nil, fmt.Errorf("the record %s: %w", name, err)
	}
	return joinTagged(tag, record), nil
}

func joinTagged(tag [keyring.TagSize]byte, record []byte) []byte {
	return bytes.Join([][]byte{{taggedVersion}, tag[:], record}, nil)
}
