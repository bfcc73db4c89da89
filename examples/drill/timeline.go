package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// timeline is how time passes in a drill.
type timeline interface {
	// prepare fits the options of a store that is about to be opened, and opened is
	// told when it is.
	prepare(v *vaulttest.Vault, o *keyring.Options)
	opened(s *block.Store)
	now() time.Time
	// until lets time pass until cond holds, for at most limit, and reports whether
	// it does.
	until(ctx context.Context, limit time.Duration, cond func() bool) (bool, error)
	// slack is how much longer than promised something may take: what the clock
	// cannot resolve, and what the machine needs besides waiting.
	slack() time.Duration
	String() string
}

// realTime is the wall clock.
type realTime struct{}

func (realTime) prepare(*vaulttest.Vault, *keyring.Options) {}
func (realTime) opened(*block.Store)                        {}
func (realTime) now() time.Time                             { return time.Now() }
func (realTime) slack() time.Duration                       { return 2 * time.Second }
func (realTime) String() string                             { return "the wall clock" }

func (realTime) until(ctx context.Context, limit time.Duration, cond func() bool) (bool, error) {
	for end := time.Now().Add(limit); !cond(); {
		if time.Now().After(end) {
			return false, nil
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return false, err
		}
	}
	return true, nil
}

// simulation is a clock that the drill moves, in steps of a thirtieth of the time
// between checks. The load runs on in real time meanwhile; and a check is not
// stretched over simulated time that it did not take, because a step waits for it.
type simulation struct {
	clock *vaulttest.Clock
	check time.Duration
	step  time.Duration

	vault   *vaulttest.Vault
	store   *block.Store
	settled atomic.Int64  // GetKey calls when the last check ended; each begins with one
	begun   int           // GetKey calls seen
	begunAt time.Duration // when the last was seen
}

func newSimulation(check time.Duration) *simulation {
	return &simulation{clock: vaulttest.NewClock(time.Now().UTC().Truncate(time.Second)), check: check, step: check / 30}
}

func (s *simulation) prepare(v *vaulttest.Vault, o *keyring.Options) {
	s.vault = v
	o.Clock = s.clock
	o.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.CheckSucceeded || e.Kind == keyring.CheckFailed {
			s.settled.Store(int64(v.Calls().Get))
		}
	}
}

// opened does not count as a check what opening the store asked the vault.
func (s *simulation) opened(store *block.Store) {
	s.store = store
	s.begun, s.begunAt = s.vault.Calls().Get, s.clock.Elapsed()
	s.settled.Store(int64(s.begun))
}

func (s *simulation) now() time.Time       { return s.clock.Now() }
func (s *simulation) slack() time.Duration { return 2 * s.step }
func (s *simulation) String() string       { return "a simulated clock" }

func (s *simulation) until(ctx context.Context, limit time.Duration, cond func() bool) (bool, error) {
	for end := s.clock.Elapsed() + limit; !cond(); {
		if s.clock.Elapsed() >= end {
			return false, nil
		}
		s.clock.Advance(s.step)
		if err := s.settle(ctx); err != nil {
			return false, err
		}
	}
	return true, nil
}

// settle waits until the checks that the last step brought about are over and
// have taken effect.
func (s *simulation) settle(ctx context.Context) error {
	// Time for a check that has just become due to begin. If that is too little,
	// it is noticed a step later, or as overdue.
	err := sleep(ctx, 200*time.Microsecond)
	for end := time.Now().Add(time.Minute); err == nil; err = sleep(ctx, 100*time.Microsecond) {
		calls := s.vault.Calls().Get
		if calls > s.begun {
			s.begun, s.begunAt = calls, s.clock.Elapsed()
		}
		st := s.store.State()
		busy := int64(calls) > s.settled.Load()
		overdue := s.clock.Elapsed()-s.begunAt >= s.check
		pending := st.LastCheckErr != nil && st.Status == keyring.Available
		if !busy && !overdue && !pending {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the store did not check its key for a minute of real time")
		}
	}
	return err
}

// sleep waits in real time.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drill: %w", ctx.Err())
	}
}
