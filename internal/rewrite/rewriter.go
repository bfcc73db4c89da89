// Package rewrite replaces the DEK records of a store, and its blocks, while the store serves:
//
//	RotateEpoch   every record is wrapped under a new epoch      no block, no vault call
//	Rekey         every block of a range gets a fresh DEK        blocks and records
//	Renew         blocks get a fresh DEK whose DEK is too old    as Rekey, by itself
//	RewrapDEKs    records move to the present KEK (ByKEK)        no block, three vault calls each
//
// Each operation walks the rows in order, in short steps ([Rewriter.walk]). It prepares what is to
// replace a record, or a row, and has the engine replace it if the row still has the record that
// was read: writers always win.
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

const (
	WorkRotateEpoch = "rotate_epoch"
	WorkRekey       = "rekey"
	WorkRewrap      = "rewrap_deks"
)

// Rewriter rewrites a store, one operation at a time. It is safe for concurrent use.
type Rewriter struct {
	Config
	Budget *Budget
	Steps  Steps

	turn      chan struct{} // full while an operation has the turn
	giveBack  func()        // the engine's turn, which is between processes; nil: it has none. Guarded by the turn
	rotations uint64        // RotateEpoch calls; guarded by the turn
	aged      uint32        // the epoch up to which dek-age is known to reach; guarded by the turn
}

// Config configures a Rewriter.
type Config struct {
	Table *row.Table
	Use   *row.Use
	Keys  *keyring.Keyring
	Board *progress.Board
	Ctx   context.Context // ends when the store begins to close
	// MayWrite refuses to write to a store that is read only or was not proven.
	MayWrite    func(context.Context, *keyring.Hold) error
	Wrote       func() // is called after each write of a meta record
	ReadOnly    bool
	VaultRate   int   // most vault calls in 10 seconds
	RewriteRate int64 // most bytes of blocks in a second; 0: no bound
}

// New returns a rewriter.
func New(c Config) *Rewriter {
	return &Rewriter{Config: c, Budget: newBudget(c.Keys, c.VaultRate), Steps: defaultSteps(), turn: make(chan struct{}, 1)}
}

// Steps says how a long rewriting operation is divided.
type Steps struct {
	// Records is how many records a step replaces: the gate is shut for a few hundred microseconds.
	Records int
	Bytes   int // of plaintext that a step seals anew, at most
	Mark    int // steps between two markers
}

func defaultSteps() Steps { return Steps{Records: 128, Bytes: 1 << 20, Mark: 64} }

// AcquireTurn waits for the turn of rewriting operations; the caller releases it with ReleaseTurn.
// what names the operation in an error.
func (w *Rewriter) AcquireTurn(ctx context.Context, what string) error {
	if w.ReadOnly {
		return fmt.Errorf("block: %s: %w", what, keyring.ErrReadOnly)
	}
	if w.Ctx.Err() != nil {
		return fmt.Errorf("block: %s: %w", what, keyring.ErrClosed)
	}
	if err := w.acquireTurn(ctx); err != nil {
		return fmt.Errorf("block: %s: %w", what, err)
	}
	if err := w.acquireShared(ctx); err != nil {
		<-w.turn
		return fmt.Errorf("block: %s: %w", what, err)
	}
	return nil
}

func (w *Rewriter) acquireTurn(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		return nil
	default:
	}
	if err := w.refuseFromProgress(); err != nil {
		return err
	}
	select {
	case w.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.Ctx.Done():
		return keyring.ErrClosed
	}
}

// acquireShared waits for the turn among the processes that have the store's engine, if others may
// have it, and takes up what they have saved: what a rewriting operation writes nobody judges.
func (w *Rewriter) acquireShared(ctx context.Context) error {
	t, ok := w.Table.Part.(engine.Turner)
	if !ok {
		return nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.Ctx, cancel)()
	giveBack, err := t.Turn(waiting)
	if err != nil {
		if ctx.Err() == nil && w.Ctx.Err() != nil {
			return keyring.ErrClosed
		}
		return err
	}
	h, err := w.Keys.Acquire()
	if err == nil {
		err = h.For(inner.Block{}).Reload(ctx)
		h.Release()
		if err != nil {
			giveBack()
			return err
		}
	} // else the operation finds no keys either, or those of a document that was loaded since
	w.giveBack = giveBack
	return nil
}

// ReleaseTurn hands the turn to the next operation.
func (w *Rewriter) ReleaseTurn() {
	if w.giveBack != nil {
		w.giveBack()
		w.giveBack = nil
	}
	<-w.turn
}

// errFromProgress is returned to who would wait for itself.
var errFromProgress = errors.New("it was called by the Progress of an operation that has the turn of rewriting operations and waits for Progress to return")

// refuseFromProgress returns errFromProgress if the calling goroutine runs the Progress of an
// operation that has the turn. The caller has found the turn in use. A goroutine has no name but a
// stack; searching it costs some microseconds, and is done only while a Progress of this store
// runs.
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

// pace waits until a step has lasted as long as RewriteRate and, with ByKEK, VaultRate require.
func (w *Rewriter) pace(ctx context.Context, c cost) error {
	if w.Keys.Wrapping() == keyring.ByKEK && c.blocks > 0 {
		if err := w.Budget.Wait(ctx, callsPerRewrap*int(c.blocks)); err != nil {
			return err
		}
	}
	if w.RewriteRate <= 0 || c.bytes == 0 {
		return ctx.Err()
	}
	return w.Keys.For(inner.Block{}).Sleep(ctx, time.Duration(float64(c.bytes)/float64(w.RewriteRate)*float64(time.Second)))
}

type replacement struct {
	w     *Rewriter
	batch engine.Batch
	was   []engine.Was // the rows as they were read
	bytes int
}

func (w *Rewriter) replacement() *replacement {
	return &replacement{w: w, batch: w.Table.Part.NewBatch()}
}

func (r *replacement) putRecord(was engine.Was, record []byte) error {
	r.was = append(r.was, was)
	return r.batch.PutRecord(was.ID, record)
}

func (r *replacement) putBlock(ctx context.Context, h *keyring.Hold, was engine.Was, data []byte) error {
	if err := r.w.Table.Reseal(ctx, h, r.batch, was.ID, data); err != nil {
		return err
	}
	r.was = append(r.was, was)
	r.bytes += len(data)
	return nil
}

func (r *replacement) full() bool {
	return len(r.was) >= r.w.Steps.Records || r.bytes >= r.w.Steps.Bytes
}

// commit applies what was collected, except for rows that somebody else has written. It is not
// durable yet.
func (r *replacement) commit(ctx context.Context) error {
	if len(r.was) == 0 {
		return nil
	}
	_, err := r.w.Table.Replace(ctx, r.batch, r.was)
	return err
}

// Close implements [io.Closer] for [row.Use.CloseAll].
func (r *replacement) Close() error { return r.batch.Close() }
