package block

import (
	"sync"

	"github.com/blockseal/blockseal/dek"
)

// Scratches is the memory of a store's operations, each of which has a DEK in it while it
// is used.
type Scratches struct {
	mu  sync.Mutex
	all []*dek.Key
}

// WatchScratches has the store's operations from now on use memory that is watched. No
// operation may be under way.
func (s *Store) WatchScratches() *Scratches {
	w := &Scratches{}
	s.table.WatchDEKs(func(k *dek.Key) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = append(w.all, k)
	})
	return w
}

// Count returns how many there were, and how many of them have a DEK that was not
// destroyed. No operation may be using one meanwhile, but for one that stands still.
func (w *Scratches) Count() (all, live int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.all {
		if isLive(k) {
			live++
		}
	}
	return len(w.all), live
}

// isLive reports whether a key was filled and not destroyed: Bytes panics on any other.
func isLive(k *dek.Key) (live bool) {
	defer func() { live = recover() == nil }()
	k.Bytes()
	return
}
