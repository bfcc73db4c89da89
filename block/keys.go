package block

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/rewrite"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// Revalidate asks the vault now, whatever the state. It is the way back from Inaccessible if
// Options.Keyring.ManualRevalidation is set, and what a copy waits for. A copy that succeeds is a
// store of its own from then on, with an epoch of its own, so that its source does not open what it
// writes.
func (s *Store) Revalidate(ctx context.Context) error {
	if err := s.keys.Revalidate(ctx); err != nil {
		return err
	}
	if s.opts.ReadOnly || !s.isCopy() || s.use.Begin() != nil {
		return nil
	}
	defer s.use.End()
	// Before the copy becomes a store, its document has an epoch of its own, under a keyring that
	// opens what is there.
	if err := s.proveNow(ctx); err != nil {
		return fmt.Errorf("block: revalidate: %w", err)
	}
	if err := s.keys.For(inner.Block{}).Own(ctx); err != nil {
		return fmt.Errorf("block: revalidate: %w", err)
	}
	if err := s.storage.Settle(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("block: revalidate: %w", err)
	}
	return nil
}

// RotateKEK wraps the store's keyring with the newest version of its KEK: three vault calls and one
// write, whatever the data. It also moves the registered copies that the store made ([Copy].Doubt)
// and can reach, at six calls each. An event names each of them (keyring.CopyDue) before the first
// is moved, another says what became of each, and [Store.Copies] says what the others need. The
// store tries those again by itself, each minute at first and each hour at last.
//
// A store that is Inaccessible because its KEK version is out of date moves to a newer version and
// is Available then; see [keyring.Keyring.RotateKEK].
func (s *Store) RotateKEK(ctx context.Context) error {
	if err := s.mayChangeKEK(ctx); err != nil {
		return fmt.Errorf("block: rotate KEK: %w", err)
	}
	if err := s.keys.RotateKEK(ctx); err != nil {
		return err
	}
	return s.followKEK(ctx)
}

// ChangeKEK wraps the store's keyring with another key, of this vault or another: three vault calls
// and one write, whatever the data. The new wrap is proven by an unwrap, and durable, before the
// store drops the old one. Registered copies are moved as by RotateKEK.
//
// DEKs that were wrapped ByKEK are rewrapped in the background; see [Store.RewrapDEKs].
func (s *Store) ChangeKEK(ctx context.Context, k *kek.KEK) error {
	if err := inner.RequireKEK(k); err != nil {
		return fmt.Errorf("block: change KEK: %w", err)
	}
	if err := s.mayChangeKEK(ctx); err != nil {
		return fmt.Errorf("block: change KEK: %w", err)
	}
	s.given.add(k)
	if err := s.keys.ChangeKEK(ctx, k); err != nil {
		return err
	}
	return s.followKEK(ctx)
}

// mayChangeKEK refuses what would make a store of a copy, and what would write a keyring document
// that opens no record of this store. Without access nobody can check the second; a KEK version
// that is out of date may be left all the same.
func (s *Store) mayChangeKEK(ctx context.Context) error {
	if err := s.notWaiting(); err != nil {
		return err
	}
	if err := s.proveNow(ctx); err != nil && !cannotWrite(err) {
		return err
	}
	return nil
}

// notWaiting refuses what would make a copy available that waits for Revalidate.
func (s *Store) notWaiting() error {
	if !s.isCopy() || s.keys.State().Status != keyring.Inaccessible {
		return nil
	}
	return fmt.Errorf("%w: it is a copy, of which the KEK is changed by ChangeCheckpointKEK, or after Revalidate: %w", ErrInaccessible, s.keys.State().Cause)
}

// followKEK moves what the former KEK wraps: copies now, ByKEK records in the background. A copy
// with such records can last for hours, so that ctx and Close end it.
func (s *Store) followKEK(ctx context.Context) error {
	s.upkeep.hurry()
	if _, err := s.lookAtCopies(ctx, true); err != nil {
		return fmt.Errorf("block: the KEK was changed, and the copies were not all looked at: %w", err)
	}
	return nil
}

// lookAtCopies is rewrapCopies in a turn of its own, until ctx ends or Close begins.
func (s *Store) lookAtCopies(ctx context.Context, asked bool) (behind int, err error) {
	if err := s.acquireTurn(ctx, s.following); err != nil {
		return 0, err
	}
	defer func() { <-s.following }()
	if err := s.use.Begin(); err != nil {
		return 0, ErrClosed
	}
	defer s.use.End()
	ctx, cancel := s.whileOpen(ctx)
	defer cancel()
	behind, err = s.rewrapCopies(ctx, asked)
	return behind, s.ending(err)
}

// DefaultVaultRate is the default of Options.VaultRate: half of the RSA-2048 HSM operations that
// Key Vault serves in 10 seconds (2,000 a vault and region). The other half stays for readers and
// writers.
const DefaultVaultRate = 1000

// RotateEpoch begins a new epoch, rewraps every DEK record under it, and destroys the earlier epoch
// keys. It does not touch blocks; it writes 70 bytes and the id for each. The store serves meanwhile,
// and what is written is already under the new epoch. It calls no vault, whatever the data.
//
// When it returns nil, all earlier epochs are gone. The next call finishes what one left that was
// cut off, by a crash or by ctx. Two rewriting operations run one after the other.
//
// Records in an attacker's earlier copy of the files still open with that copy's keyring document;
// see docs/threat-model.md.
func (s *Store) RotateEpoch(ctx context.Context, p Progress) error {
	if err := s.rewriter.AcquireTurn(ctx, "rotate epoch"); err != nil {
		return err
	}
	defer s.rewriter.ReleaseTurn()
	if _, err := s.rewriter.RotateEpoch(ctx, p.report()); err != nil {
		return fmt.Errorf("block: rotate epoch: %w", err)
	}
	return nil
}

// Rekey gives the blocks of r fresh DEKs: it opens each, seals it under a new key, and writes it in
// place of the old one unless somebody else has written it meanwhile. The store serves meanwhile.
// It seals at most Options.RewriteRate bytes per second; with ByKEK it makes at most
// Options.VaultRate vault calls in 10 seconds: two for each block, and one more if its DEK is not
// in the cache.
//
// If it was cut off, by a crash or by ctx, it goes on where it was when it is called again with the
// same range in the same epoch. Blocks that are put meanwhile may get one more fresh DEK.
//
// It refuses a range that starts after its end, or has a bound of more than [MaxID] bytes and one,
// with [ErrInvalidID] before it writes anything.
func (s *Store) Rekey(ctx context.Context, r Range, p Progress) error {
	if err := row.CheckRange(r.Start, r.End); err != nil {
		return fmt.Errorf("block: rekey: %w", err)
	}
	if err := s.rewriter.AcquireTurn(ctx, "rekey"); err != nil {
		return err
	}
	defer s.rewriter.ReleaseTurn()
	if err := s.rewriter.Rekey(ctx, r.Start, r.End, p.report()); err != nil {
		return fmt.Errorf("block: rekey: %w", err)
	}
	return nil
}

// RewrapDEKs wraps the DEKs that an older KEK wraps (ByKEK) with the KEK that wraps the store: an
// unwrap, a wrap, and an unwrap that proves it, at most Options.VaultRate calls in 10 seconds. If
// the vault throttles, it waits as long as the vault asks. The store serves meanwhile, and writers
// win. If it was cut off, by a crash or by ctx, the next call goes on where it was. Once it has
// returned nil, the store needs no older KEK version.
//
// [Store.KeyUsage] says how many records need it. The store calls it by itself, in the background,
// after a change of the KEK and at Open, unless Options.ManualRewrap is set.
//
// It leaves a record alone whose DEK does not open its block, and that record's KEK version stays
// needed: RewrapDEKs goes on with the others and returns [ErrCorrupt] at the end.
func (s *Store) RewrapDEKs(ctx context.Context, p Progress) error {
	if err := s.rewriter.RewrapDEKs(ctx, p.report()); err != nil {
		return fmt.Errorf("block: rewrap DEKs: %w", err)
	}
	return nil
}

// newRewriter returns the store's Rewriter, and makes the store's board.
func (s *Store) newRewriter() *rewrite.Rewriter {
	s.board = progress.NewBoard(s.ctx, s.keys.For(inner.Block{}), s.spawn, func(name string, err error) {
		// What stops a rotation because it does not open would stop readers too. A verification
		// counts what it finds itself.
		if name != workVerify && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion)) {
			s.counts.Fail(tally.Rewrite, err)
		}
	})
	return rewrite.New(rewrite.Config{Table: &s.table, Use: &s.use, Keys: s.keys, Board: s.board, Ctx: s.ctx,
		MayWrite: s.mayWrite, Wrote: s.wrote, ReadOnly: s.opts.ReadOnly, VaultRate: s.opts.VaultRate, RewriteRate: s.opts.RewriteRate})
}

// Step is how far a long operation has come.
type Step struct {
	Done  uint64 `json:"done"`  // records that are done
	Bytes uint64 `json:"bytes"` // plaintext bytes that are done, if the operation reads blocks
	Total uint64 `json:"total"` // records in all; 0 if not known

	VaultCalls uint64        `json:"vaultCalls"` // of RewrapDEKs
	Elapsed    time.Duration `json:"elapsed"`
}

// Rate is the number of records done per second; 0 if not known.
func (p Step) Rate() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Done) / p.Elapsed.Seconds()
}

// Left is the time that is left at the rate so far; not ok if that is not known.
func (p Step) Left() (left time.Duration, ok bool) {
	if p.Total == 0 || p.Done == 0 || p.Elapsed <= 0 {
		return 0, false
	}
	if p.Done >= p.Total {
		return 0, true
	}
	return time.Duration(float64(p.Elapsed) / float64(p.Done) * float64(p.Total-p.Done)), true
}

// Progress is called between two steps of a long operation, from time to time, and at its end, on
// the operation's own goroutine, which goes on when Progress returns. A nil Progress is not called.
//
// Progress may block, and may call any method of the store. While it blocks, the operation stands
// still, and keeps neither the store from locking nor anybody from reading and writing; but
// RotateEpoch, Rekey and Erase keep their turn, and other rewriting operations wait for it. A call
// of one from Progress itself, on its goroutine, would wait for ever and is refused. If Progress
// calls Close, the operation ends with [ErrClosed].
type Progress func(Step)

func (p Progress) report() progress.Report {
	if p == nil {
		return nil
	}
	return func(s progress.Step) { p(Step(s)) }
}

// Work is a long operation that is under way, or the last of its name that has ended.
type Work struct {
	// Name is one of WorkNames: "rotate_epoch", "rekey", "rewrap_deks" or "verify". An Erase is a
	// rotate_epoch.
	Name string `json:"name"`
	Step
	Started time.Time `json:"started,omitzero"`
	// Ended is when it ended, zero while it is under way. Err is its error; nil if it did all it
	// had to. The text of Err may name a block.
	Ended time.Time `json:"ended,omitzero"`
	Err   error     `json:"error"`
}

// Fraction is how much of the work is done, from 0 to 1; not ok while nobody knows how much there
// is.
func (w Work) Fraction() (f float64, ok bool) {
	switch {
	case !w.Ended.IsZero() && w.Err == nil:
		return 1, true
	case w.Total == 0:
		return 0, false
	}
	return min(1, float64(w.Done)/float64(w.Total)), true
}

const workVerify = "verify"

// WorkNames returns every name that a [Work] can have. The names are stable: they are values of a
// metric's label.
func WorkNames() []string {
	return []string{rewrite.WorkRotateEpoch, rewrite.WorkRekey, rewrite.WorkRewrap, workVerify}
}

// works returns the works that are under way, in the order in which they began, and the last of
// each name, the latest first.
func (s *Store) works() (running, last []Work) {
	work := func(from []progress.Work) (to []Work) {
		for _, w := range from {
			to = append(to, Work{Name: w.Name, Step: Step(w.Step), Started: w.Started, Ended: w.Ended, Err: w.Err})
		}
		return to
	}
	r, l := s.board.Works()
	return work(r), work(l)
}

// eachRecord calls f for each DEK record, until f returns false. It needs no access, and keeps the
// engine open meanwhile.
func (s *Store) eachRecord(ctx context.Context, f func(id, record []byte, in keyring.RecordInfo) (bool, error)) error {
	if err := s.use.Begin(); err != nil {
		return err
	}
	defer s.use.End()
	return row.EachRecord(ctx, s.part, nil, f)
}

// MarshalJSON implements [json.Marshaler].
func (w Work) MarshalJSON() ([]byte, error) {
	type plain Work
	return json.Marshal(struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain(w), errorText(w.Err)})
}
