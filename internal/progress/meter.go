package progress

import (
	"context"
	"time"
)

// Report is told how far an operation has come; nil is told nothing.
type Report func(Step)

// Meter counts what a long operation has done. It calls its Report every so often, between two
// steps, when the operation has no hold and no lock of the store or the engine. Within a step it
// only counts. It belongs to the operation's goroutine.
type Meter struct {
	board  *Board
	report Report
	start  time.Duration
	last   time.Duration
	step   Step
	work   *work // what others read
}

// every is the least time between two calls of a Report.
const every = 100 * time.Millisecond

// Meter begins to measure an operation; End ends it. If total is 0, not known, count counts it
// meanwhile, unless count is nil.
func (b *Board) Meter(name string, report Report, total uint64, count func(context.Context) (uint64, error)) *Meter {
	m := &Meter{board: b, report: report, step: Step{Total: total}, work: b.begin(name, total, count)}
	m.start = b.clock.Elapsed()
	m.last = m.start
	return m
}

// Add counts records and bytes.
func (m *Meter) Add(records, bytes uint64) {
	m.step.Done += records
	m.step.Bytes += bytes
	m.work.done.Store(m.step.Done)
	m.work.bytes.Store(m.step.Bytes)
}

// Called counts n calls to the vault.
func (m *Meter) Called(n uint64) {
	m.step.VaultCalls += n
	m.work.calls.Store(m.step.VaultCalls)
}

// Due reports whether it is time to call the Report.
func (m *Meter) Due() bool { return m.report != nil && m.board.clock.Elapsed()-m.last >= every }

// Between is called between two steps.
func (m *Meter) Between() {
	if m.Due() {
		m.Done()
	}
}

// Done calls the Report, at the end for the last time.
func (m *Meter) Done() {
	if m.report == nil {
		return
	}
	m.last = m.board.clock.Elapsed()
	m.step.Elapsed = m.last - m.start
	m.step.Total = m.work.total.Load()
	m.board.telling.Add(1)
	defer m.board.telling.Add(-1)
	m.report(m.step)
}

// End ends the operation with its error.
func (m *Meter) End(err error) { m.board.end(m.work, err) }

// Telling reports whether any operation is in its Report.
func (b *Board) Telling() bool { return b.telling.Load() > 0 }
