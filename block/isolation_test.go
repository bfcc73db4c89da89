package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// underLoad is stores of a DB that are read and written all the time, and opened and closed in between,
// because fewer may be open than there are.
type underLoad struct {
	*dbRig
	names []string
	done  []atomic.Int64 // rounds
	stop  chan struct{}
	all   sync.WaitGroup
	mu    sync.Mutex
	errs  []error
}

func (g *dbRig) startLoad(n int) *underLoad {
	l := &underLoad{dbRig: g, done: make([]atomic.Int64, n), stop: make(chan struct{})}
	for i := range n {
		l.names = append(l.names, fmt.Sprint("other ", i))
		require.NoError(g.t, g.create(l.names[i]).Close())
	}
	for i := range n {
		l.all.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-l.stop:
					return
				default:
				}
				if err := l.round(l.names[i], round); err != nil {
					l.mu.Lock()
					l.errs = append(l.errs, fmt.Errorf("%s, round %d: %w", l.names[i], round, err))
					l.mu.Unlock()
					return
				}
				l.done[i].Add(1)
			}
		})
	}
	return l
}

// round reads and writes a store.
func (l *underLoad) round(name string, round int) error {
	s, release, err := l.db.Acquire(l.ctx, name)
	if err != nil {
		return err
	}
	defer release()
	for n := range 5 {
		id, data := fmt.Appendf(nil, "%d", n), fmt.Appendf(nil, "%s %d %d", name, round, n)
		if round > 0 {
			got, err := s.Get(l.ctx, id, nil)
			if want := fmt.Sprintf("%s %d %d", name, round-1, n); err != nil || string(got) != want {
				return fmt.Errorf("got %q, want %q: %w", got, want, err)
			}
		}
		if err := s.Put(l.ctx, id, data); err != nil {
			return err
		}
	}
	n := 0
	for _, err := range s.Blocks(l.ctx, block.Range{}) {
		if err != nil {
			return err
		}
		n++
	}
	if n != 5 {
		return fmt.Errorf("it has %d blocks", n)
	}
	return nil
}

// goesOn waits until each store has been through some whole rounds from now on. The clock stands
// still: whoever waits for a vault that hangs waits for ever.
func (l *underLoad) goesOn(what string) {
	l.t.Helper()
	before := make([]int64, len(l.done))
	for i := range l.done {
		before[i] = l.done[i].Load()
	}
	require.Eventually(l.t, func() bool {
		if l.failed() != nil {
			return true
		}
		for i := range l.done {
			if l.done[i].Load() < before[i]+2 {
				return false
			}
		}
		return true
	}, 2*time.Minute, time.Millisecond, what)
	require.NoError(l.t, l.failed(), what)
}

func (l *underLoad) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}

func (l *underLoad) end() {
	l.t.Helper()
	close(l.stop)
	l.all.Wait()
	require.NoError(l.t, l.failed())
	for _, name := range l.names {
		s, release := l.acquire(name)
		require.Equal(l.t, keyring.Available, s.State().Status)
		rep, err := s.Verify(l.ctx, nil)
		require.NoError(l.t, err)
		require.Empty(l.t, rep.Problems)
		release()
	}
}

// while runs f, and has the others go on before it is over and after.
func (l *underLoad) while(what string, f func() error) {
	l.t.Helper()
	over := make(chan error, 1)
	go func() { over <- f() }()
	l.goesOn("beside: " + what)
	require.NoError(l.t, <-over, what)
	l.goesOn("after: " + what)
}

// What is done to one store of many, and what happens to it, is nothing to the others, which are read
// and written, opened and closed meanwhile: nothing of theirs fails, and none of it waits for a vault
// that hangs.
func TestStoresUnderLoadAreNobodyElses(t *testing.T) {
	g := newDBRig(t)
	g.opts.MaxOpen, g.opts.Opening = 10, 4
	g.reopen()
	victims := map[string]*block.Store{}
	for _, name := range []string{"revoked", "damaged", "lost", "erased", "rotated", "moved", "dropped", "hangs", "hangs and is dropped", "is not open"} {
		s := g.create(name)
		for n := range 20 {
			require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%02d", n), bytes.Repeat([]byte{byte(n)}, 500)))
		}
		victims[name] = s
	}
	require.NoError(t, victims["is not open"].Close())
	far := vaulttest.New(&vaulttest.Options{Name: "mem:far", Clock: g.clock})
	for n := range 6 {
		name := fmt.Sprint("far ", n)
		g.keks[name] = kek.New(far, far.CreateKey(fmt.Sprint("far-", n)).Versionless())
		require.NoError(t, g.create(name).Close())
	}
	l := g.startLoad(15)
	l.goesOn("at first")

	// First of all vaults hang, one for some of its keys and one altogether, and go on to.
	far.Inject(vaulttest.Fault{Hang: true})
	for _, name := range []string{"hangs", "hangs and is dropped", "is not open"} {
		g.vault.Inject(vaulttest.Fault{Key: g.kek(name).ID().Name, Hang: true})
	}
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	var waiting sync.WaitGroup
	wait := func(f func(ctx context.Context) error) {
		waiting.Go(func() {
			if err := f(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, block.ErrClosed) {
				t.Errorf("it ended otherwise than by its context: %v", err)
			}
		})
	}
	wait(victims["hangs"].Revalidate)
	for range 3 { // one of them opens it
		wait(func(ctx context.Context) error { return second3(g.db.Acquire(ctx, "is not open")) })
	}
	for n := range 6 {
		wait(func(ctx context.Context) error { return second3(g.db.Acquire(ctx, fmt.Sprint("far ", n))) })
	}
	require.Eventually(t, func() bool { return g.vault.Waiting() >= 2 && far.Waiting() >= 2 }, time.Minute, time.Millisecond)
	l.goesOn("vaults hang")

	l.while("one is revoked", func() error {
		g.vault.SetEnabled(g.kek("revoked").ID(), false)
		if err := victims["revoked"].Revalidate(g.ctx); !errors.Is(err, vault.ErrKeyDisabled) {
			return fmt.Errorf("want a refusal, got %w", err)
		}
		_, err := victims["revoked"].Get(g.ctx, []byte("01"), nil)
		if !errors.Is(err, block.ErrInaccessible) {
			return fmt.Errorf("it is served: %w", err)
		}
		return nil
	})
	l.while("the records of one are damaged", func() error {
		victims["damaged"].DamageRecords()
		_, err := victims["damaged"].Verify(g.ctx, nil)
		if !errors.Is(err, block.ErrCorrupt) {
			return fmt.Errorf("want damage, got %w", err)
		}
		return nil
	})
	l.while("the document of one is lost", func() error {
		if err := victims["lost"].Close(); err != nil {
			return err
		}
		g.db.DamageDocument(t, "lost")
		if _, _, err := g.db.Acquire(g.ctx, "lost"); !errors.Is(err, block.ErrCorrupt) {
			return fmt.Errorf("want damage, got %w", err)
		}
		bad := 0
		for in, err := range g.db.Stores(g.ctx) {
			switch {
			case err != nil && in.Name == "lost":
				bad++
			case err != nil:
				return err
			}
		}
		if bad != 1 {
			return errors.New("the list does not say which one is damaged")
		}
		return nil
	})
	l.while("one is erased", func() error { return second(victims["erased"].Erase(g.ctx, nil)) })
	l.while("one is rotated", func() error {
		s := victims["rotated"]
		g.vault.Rotate(g.kek("rotated").ID().Name)
		return errors.Join(s.RotateKEK(g.ctx), s.RotateEpoch(g.ctx, nil), s.Rekey(g.ctx, block.Range{}, nil))
	})
	l.while("one is moved away", func() error {
		if _, err := g.db.Export(g.ctx, "moved", io.Discard); err != nil {
			return err
		}
		return second(g.db.Drop(g.ctx, "moved"))
	})
	l.while("one is dropped", func() error { return second(g.db.Drop(g.ctx, "dropped")) })
	l.while("damaged ones are dropped", func() error {
		return errors.Join(second(g.db.Drop(g.ctx, "damaged")), second(g.db.Drop(g.ctx, "lost")), second(g.db.Drop(g.ctx, "revoked")))
	})
	l.while("another one is made, and all are copied", func() error {
		s, err := g.db.Create(g.ctx, "new", g.kek("new"), &g.store)
		if err != nil {
			return err
		}
		return errors.Join(s.Put(g.ctx, []byte("id"), nil), g.db.Checkpoint(g.ctx, "copy"), s.Close())
	})

	// One whose vault hangs is dropped: asking which of its keys still exist takes the vault's time,
	// and it is the store's own.
	dropped := make(chan error, 1)
	go func() { dropped <- second(g.db.Drop(g.ctx, "hangs and is dropped")) }()
	require.Eventually(t, func() bool { return g.vault.Waiting() >= 3 }, time.Minute, time.Millisecond)
	l.goesOn("the vault of one that is dropped hangs")
	cancel()
	waiting.Wait()
	for over := false; !over; {
		select {
		case err := <-dropped:
			require.NoError(t, err)
			over = true
		default:
			g.clock.Advance(4 * time.Second)
			l.goesOn("time goes on")
		}
	}
	l.end()
	names := g.names()
	for _, gone := range []string{"moved", "dropped", "damaged", "lost", "revoked", "hangs and is dropped"} {
		require.NotContains(t, names, gone)
	}
	require.Len(t, g.receipts(), 6)
	require.True(t, slices.Contains(names, "hangs"))
}

func second3[T, U any](_ T, _ U, err error) error { return err }
