package block_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// load is goroutines that read and write a store while it is locked and unlocked.
type load struct {
	t    *testing.T
	s    *block.Store
	stop atomic.Bool
	wg   sync.WaitGroup

	// unlocks is counted up before the vault relents and when the store is back, so
	// that it is odd in between. An operation that began when it was even and the
	// state said Inaccessible, and ended when it was the same, was not allowed to
	// do anything.
	unlocks atomic.Int64
	refused []*atomic.Int64 // operations that were, by worker

	mu    sync.Mutex
	acked map[string]bool
}

// dataOf is the content of the block with a given id.
func dataOf(id string) []byte { return bytes.Repeat([]byte(id+"|"), 10+len(id)%7*40) }

func (l *load) ack(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.acked[id] = true
	}
}

// some returns up to n ids of blocks that are there.
func (l *load) some(n int) (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.acked {
		if len(ids) == n {
			break
		}
		ids = append(ids, id)
	}
	return ids
}

// worker runs op, which reports whether something was read or acknowledged, over and
// over. Its error must be one that says Inaccessible and why.
func (l *load) worker(op func(n int) (did bool, err error)) {
	me, refused := len(l.refused), new(atomic.Int64)
	l.refused = append(l.refused, refused)
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		for n := 0; !l.stop.Load(); n++ {
			unlocks := l.unlocks.Load()
			locked := l.s.State().Status == keyring.Inaccessible
			did, err := op(n)
			if err != nil && (!errors.Is(err, block.ErrInaccessible) || vault.Kind(err) == nil) && !wasOvertaken(err) {
				l.t.Errorf("worker %d: %v", me, err)
				return
			}
			if did && locked && unlocks%2 == 0 && l.unlocks.Load() == unlocks {
				l.t.Errorf("worker %d read or wrote when the state had said Inaccessible", me)
				return
			}
			if err != nil {
				refused.Add(1)
				runtime.Gosched()
			}
		}
	}()
}

// wasOvertaken reports whether a write failed because a save of the keyring's that it waited for
// was under way when the test moved the clock past the time that a storage has.
func wasOvertaken(err error) bool {
	return strings.Contains(err.Error(), "the storage did not answer within 10s")
}

// start starts workers of every kind.
func (l *load) start(g *rig) {
	ctx, s := g.ctx, l.s
	put := func(me int) func(int) (bool, error) {
		return func(n int) (bool, error) {
			id := fmt.Sprintf("put %d %06d", me, n)
			err := s.Put(ctx, []byte(id), dataOf(id))
			if err == nil {
				l.ack(id)
			}
			return err == nil, err
		}
	}
	batch := func(n int) (bool, error) {
		b := s.NewBatch()
		defer b.Close()
		var ids []string
		for i := range 3 {
			id := fmt.Sprintf("batch %06d %d", n, i)
			if err := b.Put(ctx, []byte(id), dataOf(id)); err != nil {
				return false, err
			}
			ids = append(ids, id)
		}
		if err := b.Commit(ctx); err != nil {
			return false, err
		}
		l.ack(ids...)
		return true, nil
	}
	get := func(int) (did bool, err error) {
		for _, id := range l.some(1) {
			got, err := s.Get(ctx, []byte(id), nil)
			if err != nil {
				return len(got) > 0, err
			}
			if did = true; !bytes.Equal(got, dataOf(id)) {
				l.t.Errorf("%s: a wrong block of %d bytes", id, len(got))
			}
		}
		return did, nil
	}
	scan := func(n int) (did bool, err error) {
		blocks := s.Blocks(ctx, block.Range{})
		if n%2 == 0 {
			snap := s.Snapshot()
			defer snap.Close()
			blocks = snap.Blocks(ctx, block.Range{Start: []byte("put")})
		}
		seen := 0
		for b, err := range blocks {
			if err != nil {
				return did, err
			}
			if did = true; !bytes.Equal(b.Data, dataOf(string(b.ID))) {
				l.t.Errorf("%s: a wrong block of %d bytes", b.ID, len(b.Data))
			}
			if seen++; seen == 50 {
				break
			}
		}
		return did, nil
	}
	for _, op := range []func(int) (bool, error){put(0), put(1), batch, get, get, scan} {
		l.worker(op)
	}
}

// everyoneWasRefused waits until every worker was refused something since the call.
func (l *load) everyoneWasRefused() {
	for i := range l.refused {
		for was := l.refused[i].Load(); l.refused[i].Load() < was+2 && !l.t.Failed(); {
			time.Sleep(10 * time.Microsecond)
		}
	}
}

// someAreAcknowledged waits until the workers have been acknowledged so many blocks
// since the call, however little of the machine they get.
func (l *load) someAreAcknowledged(n int) {
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	for was := count(); count() < was+n && !l.t.Failed(); {
		time.Sleep(10 * time.Microsecond)
	}
}
