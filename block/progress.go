package block

import (
	"context"
	"time"
)

// Step is how far a long operation has come.
type Step struct {
	Done  uint64 // records that are done
	Bytes uint64 // plaintext bytes that are done, where the operation reads blocks
	Total uint64 // records there are; 0 if not known

	VaultCalls uint64        // that RewrapDEKs has made
	Paused     bool          // RewrapDEKs waits for ResumeRewrap
	Elapsed    time.Duration // without pauses
}

// Rate is how many records are done a second; 0 if not known.
func (p Step) Rate() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Done) / p.Elapsed.Seconds()
}

// Left is how much longer it takes at the rate so far; not ok if that is not known.
func (p Step) Left() (left time.Duration, ok bool) {
	if p.Total == 0 || p.Done == 0 || p.Elapsed <= 0 {
		return 0, false
	}
	if p.Done >= p.Total {
		return 0, true
	}
	return time.Duration(float64(p.Elapsed) / float64(p.Done) * float64(p.Total-p.Done)), true
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
	paused  time.Duration // when the pause that lasts began
	step    Step
	work    *work // what Stats shows
	s       *Store
}

const meterEvery = 100 * time.Millisecond

// meter begins to measure a work, which end ends. A total that is not known, 0, is
// counted meanwhile.
func (s *Store) meter(name string, p Progress, total uint64, count func(context.Context) (uint64, error)) *meter {
	m := &meter{report: p, elapsed: s.keys.Elapsed, step: Step{Total: total}, s: s, work: s.begin(name, total, count)}
	m.start = m.elapsed()
	m.last = m.start
	return m
}

// add counts records and bytes.
func (m *meter) add(records, bytes uint64) {
	m.step.Done += records
	m.step.Bytes += bytes
	m.work.done.Store(m.step.Done)
	m.work.bytes.Store(m.step.Bytes)
	if m.report == nil || m.step.Done%64 != 0 {
		return
	}
	if now := m.elapsed(); now-m.last >= meterEvery {
		m.last = now
		m.tell(now)
	}
}

// called counts calls to the vault.
func (m *meter) called(n uint64) {
	m.step.VaultCalls += n
	m.work.calls.Store(m.step.VaultCalls)
}

// pause begins or ends a pause, which does not count as time elapsed, and tells of it.
func (m *meter) pause(begins bool) {
	now := m.elapsed()
	if begins {
		m.paused = now
	} else {
		m.start += now - m.paused
	}
	m.step.Paused = begins
	m.work.paused.Store(begins)
	m.last = now
	m.tell(now)
}

func (m *meter) tell(now time.Duration) {
	if m.report != nil {
		m.step.Elapsed = now - m.start
		m.step.Total = m.work.total.Load()
		m.report(m.step)
	}
}

// done tells the last step.
func (m *meter) done() { m.tell(m.elapsed()) }

// end ends the work, with what came of it.
func (m *meter) end(err error) { m.s.end(m.work, err) }
