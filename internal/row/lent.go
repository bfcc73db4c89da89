package row

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// Lent seals blocks into a batch's own memory, whose data the caller lends until the batch ends: on
// its own goroutine and on helpers, which begin while the caller goes on. It belongs to the batch's
// goroutine.
//
// What is being sealed into must not move. So blocks for which the batch has no room left wait
// unplaced, up to lentWaiting bytes; then all sealing is waited for, and the batch grows once.
//
// A helper writes to the batch inside a hold of the batch's session alone: closing the store, which
// closes the batch, finds it at rest. It ends when there is nothing to seal, so that a batch that is
// neither committed nor closed keeps no goroutine.
type Lent struct {
	t       *Table
	b       engine.Batch
	session uint64
	ctx     context.Context // ends when the batch does
	cancel  context.CancelFunc

	waiting      []lentBlock // not placed in the batch yet
	waitingBytes int

	mu      sync.Mutex
	todo    []lentBlock
	bytes   int // of data in todo
	helpers int
	ended   bool
	least   uint32        // the least epoch of the DEK records so far
	err     error         // what failed first
	idle    chan struct{} // told when the last helper has ended; its capacity is 1
}

// lentBlock is a block to seal; record and sealed are its places in the batch.
type lentBlock struct {
	id, data       []byte
	record, sealed []byte
}

const (
	lentWaiting = 4 << 20  // most bytes of blocks that wait for the batch to grow
	lentHelp    = 8 << 10  // bytes to seal from which on a helper is worth being woken
	lentMore    = 64 << 10 // bytes to seal for each helper more
	lentHelpers = 4        // most helpers of a batch
	// allHelpers is how many helpers the batches of an engine have together, at the most one fewer
	// than GOMAXPROCS.
	allHelpers = 16
)

// Lend returns what seals into a batch in the given session. Of ctx it keeps the values.
func (t *Table) Lend(ctx context.Context, b engine.Batch, session uint64) *Lent {
	l := &Lent{t: t, b: b, session: session, least: NoEpoch, idle: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// Waiting returns about how many bytes the batch does not have yet and will.
func (l *Lent) Waiting() int { return l.waitingBytes }

func lentSize(id, data []byte, record int) int {
	return 2*len(id) + record + Overhead + len(data) + engine.RowOverhead
}

// Put adds a block. The caller has a hold of the session, and keeps data as it is until Settle has
// returned nil or End has returned. If Put reports that the batch is full, Settle comes next, outside
// of any hold.
func (l *Lent) Put(h *keyring.Hold, id, data []byte) (full bool, err error) {
	record := recordSize(h)
	need := lentSize(id, data, record)
	if len(l.waiting) == 0 && l.b.Spare() >= need {
		rec, sealed, err := l.b.PutLater(id, record, Overhead+len(data))
		if err != nil {
			return false, err
		}
		l.add(lentBlock{append([]byte(nil), id...), data, rec, sealed})
		return false, nil
	}
	l.waiting = append(l.waiting, lentBlock{id: append([]byte(nil), id...), data: data})
	l.waitingBytes += need
	return l.waitingBytes >= lentWaiting, nil
}

func recordSize(h *keyring.Hold) int {
	if h.For(inner.Block{}).Wrapping() == keyring.ByKEK {
		return keyring.RecordSizeByKEK
	}
	return keyring.RecordSize
}

// Quiet reports whether an op of so many bytes can be added to the batch as it is.
func (l *Lent) Quiet(n int) bool { return len(l.waiting) == 0 && l.b.Spare() >= n }

// Settle has all blocks sealed and in the batch, and returns the least epoch that their DEK records
// name. The caller has no hold. If ctx ends first, the batch is as good as it was.
func (l *Lent) Settle(ctx context.Context) (least uint32, err error) {
	if err := l.finish(ctx); err != nil {
		return NoEpoch, err
	}
	if len(l.waiting) > 0 {
		if err := l.place(); err != nil {
			l.fail(err) // some may have their places
			return NoEpoch, err
		}
		if err := l.finish(ctx); err != nil {
			return NoEpoch, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.least, l.err
}

// place gives the blocks that wait their places in the batch. Nothing is being sealed.
func (l *Lent) place() error {
	h, err := l.t.keys.For(inner.Block{}).AcquireSession(l.session)
	if err != nil {
		return err
	}
	defer h.Release()
	if err := l.b.Grow(l.waitingBytes); err != nil {
		return err
	}
	record := recordSize(&h)
	for i := range l.waiting {
		w := &l.waiting[i]
		if w.record, w.sealed, err = l.b.PutLater(w.id, record, Overhead+len(w.data)); err != nil {
			return err
		}
	}
	l.add(l.waiting...)
	clear(l.waiting)
	l.waiting, l.waitingBytes = l.waiting[:0], 0
	return nil
}

// add has blocks sealed, and wakes a helper if that pays and the engine has one to spare.
func (l *Lent) add(blocks ...lentBlock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range blocks {
		l.todo = append(l.todo, b)
		l.bytes += len(b.data) + lentHelp/16 // a DEK costs about as much as sealing so much
	}
	for l.helpers < lentHelpers && l.bytes >= lentHelp+l.helpers*lentMore {
		select {
		case l.t.common.helpers <- struct{}{}:
		default:
			return
		}
		l.helpers++
		go l.help()
	}
}

func (l *Lent) help() {
	sc := l.t.common.scratch.Get().(*scratch)
	for l.step(sc) {
	}
	l.t.giveBack(sc)
	<-l.t.common.helpers
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.helpers--; l.helpers == 0 {
		select {
		case l.idle <- struct{}{}:
		default:
		}
	}
}

// finish seals what is left to be sealed, and waits for the helpers.
func (l *Lent) finish(ctx context.Context) error {
	sc := l.t.common.scratch.Get().(*scratch)
	for ctx.Err() == nil && l.step(sc) {
	}
	l.t.giveBack(sc)
	for {
		l.mu.Lock()
		helpers := l.helpers
		l.mu.Unlock()
		if helpers == 0 {
			return ctx.Err()
		}
		select {
		case <-l.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// step seals one block, the one that was put first, and reports whether there was one.
func (l *Lent) step(sc *scratch) bool {
	l.mu.Lock()
	if len(l.todo) == 0 || l.ended || l.err != nil {
		l.mu.Unlock()
		return false
	}
	b := l.todo[0]
	l.todo[0] = lentBlock{}
	l.todo = l.todo[1:]
	l.bytes -= len(b.data) + lentHelp/16
	l.mu.Unlock()

	epoch, err := l.seal(sc, b)
	if err != nil {
		l.fail(fmt.Errorf("block %s: %w", Shown(b.id), err))
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.least = min(l.least, epoch)
	return true
}

func (l *Lent) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

func (l *Lent) seal(sc *scratch, b lentBlock) (epoch uint32, err error) {
	h, err := l.t.keys.For(inner.Block{}).AcquireSession(l.session)
	if err != nil {
		return NoEpoch, err
	}
	defer func() { h.Release() }()
	defer sc.key.Destroy() // inside of the hold
	l.t.bind(sc, b.id)
	record, err := h.NewDEK(l.ctx, sc.row.Record[:0], &sc.key, &sc.binding)
	if err != nil {
		return NoEpoch, err
	}
	sc.row.Record = record
	if len(record) != len(b.record) {
		return NoEpoch, fmt.Errorf("another process has changed how DEKs are wrapped since it was put: %w", ErrStale)
	}
	copy(b.record, record)
	return recordEpoch(record), sealBlock(sc, b.sealed, b.data)
}

// End has nothing more sealed and waits for the helpers: nobody reads what was lent, nor writes to
// the batch, when it returns. What waits for a vault is given up. To end twice does nothing.
func (l *Lent) End() {
	l.mu.Lock()
	l.ended, l.todo = true, nil
	l.mu.Unlock()
	l.fail(errors.New("the batch has ended"))
	l.cancel()
	_ = l.finish(context.Background())
	l.waiting = nil
}

// helperRoom is how many helpers the tables of an engine have.
func helperRoom() int { return min(max(runtime.GOMAXPROCS(0)-1, 0), allHelpers) }
