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
// vault calls, one write, whatever the data.
func (s *Store) RotateKEK(ctx context.Context) error { return s.keys.RotateKEK(ctx) }

// ChangeKEK wraps the store's keyring with another key, of this vault or another:
// three vault calls, one write, whatever the data. The new wrap is proven by an
// unwrap and durable before the old one is let go.
func (s *Store) ChangeKEK(ctx context.Context, k *kek.KEK) error { return s.keys.ChangeKEK(ctx, k) }
