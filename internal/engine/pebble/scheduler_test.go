package pebble

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// oneAtATime is a DB that allows one compaction, and has none that waits.
type oneAtATime struct{}

func (oneAtATime) GetAllowedWithoutPermission() int { return 1 }
func (oneAtATime) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	return false, pebble.WaitingCompaction{}
}
func (oneAtATime) Schedule(pebble.CompactionGrantHandle) bool { return false }

// What is refused while grant has taken the room, and finds nothing that waits, is looked at again when that room is
// given back, and not when the clock next says so.
func TestRefusedCompactionIsLookedAtAgain(t *testing.T) {
	s := newScheduler()
	s.Register(1, oneAtATime{})
	ok, _ := s.TrySchedule()
	require.False(t, ok, "before start")
	<-s.poked
	s.started = true // without the goroutine
	require.True(t, s.take())
	ok, _ = s.TrySchedule()
	require.False(t, ok)
	s.release()
	require.Len(t, s.poked, 1)
	ok, granted := s.TrySchedule()
	require.True(t, ok)
	granted.Done()

	s = newScheduler()
	s.Register(1, oneAtATime{})
	s.start()
	s.Unregister()
	ok, _ = s.TrySchedule()
	require.False(t, ok, "nothing begins after that")
}
