package pebble

import (
	"context"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// running is the compactions that are under way. Pebble tells of them with its own lock
// held, so that its methods only note it.
type running struct {
	mu   sync.Mutex
	jobs map[int]chan struct{} // closed at the end
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

// await waits for the compactions that are under way now.
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
