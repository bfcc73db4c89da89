package block

import (
	"context"
	"fmt"

	"github.com/blockseal/blockseal/kek"
)

// Revalidate asks the vault now, whatever the state: the way back from
// Inaccessible when Options.Keyring.ManualRevalidation is set, and the first thing
// that a copy waits for. A copy that succeeds is a store of its own from then on.
func (s *Store) Revalidate(ctx context.Context) error {
	if err := s.keys.Revalidate(ctx); err != nil {
		return err
	}
	s.usage.RLock()
	defer s.usage.RUnlock()
	s.openMu.Lock()
	defer s.openMu.Unlock()
	if s.identity.copyOf == (instanceID{}) || s.opts.ReadOnly || s.closed {
		return nil
	}
	own := identity{instance: s.identity.instance}
	if err := writeIdentity(s.opts.FS, s.dir, own); err != nil {
		return fmt.Errorf("block: revalidate: %w", err)
	}
	s.identity = own
	return nil
}

// RotateKEK wraps the store's keyring with the newest version of its KEK: three
// vault calls, one write, whatever the data. Registered copies that can be reached
// are moved along, at six calls each; what becomes of each is an event, and
// [Store.Copies] says what the others need.
func (s *Store) RotateKEK(ctx context.Context) error {
	if err := s.keys.RotateKEK(ctx); err != nil {
		return err
	}
	return s.followKEK(ctx)
}

// ChangeKEK wraps the store's keyring with another key, of this vault or another:
// three vault calls, one write, whatever the data. The new wrap is proven by an
// unwrap and durable before the old one is let go. Registered copies are moved
// along as by RotateKEK.
//
// DEKs that were wrapped ByKEK are rewrapped in the background; see
// [Store.RewrapDEKs].
func (s *Store) ChangeKEK(ctx context.Context, k *kek.KEK) error {
	if err := s.keys.ChangeKEK(ctx, k); err != nil {
		return err
	}
	return s.followKEK(ctx)
}

// followKEK moves along what was wrapped by the KEK before: the copies now, and
// ByKEK records in the background.
func (s *Store) followKEK(ctx context.Context) error {
	s.upkeep.hurry()
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return fmt.Errorf("block: %w", ErrClosed)
	}
	s.following.Lock()
	defer s.following.Unlock()
	if err := s.rewrapCopies(ctx); err != nil {
		return fmt.Errorf("block: the KEK was changed, and the copies were not all looked at: %w", err)
	}
	return nil
}

// onKEKChanged is for a KEK version that the keyring picked up by itself.
func (s *Store) onKEKChanged() {
	s.spawn(func() {
		s.followKEK(s.ctx) // what fails is an event, and is tried with the next change
	})
}
