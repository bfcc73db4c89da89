package block

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/keyring"
)

// Checkpoint makes a copy of the store in dir, which must not exist, with every
// change that was acknowledged before the call, while the store goes on serving.
// Files that do not change any more are linked where the file system can, so that
// a copy beside the store costs little. It needs no access: a store that is
// Inaccessible can be copied.
//
// The copy is a store with the same keys and an instance of its own. It opens
// Inaccessible and waits for [Store.Revalidate] with the vault client that its
// Open was given; from then on it can be given another KEK with
// [Store.ChangeKEK], so that the source's can be destroyed. The store remembers
// the copy and where it was made, as an absolute path; see [Store.Copies].
func (s *Store) Checkpoint(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("block: checkpoint: %w", err)
	}
	dir, err := s.absolute(dir)
	if err != nil {
		return fmt.Errorf("block: checkpoint: %w", err)
	}
	if err := s.takeTurn(ctx, s.copying); err != nil {
		return fmt.Errorf("block: checkpoint: %w", err)
	}
	defer func() { <-s.copying }()
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return fmt.Errorf("block: checkpoint: %w", ErrClosed)
	}
	if err := s.db.Checkpoint(dir); err != nil {
		return fmt.Errorf("block: checkpoint: %w", s.damage(err))
	}
	// Without its identity file the copy is not a store, so that one that was cut
	// off cannot be taken for a whole one. It is registered before, so that there is
	// no whole one that the store does not remember.
	id := identity{instance: newInstance(), copyOf: s.instance}
	err = s.register(dir, id.instance)
	if err == nil {
		err = writeIdentity(s.opts.FS, dir, id)
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("block: checkpoint: %w", err), s.opts.FS.RemoveAll(dir))
		if !s.opts.ReadOnly {
			err = errors.Join(err, s.writeMeta(s.copyRecord(id.instance.String()), nil))
		}
		return err
	}
	s.keys.Emit(keyring.Event{Kind: keyring.CopyMade, Detail: dir})
	return nil
}

// absolute is where dir is, whatever the working directory of whoever looks for it. A
// file system that is not the operating system's has paths of its own kind.
func (s *Store) absolute(dir string) (string, error) {
	if s.opts.FS != vfs.Default {
		return dir, nil
	}
	return filepath.Abs(dir)
}
