package block

import (
	"context"
	"fmt"

	"github.com/blockseal/blockseal/internal/inner"
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
