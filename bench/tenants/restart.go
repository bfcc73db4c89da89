package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/vault"
)

// restart is what happens to a DB that was just opened, whose stores are asked for one after the
// other, in a second.
type restart struct {
	Asked    int           `json:"asked"`    // stores, each by one Get
	Delay    time.Duration `json:"delay"`    // what the vault takes for a call
	Calls    int           `json:"calls"`    // to the vault
	Most     int           `json:"most"`     // calls in any 10 seconds
	AtOnce   int           `json:"atOnce"`   // calls that the vault had at once, at the most
	Median   time.Duration `json:"median"`   // from the request to the block
	Slowest  time.Duration `json:"slowest"`  // the same
	Refused  int           `json:"refused"`  // Gets that failed
	Opening  time.Duration `json:"opening"`  // of the DB
	Finished time.Duration `json:"finished"` // from the first request to the last block
}

// slow is a vault that takes its time, and counts.
type slow struct {
	vault.Vault
	delay time.Duration

	mu          sync.Mutex
	at          []time.Time
	now, atOnce int
}

func (s *slow) wait(ctx context.Context) error {
	s.mu.Lock()
	s.at = append(s.at, time.Now())
	s.now++
	s.atOnce = max(s.atOnce, s.now)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now--
	}()
	select {
	case <-time.After(s.delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	if err := s.wait(ctx); err != nil {
		return vault.Key{}, err
	}
	return s.Vault.GetKey(ctx, id)
}

func (s *slow) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	if err := s.wait(ctx); err != nil {
		return vault.Wrapped{}, err
	}
	return s.Vault.WrapKey(ctx, id, secret)
}

func (s *slow) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	if err := s.wait(ctx); err != nil {
		return nil, err
	}
	return s.Vault.UnwrapKey(ctx, w)
}

// most returns how many calls began in any window, at the most.
func (s *slow) most(window time.Duration) (most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range s.at {
		n, _ := slices.BinarySearchFunc(s.at, t.Add(window), time.Time.Compare)
		most = max(most, n-i)
	}
	return most
}

// vaultDelay is what a vault in the same region takes for a call, and more than that.
const vaultDelay = 20 * time.Millisecond

func measureRestart(ctx context.Context, l *lab, _ string, m *measurements) error {
	many, err := l.withMany(ctx)
	if err != nil {
		return err
	}
	v := &slow{Vault: l.vault, delay: vaultDelay}
	start := time.Now()
	db, err := block.OpenDB(ctx, many, l.dbOptions(v))
	if err != nil {
		return err
	}
	r := restart{Asked: l.open, Delay: v.delay, Opening: time.Since(start)}
	var mu sync.Mutex
	var took []time.Duration
	var failed []error
	var all sync.WaitGroup
	start = time.Now()
	for i := range l.open {
		// Each comes when its time has come, however long the ones before it take.
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(l.open))))
		all.Go(func() {
			asked := time.Now()
			err := first(ctx, db, name(i*(l.stores/l.open)))
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(asked))
			if err != nil {
				failed = append(failed, err)
			}
		})
	}
	all.Wait()
	r.Finished = time.Since(start)
	slices.Sort(took)
	r.Median, r.Slowest, r.Refused = took[len(took)/2], took[len(took)-1], len(failed)
	r.Calls, r.Most, r.AtOnce = len(v.at), v.most(10*time.Second), v.atOnce
	if len(failed) > 0 {
		fmt.Fprintln(l.progress, "refused:", failed[0])
	}
	m.Restart = r
	return db.Close()
}

// first is the first Get of a store.
func first(ctx context.Context, db *block.DB, name string) (err error) {
	s, release, err := db.Acquire(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	_, err = s.Get(ctx, blockID(0), nil)
	return errors.Join(err, ctx.Err())
}
