package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/block"
)

// report is what a process says of itself. A process knows its own state and nobody else's: whether
// another one has locked, only that one can say.
type report struct {
	PID        int    `json:"pid"`
	State      string `json:"state"`
	Ops        uint64 `json:"ops"`     // writes and reads that succeeded
	Refused    uint64 `json:"refused"` // that were refused because the store is locked
	Errors     uint64 `json:"errors"`  // everything else that failed, and each block that was not as it was written
	Acked      int    `json:"acked"`   // the last write that succeeded
	Epoch      uint32 `json:"epoch"`
	Generation uint64 `json:"generation"` // of the keyring document that it has
	Calls      uint64 `json:"calls"`      // to the vault
	Failed     string `json:"failed,omitempty"`
}

// ids is how many blocks each process writes, over and over.
const ids = 50

// worker is the load of one process: it writes its own blocks and reads what it has written.
type worker struct {
	name  string
	store *block.Store

	ops, refused, errors atomic.Uint64
	acked                atomic.Int64

	mu     sync.Mutex
	failed string // the last of the errors
}

func blockID(name string, n int) []byte { return fmt.Appendf(nil, "%s/%02d", name, n%ids) }

// load writes and reads until ctx ends.
func (w *worker) load(ctx context.Context) {
	w.acked.Store(-1)
	for n := 0; ctx.Err() == nil; n++ {
		id := blockID(w.name, n)
		err := w.store.Put(ctx, id, []byte(strconv.Itoa(n)))
		if err == nil {
			w.ops.Add(1)
			w.acked.Store(int64(n))
			var got []byte
			if got, err = w.store.Get(ctx, id, nil); err == nil && string(got) != strconv.Itoa(n) {
				err = fmt.Errorf("block %s is %q, and %d was written", id, got, n)
			}
		}
		switch {
		case err == nil:
			w.ops.Add(1)
		case ctx.Err() != nil:
		case errors.Is(err, block.ErrInaccessible):
			w.refused.Add(1)
		default:
			w.errors.Add(1)
			w.mu.Lock()
			w.failed = err.Error()
			w.mu.Unlock()
		}
		select {
		case <-time.After(2 * time.Millisecond): // others want to use the server as well
		case <-ctx.Done():
		}
	}
}

func (w *worker) report() report {
	st := w.store.State()
	c := w.store.VaultCalls()
	w.mu.Lock()
	defer w.mu.Unlock()
	return report{PID: os.Getpid(), State: st.Status.String(), Ops: w.ops.Load(), Refused: w.refused.Load(), Errors: w.errors.Load(),
		Acked: int(w.acked.Load()), Epoch: st.Epoch, Generation: st.Generation, Calls: c.Get + c.Wrap + c.Unwrap, Failed: w.failed}
}

// check reads the blocks of a process, which may be gone, and fails if one is older than the write
// that succeeded last for it.
func (w *worker) check(ctx context.Context, name string, acked int) error {
	for n := max(0, acked-ids+1); n <= acked; n++ {
		got, err := w.store.Get(ctx, blockID(name, n), nil)
		if err != nil {
			return err
		}
		if is, err := strconv.Atoi(string(got)); err != nil || is < n {
			return fmt.Errorf("block %s is %q, and %d was written before", blockID(name, n), got, n)
		}
	}
	return nil
}

// obey does what is asked line by line, and answers each with a line: a report, or an error.
func (w *worker) obey(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		word := strings.Fields(lines.Text())
		var err error
		switch {
		case len(word) == 1 && word[0] == "report":
		case len(word) == 1 && word[0] == "epoch":
			err = w.store.RotateEpoch(ctx, nil)
		case len(word) == 1 && word[0] == "kek":
			err = w.store.RotateKEK(ctx)
		case len(word) == 1 && word[0] == "deks":
			err = w.store.Rekey(ctx, block.Range{}, nil)
		case len(word) == 1 && word[0] == "hang": // in a rotation: it answers, keeps its turn, and never goes on
			err = w.store.Rekey(ctx, block.Range{}, func(block.Step) {
				_ = json.NewEncoder(out).Encode(answer{Report: w.report()})
				select {}
			})
		case len(word) == 3 && word[0] == "check":
			var acked int
			if acked, err = strconv.Atoi(word[2]); err == nil {
				err = w.check(ctx, word[1], acked)
			}
		case len(word) == 1 && word[0] == "verify":
			var r block.Report
			if r, err = w.store.Verify(ctx, nil); err == nil && len(r.Problems) > 0 {
				err = fmt.Errorf("%d blocks are damaged", len(r.Problems))
			}
		default:
			err = fmt.Errorf("what is %q?", lines.Text())
		}
		a := answer{Report: w.report()}
		if err != nil {
			a.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

type answer struct {
	Report report `json:"report"`
	Error  string `json:"error,omitempty"`
}

// work is the main function of a process of the fleet, which ends when its standard input does: when it
// is told to, and also when whoever started it is gone.
func work(ctx context.Context, name string, p place, in io.Reader, out io.Writer) (err error) {
	s, err := openService(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	w := &worker{name: name, store: s.store}
	loading, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	load.Go(func() { w.load(loading) })
	err = w.obey(ctx, in, out)
	stop()
	load.Wait()
	return err
}
