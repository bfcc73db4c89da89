package keyring_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/keyring"
)

// keptStorage keeps each document that was saved, and calls a hook while it saves.
type keptStorage struct {
	keyring.MemStorage
	mu   sync.Mutex
	all  [][]byte
	hook func()
}

func (s *keptStorage) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	s.mu.Lock()
	s.all = append(s.all, document)
	hook := s.hook
	s.hook = nil
	s.mu.Unlock()
	if hook != nil {
		hook()
	}
	return s.MemStorage.Swap(ctx, was, document)
}

// An operation that wraps a DEK while Close writes down the exact counts does not have
// the document count from the start: whichever a crash leaves, it counts all that was
// wrapped by then.
func TestWrappingWhileCountsAreSettled(t *testing.T) {
	g := newRig(t)
	g.opts.EpochMaxDEKs = 640 // reserved 10 at a time
	s := &keptStorage{}
	r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
	require.NoError(t, err)
	const before = 25
	for range before {
		newRecord(t, r)
	}
	// The operation was begun before Close, and comes to wrap its DEK while Close saves.
	h, err := r.Acquire()
	require.NoError(t, err)
	wrapped := make(chan error, 1)
	s.mu.Lock()
	saved := len(s.all)
	s.hook = func() {
		go func() {
			var key dek.Key
			var b keyring.Binding
			_, err := h.NewDEK(context.Background(), nil, &key, &b)
			h.Release()
			wrapped <- err
		}()
	}
	s.mu.Unlock()
	require.NoError(t, r.Close())
	require.NoError(t, <-wrapped)

	require.GreaterOrEqual(t, len(s.all), saved+2, "the counts, and one more reservation")
	for i, document := range s.all[saved:] {
		crashed := &keyring.MemStorage{}
		require.NoError(t, keyring.Replace(t.Context(), crashed, document))
		r, err := keyring.Open(t.Context(), crashed, g.kek, &g.opts)
		require.NoError(t, err)
		want := uint64(before + 1)
		if i == 0 {
			want = before // what comes after waits for the next document
		}
		require.GreaterOrEqual(t, r.Stats().Epoch.DEKs, want)
		require.NoError(t, r.Close())
	}
}
