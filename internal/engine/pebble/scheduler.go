package pebble

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler is Pebble's own rule of how many compactions run at a time, except that none begins before
// start. Pebble v2.1's Open begins compactions when it has replayed a log, and may fail after that. Then it
// closes the cache of files in which they look for their tables: they panic, on goroutines where nobody can
// catch it. Its own scheduler has besides a goroutine that an Open which fails leaves behind, which begins
// more of them.
//
// Pebble's locks come before mu. So nothing of the DB but GetAllowedWithoutPermission is called under mu.
type scheduler struct {
	poked chan struct{} // has one element if a compaction may be let begin

	mu      sync.Mutex
	db      pebble.DBForCompaction
	running int
	started bool
	closed  chan struct{} // closed by Unregister
	ended   chan struct{} // closed when grant has returned
}

var _ pebble.CompactionScheduler = (*scheduler)(nil)

func newScheduler() *scheduler {
	return &scheduler{poked: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{})}
}

// grantEvery is how often it is looked whether more compactions are allowed than when one began or ended, as
// in Pebble's own scheduler: Pebble does not tell when that rises.
const grantEvery = 100 * time.Millisecond

// start lets compactions begin. Open has returned a DB.
func (s *scheduler) start() {
	s.mu.Lock()
	s.started = true
	s.mu.Unlock()
	s.poke() // for what has been refused meanwhile
	go s.grant()
}

func (s *scheduler) poke() {
	select {
	case s.poked <- struct{}{}:
	default:
	}
}

// Register implements [pebble.CompactionScheduler].
func (s *scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
}

// Unregister implements [pebble.CompactionScheduler]. When it has returned, nothing of the DB is called.
func (s *scheduler) Unregister() {
	s.mu.Lock()
	close(s.closed)
	started := s.started
	s.mu.Unlock()
	if started {
		<-s.ended
	}
}

// TrySchedule implements [pebble.CompactionScheduler]. Pebble remembers what is refused until it is granted, and
// asks no more. Perhaps it is grant that has the room, and has just seen that nothing waits: so it looks again.
func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !s.take() {
		s.poke()
		return false, nil
	}
	return true, granted{s}
}

// take counts a compaction more, if one may begin.
func (s *scheduler) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started || s.isClosed() || s.running >= s.db.GetAllowedWithoutPermission() {
		return false
	}
	s.running++
	return true
}

func (s *scheduler) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

func (s *scheduler) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
}

// UpdateGetAllowedWithoutPermission implements [pebble.CompactionScheduler].
func (s *scheduler) UpdateGetAllowedWithoutPermission() { s.poke() }

// grant lets begin what was refused, when there is room for it.
func (s *scheduler) grant() {
	defer close(s.ended)
	ticker := time.NewTicker(grantEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-s.poked:
		case <-ticker.C:
		}
		for s.take() {
			if waiting, _ := s.db.GetWaitingCompaction(); !waiting || !s.db.Schedule(granted{s}) {
				s.release()
				break
			}
		}
	}
}

// granted is the permission of one compaction.
type granted struct{ s *scheduler }

// Started implements [pebble.CompactionGrantHandle].
func (granted) Started() {}

// MeasureCPU implements [pebble.CompactionGrantHandle].
func (granted) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements [pebble.CompactionGrantHandle].
func (granted) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements [pebble.CompactionGrantHandle].
func (g granted) Done() {
	g.s.release()
	g.s.poke()
}
