package keyring_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// hungSwap is a storage whose Swap waits for as long as its context allows, as a file's for the
// lock of a process that was stopped.
type hungSwap struct {
	keyring.Storage
	hang bool
}

func (s *hungSwap) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if s.hang {
		<-ctx.Done()
		return "", ctx.Err()
	}
	return s.Storage.Swap(ctx, was, document)
}

// However many changes wait for the storage, a check does not wait with them, and the vault's no
// locks at once, which ends their waiting.
func TestSwapThatHangsHidesNoRefusal(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		s := &hungSwap{Storage: g.storage}
		r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
		require.NoError(t, err)
		defer r.Close()
		s.hang = true
		const changes = 5
		done := make(chan error, changes)
		for range changes {
			go func() { done <- r.BeginEpoch(context.Background()) }()
		}
		synctest.Wait()
		require.NoError(t, r.Revalidate(t.Context()))
		g.vault.Revoke()
		require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrAccessDenied)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		for range changes {
			require.ErrorIs(t, <-done, keyring.ErrInaccessible)
		}
		s.hang = false
		g.vault.Restore()
		require.NoError(t, r.Revalidate(t.Context()))
		require.NoError(t, r.BeginEpoch(t.Context()))
	})
}

// A change waits for the storage no longer than a call to the vault may take.
func TestSwapThatHangsIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		s := &hungSwap{Storage: g.storage}
		r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
		require.NoError(t, err)
		defer r.Close()
		s.hang = true
		done := make(chan error, 3)
		go func() { done <- r.BeginEpoch(context.Background()) }()
		go func() { done <- r.RotateKEK(context.Background()) }()
		go func() { done <- r.For(inner.Block{}).Save(context.Background()) }()
		synctest.Wait()
		g.clock.Advance(keyring.DefaultVaultTimeout)
		for range cap(done) {
			require.ErrorContains(t, <-done, "the storage did not answer within 10s")
		}
		require.Equal(t, keyring.Available, r.State().Status)
		s.hang = false
		require.NoError(t, r.BeginEpoch(t.Context()))
	})
}

// Close ends the move of a locked keyring to a successor, whose swap waits.
func TestCloseDuringAMoveThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		s := &hungSwap{Storage: g.storage}
		r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
		require.NoError(t, err)
		g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
		g.clock.Step(time.Minute)
		require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrKeyExpired)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		s.hang = true
		g.vault.Rotate("customer")
		done := make(chan error, 1)
		go func() { done <- r.Revalidate(context.Background()) }()
		synctest.Wait()
		require.NoError(t, r.Close()) // and the clock stands still
		require.ErrorIs(t, <-done, keyring.ErrClosed)
		require.Equal(t, keyring.Closed, r.State().Status)
	})
}

// Close waits for the operations in flight, also for one that saves, for as long as that may take.
func TestCloseWaitsForAChange(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		s := &slowSwap{Storage: g.storage}
		r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
		require.NoError(t, err)
		s.gate = make(chan struct{})
		rotated, closed := make(chan error, 1), make(chan error, 1)
		go func() { rotated <- r.BeginEpoch(context.Background()) }()
		synctest.Wait()
		go func() { closed <- r.Close() }()
		synctest.Wait()
		require.Empty(t, closed)
		close(s.gate)
		require.NoError(t, <-rotated)
		require.NoError(t, <-closed)
		require.EqualValues(t, 2, g.open().State().Epoch)
	})
}

// slowSwap is a storage whose Swap waits for a gate, or for its context.
type slowSwap struct {
	keyring.Storage
	gate chan struct{}
}

func (s *slowSwap) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return s.Storage.Swap(ctx, was, document)
}

// A document that is being taken up is gone with the lock, whatever Admit does with it:
// what it was given has no key any more, and nobody waits for it, neither the lock nor the check
// that brings it about.
func TestAdmitThatHangs(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, g *rig, r *keyring.Keyring){
		"closed": func(t *testing.T, _ *rig, r *keyring.Keyring) { require.NoError(t, r.Close()) },
		"locked": func(t *testing.T, g *rig, r *keyring.Keyring) {
			g.vault.Revoke()
			require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrAccessDenied)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				one := g.create()
				reading := *g
				var given inner.Opened
				hangs, out := false, make(chan struct{})
				reading.opts.For(inner.Block{}).Admit = func(o inner.Opened) error {
					if hangs {
						given = o
						<-out
					}
					return nil
				}
				other := reading.open()
				require.NoError(t, one.BeginEpoch(t.Context()))
				record := newDEK(t, one)
				hangs = true
				opened := make(chan error, 1)
				go func() {
					_, err := other.OpenDEK(context.Background(), record, []byte("id"))
					opened <- err
				}()
				synctest.Wait()
				before := given.Tag("purpose", nil)
				require.Equal(t, before, given.Tag("purpose", nil))
				end(t, g, other)
				require.NotEqual(t, before, given.Tag("purpose", nil), "its keys are there")
				require.Error(t, <-opened)
				hangs = false
				close(out)
				synctest.Wait()
				require.NotEqual(t, one.State().Generation, other.State().Generation)
			})
		})
	}
	t.Run("a check gives up", func(t *testing.T) {
		bubble(t, func(t *testing.T, g *rig) {
			one := g.create()
			reading := *g
			hangs, out := false, make(chan struct{})
			reading.opts.For(inner.Block{}).Admit = func(inner.Opened) error {
				if hangs {
					<-out
				}
				return nil
			}
			other := reading.open()
			require.NoError(t, one.BeginEpoch(t.Context()))
			hangs = true
			done := make(chan error, 1)
			go func() { done <- other.Revalidate(context.Background()) }()
			synctest.Wait()
			g.clock.Advance(keyring.DefaultVaultTimeout)
			require.ErrorContains(t, <-done, "Admit did not return within 10s")
			require.Equal(t, keyring.Degraded, other.State().Status)
			hangs = false
			close(out)
			synctest.Wait()
			require.NoError(t, other.Revalidate(t.Context()))
			require.Equal(t, one.State().Generation, other.State().Generation)
		})
	})
}

// gatedUnwrap is a vault that keeps the answer of an unwrap back, also from who waits no longer.
type gatedUnwrap struct {
	vault.Vault
	gate chan struct{} // nil: it does not
}

func (v *gatedUnwrap) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	gate := v.gate
	v.gate = nil
	got, err := v.Vault.UnwrapKey(ctx, w)
	if gate != nil {
		<-gate
	}
	return got, err
}

// A document is not opened with a secret that comes after the lock.
func TestNothingIsOpenedAfterALock(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		one := g.create()
		reading := *g
		v := &gatedUnwrap{Vault: g.vault}
		reading.kek = kek.New(v, g.kek.ID())
		admitted := 0
		reading.opts.For(inner.Block{}).Admit = func(inner.Opened) error { admitted++; return nil }
		other := reading.open()
		require.NoError(t, one.RotateKEK(t.Context()))
		require.NoError(t, one.BeginEpoch(t.Context()))
		record := newDEK(t, one)
		before, gate := admitted, make(chan struct{})
		v.gate = gate
		opened := make(chan error, 1)
		go func() {
			_, err := other.OpenDEK(context.Background(), record, []byte("id"))
			opened <- err
		}()
		synctest.Wait()
		require.Nil(t, v.gate)
		g.vault.Revoke()
		require.ErrorIs(t, other.Revalidate(t.Context()), vault.ErrAccessDenied)
		require.ErrorIs(t, <-opened, keyring.ErrInaccessible)
		close(gate)
		synctest.Wait()
		require.Equal(t, before, admitted)
	})
}

// A refusal that an operation hears while a check is under way, which was given its answers before,
// is followed by another check.
func TestRefusalDuringACheck(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		g.opts.Wrapping = keyring.ByKEK
		one := g.create()
		another := *g
		v := &gatedUnwrap{Vault: g.vault}
		another.kek = kek.New(v, g.kek.ID())
		other := another.open()
		record := newDEK(t, one)
		gate := make(chan struct{})
		v.gate = gate
		done := make(chan error, 1)
		go func() { done <- other.Revalidate(context.Background()) }()
		synctest.Wait()
		require.Nil(t, v.gate)
		g.vault.Revoke()
		_, err := other.OpenDEK(t.Context(), record, []byte("id"))
		require.ErrorIs(t, err, vault.ErrAccessDenied)
		require.Equal(t, keyring.Available, other.State().Status)
		close(gate)
		require.NoError(t, <-done)
		synctest.Wait() // and the clock stands still
		require.Equal(t, keyring.Inaccessible, other.State().Status)
		require.ErrorIs(t, other.State().Cause, vault.ErrAccessDenied)
	})
}

// suspends is a storage during whose next call the machine is suspended.
type suspends struct {
	keyring.Storage
	suspend func()
}

func (s *suspends) maybe() {
	if suspend := s.suspend; suspend != nil {
		s.suspend = nil
		suspend()
	}
}

func (s *suspends) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	s.maybe()
	return s.Storage.Load(ctx)
}

func (s *suspends) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	s.maybe()
	return s.Storage.Swap(ctx, was, document)
}

// leaping is a clock that can leap ahead, as in a suspension: its timers ring later.
type leaping struct {
	vault.Clock
	by atomic.Int64
}

func (c *leaping) Elapsed() time.Duration { return c.Clock.Elapsed() + time.Duration(c.by.Load()) }

// An operation that waited for the storage, and the lease ended meanwhile, opens and wraps nothing any
// more, also if no timer has rung yet, as after the machine was suspended.
func TestLeaseThatEndsInTheStorage(t *testing.T) {
	for name, op := range map[string]func(r *keyring.Keyring, record []byte) error{
		"OpenDEK": func(r *keyring.Keyring, record []byte) error {
			_, err := r.OpenDEK(context.Background(), record, []byte("id"))
			return err
		},
		"CheckRecord": func(r *keyring.Keyring, record []byte) error {
			h, err := r.Acquire()
			if err != nil {
				return err
			}
			defer h.Release()
			var b keyring.Binding
			b.Set([]byte("id"))
			return h.For(inner.Block{}).CheckRecord(context.Background(), record, &b)
		},
		"Rewrap": func(r *keyring.Keyring, record []byte) error {
			h, err := r.Acquire()
			if err != nil {
				return err
			}
			defer h.Release()
			var b keyring.Binding
			b.Set([]byte("id"))
			_, err = h.For(inner.Block{}).Rewrap(context.Background(), nil, record, &b)
			return err
		},
		"NewDEK": func(r *keyring.Keyring, _ []byte) error {
			_, _, err := r.NewDEK(context.Background(), []byte("id"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				one := g.create()
				s := &suspends{Storage: g.storage}
				clock := &leaping{Clock: g.opts.Clock}
				opts := g.opts
				opts.Clock, opts.ManualRevalidation = clock, true
				admitted := 0
				opts.For(inner.Block{}).Admit = func(inner.Opened) error { admitted++; return nil }
				other, err := keyring.Open(t.Context(), s, g.kek, &opts)
				require.NoError(t, err)
				defer other.Close()
				require.NoError(t, one.BeginEpoch(t.Context()))
				record := newDEK(t, one)
				before := admitted
				s.suspend = func() { clock.by.Add(int64(keyring.DefaultLease)) }
				require.ErrorIs(t, op(other, record), keyring.ErrInaccessible)
				require.Nil(t, s.suspend)
				require.Eventually(t, func() bool { return other.State().Status == keyring.Inaccessible }, time.Minute, time.Millisecond)
				require.Equal(t, before, admitted, "nor is the document opened that was found")
				require.NoError(t, other.Revalidate(t.Context()))
				require.NoError(t, op(other, record))
			})
		})
	}
}
