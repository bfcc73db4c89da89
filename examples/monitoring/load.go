package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/blockseal/blockseal/block"
)

// work is what the program is there for: it puts and gets blocks, about 200 times a
// second, until ctx ends. As long as the store is Inaccessible it waits.
func (m *monitored) work(ctx context.Context) error {
	const blocks = 2000
	data := make([]byte, 1000)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		id := binary.BigEndian.AppendUint32([]byte("block "), rand.Uint32N(blocks))
		err := m.store.Put(ctx, id, data[:rand.IntN(len(data))])
		if err == nil {
			id = binary.BigEndian.AppendUint32(id[:6], rand.Uint32N(blocks))
			_, err = m.store.Get(ctx, id, nil)
		}
		switch {
		case err == nil, errors.Is(err, block.ErrNotFound), errors.Is(err, block.ErrInaccessible), ctx.Err() != nil:
		default:
			return err
		}
	}
}
