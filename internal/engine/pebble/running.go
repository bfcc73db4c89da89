package pebble

import (
	"context"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// running has the compactions that are under way. Pebble calls begun and ended with its lock held,
// so that they must not wait.
type running struct {
	mu   sync.Mutex
	jobs map[int]chan struct{} // each is closed when the compaction has ended
}

func newRunning() *running { return &running{jobs: map[int]chan struct{}{}} }

func (r *running) begun(info pebble.CompactionInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jobs[info.JobID] == nil {
		r.jobs[info.JobID] = make(chan struct{})
	}
}

func (r *running) ended(info pebble.CompactionInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if done := r.jobs[info.JobID]; done != nil {
		close(done)
		delete(r.jobs, info.JobID)
	}
}

func (r *running) await(ctx context.Context) error {
	r.mu.Lock()
	var all []chan struct{}
	for _, done := range r.jobs {
		all = append(all, done)
	}
	r.mu.Unlock()
	for _, done := range all {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
