package block

import (
	"context"
	"errors"
	"runtime"
	"strings"
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

// Progress is told how far a long operation has come, between two of its steps, from time
// to time, and at its end, on the operation's own goroutine, which goes on when Progress
// returns. A nil Progress is told nothing.
//
// It may block, and may call any method of the store. While it blocks the operation stands
// still and keeps neither the store from locking nor anybody from reading and writing; but
// RotateEpoch, Rekey and Erase keep their turn, and other rewriting operations wait for it.
// One that Progress itself calls, on its own goroutine, while its caller has the turn would
// wait for ever, and is refused. If Progress calls Close, the operation ends with [ErrClosed].
type Progress func(Step)

// meter counts what a long operation has done, and calls its Progress every so often:
// between two steps, when there is no hold, and nothing of the engine's or the store's is
// locked. Within a step it only counts.
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
}

// due reports whether it is time to tell the Progress.
func (m *meter) due() bool { return m.report != nil && m.elapsed()-m.last >= meterEvery }

// between is called between two steps.
func (m *meter) between() {
	if m.due() {
		m.tell()
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
	m.tell()
}

// tell calls the Progress. See refuseFromProgress, which finds it on the stack.
func (m *meter) tell() {
	if m.report == nil {
		return
	}
	m.last = m.elapsed()
	m.step.Elapsed = m.last - m.start
	m.step.Total = m.work.total.Load()
	m.s.telling.Add(1)
	defer m.s.telling.Add(-1)
	m.report(m.step)
}

// done tells the last step.
func (m *meter) done() { m.tell() }

// end ends the work, with what came of it.
func (m *meter) end(err error) { m.s.end(m.work, err) }

// errFromProgress is returned instead of waiting for what cannot come.
var errFromProgress = errors.New("it was called by the Progress of an operation that has the turn of rewriting operations and waits for Progress to return")

// refuseFromProgress returns errFromProgress if the calling goroutine is that of an
// operation which has the turn, in its Progress. The caller has found the turn taken. A
// goroutine has no name to go by, but it has a stack; to look through that costs
// something, and is done only while somebody is in a Progress of this store.
func (s *Store) refuseFromProgress() error {
	if s.telling.Load() == 0 {
		return nil
	}
	var pcs [64]uintptr
	for skip := 1; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		if n == 0 {
			return nil
		}
		frames := runtime.CallersFrames(pcs[:n])
		for more := true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if strings.HasSuffix(f.Function, "/block.(*Store).rotateEpoch") || strings.HasSuffix(f.Function, "/block.(*Store).rekey") {
				return errFromProgress
			}
		}
	}
}
