package keyring

import (
	"context"
	"fmt"

	"github.com/blockseal/blockseal/dek"
)

// RewrapKEK appends to dst the record of the same DEK, for the same binding, with
// the DEK wrapped by the KEK that wraps the keyring now: one unwrap by the old KEK,
// one wrap by the new, and one unwrap that proves it, because what comes back is put
// in the place of a wrap that is good. A record that needs nothing is appended as it
// is. Like NewDEK it lets go of the hold meanwhile. It is for a database that wraps ByKEK, so that
// the KEK before can be let go ([Keyring.DropKEKs]).
//
// opens is called with the DEK, and says whether it opens what it has sealed; if not, its
// error is returned. That the vault answers with another secret in its place the record
// itself shows.
func (h *Hold) RewrapKEK(ctx context.Context, dst, record []byte, b *Binding, opens func(*dek.Key) error) ([]byte, error) {
	in, err := ParseRecord(record)
	if err != nil {
		return nil, err
	}
	r := h.r
	if _, active := r.KEKs(); in.Wrapping != ByKEK || in.KEK == active {
		return append(dst, record...), nil
	}
	var key dek.Key
	defer key.Destroy()
	if err := h.OpenDEK(ctx, &key, record, b); err != nil {
		return nil, err
	}
	if err := opens(&key); err != nil {
		return nil, err
	}
	start := len(dst)
	if dst, err = h.wrapByKEK(ctx, dst, &key, b); err != nil {
		return nil, err
	}
	var again dek.Key
	defer again.Destroy()
	// The new record commits to the key: what opens is the key.
	if err := h.OpenDEK(ctx, &again, dst[start:], b); err != nil {
		return nil, fmt.Errorf("keyring: the vault's new wrap of the DEK is of no use: %w", err)
	}
	return dst, nil
}
