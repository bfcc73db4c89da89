// Package rewrite is what replaces the DEK records of a store, and its blocks, while it serves:
//
//	RotateEpoch   every record is wrapped under a new epoch      no block, no vault call
//	Rekey         every block of a range gets a fresh DEK        blocks and records
//	Renew         blocks get a fresh DEK whose DEK is too old    as Rekey, by itself
//	RewrapDEKs    records move to the KEK of now (ByKEK)         no block, three vault calls each
//
// All of them walk the rows in order, in short steps ([Rewriter.walk]). They prepare what is to
// replace a record, or a block with its record, and have the engine put it in the place of what
// was read, if that is there still: writers always win.
package rewrite

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// Names of works on the board.
const (
	WorkRotateEpoch = "rotate_epoch"
	WorkRekey       = "rekey"
	WorkRewrap      = "rewrap_deks"
)

// Rewriter rewrites a store, one operation at a time. It is safe for concurrent use.
type Rewriter struct {
	Config
	Budget *Budget // of vault calls
	Steps  Steps

	turn      chan struct{} // has something in it while an operation has the turn
	rotations uint64        // of the epoch, since it was opened; guarded by the turn
	aged      uint32        // how far dek-age is known to reach; guarded likewise
}

// Config is what a Rewriter works with.
type Config struct {
	Table *row.Table
	Use   *row.Use
	Keys  *keyring.Keyring
	Board *progress.Board
	Ctx   context.Context // ends when the store begins to close
	// MayWrite refuses changes of a store that is read only or has not shown to be whole.
	MayWrite    func(context.Context, *keyring.Hold) error
	Changed     func() // is called after each change of a meta record
	ReadOnly    bool
	VaultRate   int   // calls in 10 seconds, at the most
	RewriteRate int64 // bytes of blocks in a second, at the most; 0: no bound
}

// New returns a rewriter.
func New(c Config) *Rewriter {
	return &Rewriter{Config: c, Budget: newBudget(c.Keys, c.VaultRate), Steps: defaultSteps(), turn: make(chan struct{}, 1)}
}

// Steps is how a long rewriting operation is divided.
type Steps struct {
	// Records is how many of them are replaced at a time: a few hundred microseconds
	// during which no other change is applied.
	Records int
	Bytes   int // bounds the plaintext that is re-encrypted at a time
	Mark    int // how many steps pass between two markers
}

func defaultSteps() Steps { return Steps{Records: 128, Bytes: 1 << 20, Mark: 64} }

// TakeTurn waits for the turn of rewriting operations; GiveTurn follows. what names the
// operation in an error.
func (w *Rewriter) TakeTurn(ctx context.Context, what string) error {
	if w.ReadOnly {
		return fmt.Errorf("block: %s: %w", what, keyring.ErrReadOnly)
	}
	if w.Ctx.Err() != nil {
		return fmt.Errorf("block: %s: %w", what, keyring.ErrClosed)
	}
	select {
	case w.turn <- struct{}{}:
		return nil
	default:
	}
	if err := w.refuseFromProgress(); err != nil {
		return fmt.Errorf("block: %s: %w", what, err)
	}
	select {
	case w.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("block: %s: %w", what, ctx.Err())
	case <-w.Ctx.Done():
		return fmt.Errorf("block: %s: %w", what, keyring.ErrClosed)
	}
}

// GiveTurn gives the turn to the next operation.
func (w *Rewriter) GiveTurn() { <-w.turn }

// errFromProgress is returned instead of waiting for what cannot come.
var errFromProgress = errors.New("it was called by the Progress of an operation that has the turn of rewriting operations and waits for Progress to return")

// refuseFromProgress returns errFromProgress if the calling goroutine is that of an
// operation which has the turn, in its Progress. The caller has found the turn taken. A
// goroutine has no name to go by, but it has a stack; to look through that costs
// something, and is done only while somebody is in a Progress of this store.
func (w *Rewriter) refuseFromProgress() error {
	if !w.Board.Telling() {
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
			if strings.HasSuffix(f.Function, "/rewrite.(*Rewriter).RotateEpoch") || strings.HasSuffix(f.Function, "/rewrite.(*Rewriter).Rekey") {
				return errFromProgress
			}
		}
	}
}

// pace waits for as long as a step should have taken: at RewriteRate and, with ByKEK, at
// VaultRate.
func (w *Rewriter) pace(ctx context.Context, c cost) error {
	if w.Keys.Wrapping() == keyring.ByKEK && c.blocks > 0 {
		if err := w.Budget.Take(ctx, callsPerRewrap*int(c.blocks)); err != nil {
			return err
		}
	}
	if w.RewriteRate <= 0 || c.bytes == 0 {
		return ctx.Err()
	}
	return w.Keys.For(inner.Block{}).Sleep(ctx, time.Duration(float64(c.bytes)/float64(w.RewriteRate)*float64(time.Second)))
}

// replacement collects what is to replace records, and blocks with them, that were read
// before.
type replacement struct {
	w     *Rewriter
	batch engine.Batch
	was   []engine.Was // the records that are replaced
	bytes int
}

func (w *Rewriter) replacement() *replacement {
	return &replacement{w: w, batch: w.Table.Part.NewBatch()}
}

// record adds a record in the place of one.
func (r *replacement) record(was engine.Was, record []byte) error {
	r.was = append(r.was, was)
	return r.batch.PutRecord(was.ID, record)
}

// block adds a block under a fresh DEK in the place of the one whose record is was.
func (r *replacement) block(ctx context.Context, h *keyring.Hold, was engine.Was, data []byte) error {
	if err := r.w.Table.Reseal(ctx, h, r.batch, was.ID, data); err != nil {
		return err
	}
	r.was = append(r.was, was)
	r.bytes += len(data)
	return nil
}

// full reports whether it is time to commit.
func (r *replacement) full() bool {
	return len(r.was) >= r.w.Steps.Records || r.bytes >= r.w.Steps.Bytes
}

// commit applies what was collected, but for what somebody else has written meanwhile. It is
// not durable yet.
func (r *replacement) commit(ctx context.Context) error {
	if len(r.was) == 0 {
		return nil
	}
	_, err := r.w.Table.Replace(ctx, r.batch, r.was)
	return err
}

// Close implements [io.Closer], for [row.Use.CloseAll].
func (r *replacement) Close() error { return r.batch.Close() }
