package keyring

import (
	"context"
	"crypto/rand"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/spread"
	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// An operation is counted before it looks for the session. A lock that comes between the
// two waits for it, and it finds no session: it never has a hold of keys that are being
// destroyed. Acquire is nothing but the two steps.
func TestCountedBeforeTheSessionIsLookedAt(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r, _ := newInside(t, nil)
		c := r.count()
		locked := make(chan struct{})
		go func() {
			r.lock(nil, errUnchecked)
			close(locked)
		}()
		time.Sleep(time.Second) // of the bubble: until everybody waits
		select {
		case <-locked:
			t.Fatal("it locked while an operation was counted")
		default:
		}
		_, err := r.look(c)
		require.ErrorIs(t, err, ErrInaccessible)
		<-locked
	})
}

// stoppingClock is a clock that stops who asks for the time elapsed next.
type stoppingClock struct {
	vault.Clock
	next atomic.Pointer[stop]
}

type stop struct{ there, on chan struct{} }

func (c *stoppingClock) Elapsed() time.Duration {
	if s := c.next.Swap(nil); s != nil {
		close(s.there)
		<-s.on
	}
	return c.Clock.Elapsed()
}

// Acquire takes the two steps in that order. It is stopped between them; a lock takes the
// session away and waits for what is counted; and Acquire, when it goes on, has no hold to
// give. One that had looked at the session before would give one of a session that has ended,
// and, had it been stopped before the count, of keys that were destroyed.
func TestAcquireLooksAtTheSessionLast(t *testing.T) {
	bubbles.Test(t, func(t *testing.T) {
		r, _ := newInside(t, nil)
		clock := &stoppingClock{Clock: r.clock}
		r.clock = clock
		s := &stop{make(chan struct{}), make(chan struct{})}
		clock.next.Store(s)
		acquired := make(chan error, 1)
		go func() {
			h, err := r.Acquire()
			if err == nil {
				h.Release()
			}
			acquired <- err
		}()
		<-s.there
		locked := make(chan struct{})
		go func() {
			r.lock(nil, errUnchecked)
			close(locked)
		}()
		time.Sleep(time.Second) // of the bubble: until everybody waits
		taken, early := r.session.Load() == nil, false
		select {
		case <-locked:
			early = true
		default:
		}
		close(s.on)
		err := <-acquired
		<-locked
		require.True(t, taken, "the lock has taken the session away")
		require.False(t, early, "it locked while an operation was counted")
		require.ErrorIs(t, err, ErrInaccessible)
	})
}

// watchedSave looks at the keyring while it is asked to save.
type watchedSave struct {
	MemStorage
	look func()
}

func (w *watchedSave) Swap(ctx context.Context, was Revision, document []byte) (Revision, error) {
	if w.look != nil {
		w.look()
	}
	return w.MemStorage.Swap(ctx, was, document)
}

// A keyring that is locked and moves to a successor has no hold, for which Close would wait:
// it has the turn that Close takes while it saves, and saves nothing once it is closed.
func TestNothingIsSavedAfterClose(t *testing.T) {
	clock := vaulttest.NewClock(goldenStart)
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("k")
	var storage watchedSave
	r, err := Create(t.Context(), &storage, kek.New(v, id.Versionless()), &Options{Clock: clock})
	require.NoError(t, err)
	defer r.Close()
	v.SetDates(id, time.Time{}, clock.Now())
	require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrKeyExpired)
	clock.Step(time.Minute)
	newest := v.Rotate("k")
	saves, free := 0, 0
	storage.look = func() {
		saves++
		if r.turn.TryLock() {
			r.turn.Unlock()
			free++
		}
	}
	require.NoError(t, r.Revalidate(t.Context()))
	require.Equal(t, newest, r.State().KEK)
	require.Equal(t, 1, saves)
	require.Zero(t, free, "Close could have come to its end meanwhile")
	storage.look = nil

	// It is closed between the last answer of the vault and the save.
	v.SetDates(newest, time.Time{}, clock.Now())
	require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrKeyExpired)
	clock.Step(time.Minute)
	v.Rotate("k")
	r.opts.For(inner.Block{}).Admit = func(inner.Opened) error { return r.Close() }
	storage.look = func() { t.Error("it saved after Close") }
	require.ErrorIs(t, r.Revalidate(t.Context()), ErrClosed)
}

// Counters of which always one is not at zero, because operations that are refused come
// and go, hold up no lock: what was at zero once, after the session was taken away, has
// nothing to say any more.
func TestDrainWaitsForEachCounterOnce(t *testing.T) {
	r := &Keyring{inFlight: spread.New[inner.InFlight](), cold: new(cold)}
	var over atomic.Bool
	stopped := make(chan struct{})
	lines := slices.Collect(r.inFlight.All())
	a, b := lines[3], lines[20]
	a.N.Add(1)
	go func() {
		defer close(stopped)
		for !over.Load() {
			for _, step := range [][2]*inner.InFlight{{b, a}, {a, b}} {
				step[0].N.Add(1)
				step[1].N.Add(-1)
				runtime.Gosched()
			}
		}
	}()
	r.drain(&session{})
	over.Store(true)
	<-stopped
}

// newInside is a keyring on a vault in memory and a clock that stands still.
func newInside(t *testing.T, o *Options) (*Keyring, *vaulttest.Vault) {
	rand.Read(make([]byte, 1)) // as in bubble, for bubbles
	if o == nil {
		o = &Options{}
	}
	clock := vaulttest.NewClock(goldenStart)
	o.Clock = clock
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	r, err := Create(t.Context(), &MemStorage{}, kek.New(v, v.CreateKey("k")), o)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r, v
}

// A lock does not wait for a vault, not even for a client that ignores its context, but
// for the operation that asked: until that has let go of the DEK it had in hand.
func TestLockWaitsForOperationsAtTheVault(t *testing.T) {
	for name, begin := range map[string]func(h *Hold, k *dek.Key, record []byte, b *Binding) error{
		"wrap": func(h *Hold, k *dek.Key, _ []byte, b *Binding) error {
			_, err := h.NewDEK(context.Background(), nil, k, b)
			return err
		},
		"unwrap": func(h *Hold, k *dek.Key, record []byte, b *Binding) error {
			return h.OpenDEK(context.Background(), k, record, b)
		},
	} {
		for how, fault := range map[string]vaulttest.Fault{"hangs": {Hang: true, Times: 1}, "stuck": {Stuck: true, Times: 1}} {
			t.Run(name+"/"+how, func(t *testing.T) {
				bubbles.Test(t, func(t *testing.T) {
					r, v := newInside(t, &Options{Wrapping: ByKEK, DEKCache: -1})
					var b Binding
					b.Set([]byte("id"))
					_, record, err := r.NewDEK(t.Context(), []byte("id"))
					require.NoError(t, err)
					defer v.Inject(fault)()

					var k dek.Key
					var came error
					back, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
					go func() {
						defer close(ended)
						h, err := r.Acquire()
						if err != nil {
							panic(err)
						}
						came = begin(&h, &k, record, &b)
						close(back)
						<-release
						h.Release()
					}()
					synctest.Wait()
					require.Equal(t, 1, v.Waiting())

					v.SetEnabled(r.State().KEK, false)
					checked := make(chan error, 1)
					go func() { checked <- r.Revalidate(context.Background()) }()
					<-back
					require.ErrorIs(t, came, ErrInaccessible)
					require.ErrorIs(t, came, vault.ErrKeyDisabled)
					require.Panics(t, func() { k.Seal(nil, nil, nil) }, "the operation's DEK is destroyed")
					time.Sleep(time.Second) // of the bubble
					require.Empty(t, checked, "the operation has not ended")
					require.NotEqual(t, Inaccessible, r.State().Status)
					close(release)
					require.ErrorIs(t, <-checked, vault.ErrKeyDisabled)
					require.Equal(t, Inaccessible, r.State().Status)
					<-ended
					for c := range r.inFlight.All() {
						require.Zero(t, c.N.Load())
					}
				})
			})
		}
	}
}

// live reports whether an epoch's key is there.
func live(e *epoch) (yes bool) {
	defer func() { yes = recover() == nil }()
	e.aead.Seal(nil, nil, nil)
	return
}

// The end of a session destroys every epoch key that it ever had: those in use, those
// that were dropped and are pinned, and those that nobody finds any more but that could
// not be destroyed, because there was always an operation in flight.
func TestEveryEpochKeyIsDestroyed(t *testing.T) {
	r, _ := newInside(t, nil)
	ctx := t.Context()
	for range 3 {
		require.NoError(t, r.BeginEpoch(ctx))
	}
	s := r.session.Load()
	all := s.epochs.Load().all
	require.Len(t, all, 4)
	pinned, err := r.Acquire()
	require.NoError(t, err)
	unpin := pinned.Pin()
	pinned.Release()
	_, err = r.For(inner.Block{}).DropEpochs(ctx, 2)
	require.NoError(t, err)
	require.True(t, live(all[0]), "it is pinned")

	// The second look at what is in flight finds something.
	gone := []*epoch{all[1]}
	s.pinMu.Lock()
	s.unfound = append(s.unfound, gone...)
	s.epochs.Store(&epochSet{all: all[2:], current: all[3]})
	s.pinMu.Unlock()
	h, err := r.Acquire()
	require.NoError(t, err)
	require.False(t, r.eraseUnfound(s, gone, 0))
	require.True(t, live(all[1]), "an operation in flight may be using it")
	h.Release()

	r.lock(nil, errUnchecked)
	for i, e := range all {
		require.False(t, live(e), "epoch %d", i+1)
	}
	require.Equal(t, [secretSize]byte{}, s.secret)
	unpin()
	require.True(t, r.eraseUnfound(s, gone, time.Hour), "there is nothing left to do")
}

// What is opened of a document, to be changed or read, is overwritten when it is done
// with.
func TestBodyIsOverwritten(t *testing.T) {
	b := newBody(policy{wrapping: ByKeyring, maxDEKs: 1}, goldenStart)
	b.addEpoch(goldenStart)
	before := b.epochs
	b.addEpoch(goldenStart)
	for _, e := range before {
		require.Equal(t, [dek.Size]byte{}, e.key, "growing leaves no copy")
	}
	for _, e := range b.epochs {
		require.NotEqual(t, [dek.Size]byte{}, e.key)
	}
	b.destroy()
	require.Equal(t, [storeSecretSize]byte{}, b.storeSecret)
	for _, e := range b.epochs {
		require.Equal(t, [dek.Size]byte{}, e.key)
	}
}
