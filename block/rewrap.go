package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// DefaultVaultRate is the default of Options.VaultRate: half of what Key Vault
// serves of RSA-2048 HSM operations in 10 seconds (2,000 a vault and region), so
// that the other half stays for those who read and write.
const DefaultVaultRate = 1000

// vaultWindow is the time that Options.VaultRate is about.
const vaultWindow = 10 * time.Second

// callsPerRewrap is how many vault calls a DEK takes: an unwrap by the old KEK, a wrap
// by the new one, and an unwrap that proves it.
const callsPerRewrap = 3

// Forecast is what a long operation is going to cost.
type Forecast struct {
	Records    uint64        // to be rewrapped
	VaultCalls uint64        // that takes
	Duration   time.Duration // at Options.VaultRate, if the vault keeps up
}

// ForecastRewrap says what RewrapDEKs is going to cost. It reads every DEK record
// and calls no vault.
func (s *Store) ForecastRewrap(ctx context.Context) (Forecast, error) {
	var f Forecast
	_, active := s.keys.KEKs()
	err := s.eachRecord(ctx, nil, func(_, _ []byte, in keyring.RecordInfo) (bool, error) {
		if in.Wrapping == keyring.ByKEK && in.KEK != active {
			f.Records++
		}
		return true, nil
	})
	if err != nil {
		return f, fmt.Errorf("block: forecast: %w", err)
	}
	f.VaultCalls = callsPerRewrap * f.Records
	f.Duration = time.Duration(f.VaultCalls) * vaultWindow / time.Duration(s.opts.VaultRate)
	return f, nil
}

// RewrapDEKs wraps the DEKs that are wrapped by an older KEK (ByKEK) with the one
// that wraps the store now: an unwrap, a wrap and the unwrap that proves it each, at
// most Options.VaultRate calls in 10 seconds, waiting as long as the vault asks when it throttles. It runs
// while the store serves; writers win. Cut off by a crash or by ctx, it goes on
// with the next call where it was, because what it has done needs nothing more.
// When it has ended, older KEK versions are not needed by the store any more.
//
// The store starts it by itself, in the background, after a change of the KEK and
// at Open, unless Options.ManualRewrap.
//
// A record whose DEK does not open its block is left as it is, and its KEK version stays
// needed: RewrapDEKs goes on with the others and returns [ErrCorrupt] at the end.
// PauseRewrap stops it for a while.
func (s *Store) RewrapDEKs(ctx context.Context, p Progress) error {
	if err := s.rewrapDEKs(ctx, p, true); err != nil {
		return fmt.Errorf("block: rewrap DEKs: %w", err)
	}
	return nil
}

func (s *Store) rewrapDEKs(ctx context.Context, p Progress, pausable bool) error {
	for {
		err := s.rewrapAll(ctx, p, pausable)
		if !errors.Is(err, keyring.ErrMoved) && !errors.Is(err, errBehind) {
			return err
		}
		// The KEK was changed meanwhile: what was rewrapped before needs it again. Or somebody
		// committed, behind the walk, what was wrapped before the KEK was changed: there is
		// less of that each time.
	}
}

// errBehind says that a record names an older KEK that was written when the walk had been there.
var errBehind = errors.New("block: written behind the walk")

// rewrapAll has the turn of rewriting operations for a chunk at a time.
func (s *Store) rewrapAll(ctx context.Context, p Progress, pausable bool) (err error) {
	moves := s.keys.KEKMoves() // first: what is active now was so then, or DropKEKs says
	keks, active := s.keys.KEKs()
	switch {
	case s.opts.ReadOnly:
		return ErrReadOnly
	case s.ctx.Err() != nil:
		return ErrClosed
	case len(keks) == 1:
		return nil // no record needs another
	}
	count := func(ctx context.Context) (uint64, error) {
		f, err := s.ForecastRewrap(ctx)
		return f.Records, err
	}
	var total uint64
	if p != nil {
		if total, err = count(ctx); err != nil {
			return err
		}
	}
	mt := s.meter(workRewrap, p, total, count)
	defer func() {
		if errors.Is(err, keyring.ErrMoved) || errors.Is(err, errBehind) {
			mt.end(nil) // another begins
			return
		}
		mt.end(err)
	}()
	var left leftRecords
	for next, more := []byte(nil), true; more; {
		if pausable {
			if err := s.awaitResume(ctx, mt); err != nil {
				return err
			}
		}
		next, more, err = s.rewrapChunk(ctx, next, active, pausable, mt, &left)
		if errors.Is(err, vault.ErrThrottled) {
			// Without the turn, and with a look at the pause before the next call.
			err = s.keys.Sleep(ctx, max(vault.RetryAfter(err), time.Second))
		}
		if err != nil {
			return err
		}
		mt.between()
	}
	if err := s.takeRewriting(ctx, "drop KEKs"); err != nil {
		return err
	}
	named, err := s.dropUnusedKEKs(ctx, moves)
	<-s.rewriting
	if err != nil {
		return err
	}
	if named && left.n == 0 {
		return errBehind
	}
	if left.n > 0 {
		return fmt.Errorf("%d records were not rewrapped; the first: %w", left.n, left.first)
	}
	mt.done()
	return nil
}

// leftRecords counts the records that errLeft is about.
type leftRecords struct {
	n     int
	first error
}

// rewrapChunk rewraps the next records that need it, unless a pause begins, the vault
// throttles, or somebody is to be told of it, and returns where to go on.
func (s *Store) rewrapChunk(ctx context.Context, from []byte, active uint32, pausable bool, mt *meter, left *leftRecords) (next []byte, more bool, err error) {
	if err := s.takeRewriting(ctx, "rewrap DEKs"); err != nil {
		return nil, false, err
	}
	defer func() { <-s.rewriting }()
	var todo []engine.Was
	most := 64 * s.steps.records // that are looked at, so that the turn is short when little is to be done
	err = s.eachRecord(ctx, from, func(id, record []byte, in keyring.RecordInfo) (bool, error) {
		if len(todo) == s.steps.records || most == 0 {
			next, more = bytes.Clone(id), true
			return false, nil
		}
		most--
		if in.Wrapping == keyring.ByKEK && in.KEK != active {
			todo = append(todo, engine.Was{ID: bytes.Clone(id), Record: bytes.Clone(record)})
		}
		return true, nil
	})
	if err != nil {
		return nil, false, err
	}
	for i, c := range todo {
		if err := s.budget.take(ctx, callsPerRewrap); err != nil {
			return nil, false, err
		}
		if pausable && s.RewrapPaused() || mt.due() && i > 0 {
			return c.ID, true, nil
		}
		mt.called(callsPerRewrap)
		if err := s.tryRewrap(ctx, c); errors.Is(err, errLeft) {
			if left.n++; left.n == 1 {
				left.first = err
			}
		} else if err != nil {
			return c.ID, true, err
		}
		mt.add(1, 0)
	}
	return next, more, nil
}

// errLeft is why a record was left under its KEK: its DEK does not open the block. Either
// is damaged, or the vault answered wrongly; as long as nobody knows which, the wrap that
// is there is not replaced, and the others' need not wait.
var errLeft = fmt.Errorf("its DEK does not open the block, and was left as it is: %w", ErrCorrupt)

func (s *Store) tryRewrap(ctx context.Context, c engine.Was) error {
	h, err := s.keys.Acquire()
	if err != nil {
		return err
	}
	defer func() { h.Release() }()
	sc := s.take(c.ID)
	defer s.give(sc)
	sealed, err := s.sealedWith(ctx, sc, c)
	if errors.Is(err, errWritten) {
		return nil // the writer won
	}
	var again []byte
	if err == nil {
		again, err = h.RewrapKEK(ctx, nil, c.Record, &sc.binding, func(k *dek.Key) error {
			plain, err := k.Open(nil, sealed, sc.aad)
			clear(plain)
			if err != nil {
				return errLeft
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("block %s: %w", shownID(c.ID), err)
	}
	in, err := keyring.ParseRecord(again)
	if err == nil {
		err = s.inheritAge(ctx, &h, in.Epoch) // the DEK is older than that
	}
	if err != nil {
		return fmt.Errorf("block %s: %w", shownID(c.ID), err)
	}
	w := s.newRewriter()
	defer w.Close()
	w.was = append(w.was, c)
	if err := w.batch.PutRecord(c.ID, again); err != nil {
		return err
	}
	return w.flush(ctx)
}

// errWritten says that a block was written since its record was read.
var errWritten = errors.New("block: written meanwhile")

// sealedWith returns a copy of the sealed block that goes with a record: the vault is
// asked next, and nothing of the engine's may be held then.
func (s *Store) sealedWith(ctx context.Context, sc *scratch, c engine.Was) ([]byte, error) {
	defer sc.row.Release()
	err := s.part.Get(ctx, c.ID, engine.Both|engine.Together, &sc.row)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil, errWritten
	case err != nil:
		return nil, s.damage(err)
	case sc.row.Has&engine.Record == 0 || !bytes.Equal(sc.row.Record, c.Record):
		return nil, errWritten
	case sc.row.Has&engine.Sealed == 0:
		return nil, errLeft
	}
	sealed, err := checkSealed(bytes.Clone(sc.row.Sealed))
	if err != nil {
		return nil, errLeft
	}
	return sealed, nil
}

// eachRecord calls f for each DEK record from the given id on, until f returns
// false. It needs no access and keeps the engine open meanwhile.
func (s *Store) eachRecord(ctx context.Context, from []byte, f func(id, record []byte, in keyring.RecordInfo) (bool, error)) error {
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return ErrClosed
	}
	it, err := s.part.Cursor(ctx, engine.Record, from, nil)
	if err != nil {
		return s.damage(err)
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		record, err := it.Value()
		if err != nil {
			return s.damage(err)
		}
		id := it.ID()
		in, err := keyring.ParseRecord(record)
		if err != nil {
			return fmt.Errorf("block %s: %w", shownID(id), err)
		}
		if more, err := f(id, record, in); err != nil || !more {
			return err
		}
	}
	return s.damage(it.Err())
}

// budget is a token bucket of vault calls: it fills evenly, and holds at most a
// tenth of a window's. It is safe for concurrent use.
type budget struct {
	keys  *keyring.Keyring
	every time.Duration // between two calls

	mu   sync.Mutex
	next time.Duration // when the next call is free
}

func newBudget(keys *keyring.Keyring, rate int) *budget {
	return &budget{keys: keys, every: vaultWindow / time.Duration(rate), next: keys.Elapsed() - vaultWindow/10}
}

// take waits until n calls may be made.
func (b *budget) take(ctx context.Context, n int) error {
	b.mu.Lock()
	now := b.keys.Elapsed()
	b.next = max(b.next, now-vaultWindow/10) + time.Duration(n)*b.every
	free := b.next
	b.mu.Unlock()
	if free <= now {
		return ctx.Err()
	}
	return b.keys.Sleep(ctx, free-now)
}
