package block

import (
	"time"
)

// Step is how far a long operation has come.
type Step struct {
	Done    uint64 // records that are done
	Bytes   uint64 // plaintext bytes that are done, where the operation reads blocks
	Total   uint64 // records there are; 0 if not known
	Elapsed time.Duration
}

// Progress is told how far a long operation has come, from time to time and at its
// end, on the operation's own goroutine. A nil Progress is told nothing.
type Progress func(Step)

// meter calls a Progress every so often.
type meter struct {
	report  Progress
	elapsed func() time.Duration
	start   time.Duration
	last    time.Duration
	step    Step
}

const meterEvery = 100 * time.Millisecond

func (s *Store) meter(p Progress, total uint64) *meter {
	m := &meter{report: p, elapsed: s.keys.Elapsed, step: Step{Total: total}}
	m.start = m.elapsed()
	m.last = m.start
	return m
}

// add counts records and bytes.
func (m *meter) add(records, bytes uint64) {
	m.step.Done += records
	m.step.Bytes += bytes
	if m.report == nil || m.step.Done%64 != 0 {
		return
	}
	if now := m.elapsed(); now-m.last >= meterEvery {
		m.last = now
		m.tell(now)
	}
}

func (m *meter) tell(now time.Duration) {
	if m.report != nil {
		m.step.Elapsed = now - m.start
		m.report(m.step)
	}
}

// done tells the last step.
func (m *meter) done() { m.tell(m.elapsed()) }
