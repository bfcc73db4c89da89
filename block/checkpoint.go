package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/row"
)

// Checkpoint makes a copy of the store in dir, which must not exist, with every write that was
// acknowledged before the call, while the store serves. It links files that do not change any more
// where the file system can, so that a copy beside the store costs little. It copies them to
// another file system, and writes wait for as long: make the copy beside the store, and copy it
// from there (see [HoldCheckpoint]). Checkpoint needs no access: an Inaccessible store can be
// copied.
//
// The copy is a store with the same keys and an instance of its own. It opens Inaccessible and
// waits for [Store.Revalidate] with the vault client that its Open was given; from then on
// [Store.ChangeKEK] can give it another KEK, so that the source's can be destroyed.
//
// What either of the two writes from then on is wrapped by an epoch that the other does not have:
// one begins here with the next write, and there with Revalidate. Each epoch is 52 bytes of the
// keyring document until RotateEpoch. When there are nearly keyring.MaxEpochs, none begins any
// more: an event says so, and the copy can open what is written here until one of the two rotates.
//
// The store remembers the copy and the absolute path where it was made ([Store.Copies]), at most
// 4,096 copies (keyring.ErrLimit). Without access it cannot sign that: if it is closed before
// access comes back, the copy is in doubt and is not moved to another KEK.
//
// Checkpoint waits until memory is written out. While that fails, as on a full disk, ctx and Close
// end it. It refuses a store that was opened read only ([ErrReadOnly]), whose log the engine would
// have to write out: open that for writing.
//
// It is [DB.Checkpoint] of a directory with one store. Of a directory with several, the files of a
// copy would be those of all of them: of a store that a DB has opened, Checkpoint is
// errors.ErrUnsupported. DB.Checkpoint copies all, and [DB.Export] writes one and nothing of the
// others.
func (s *Store) Checkpoint(ctx context.Context, dir string) error {
	if err := s.checkpoint(ctx, dir); err != nil {
		return fmt.Errorf("block: checkpoint: %w", s.ending(row.Damage(err)))
	}
	return nil
}

func (s *Store) checkpoint(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return fmt.Errorf("%w: the store was opened read only, and a copy of it takes writing out its log and remembering the copy; open it for writing", ErrReadOnly)
	}
	// Who has the store for itself has the DB for as long.
	if err := s.use.Begin(); err != nil {
		return ErrClosed
	}
	defer s.use.End()
	if err := s.onlyOne(ctx); err != nil {
		return err
	}
	return s.db.checkpoint(ctx, dir)
}

// onlyOne refuses to copy a directory in which there are other stores too, as one store's.
func (s *Store) onlyOne(ctx context.Context) error {
	if s.alone {
		_, _, err := s.db.only(ctx, "")
		if err == nil || !errors.Is(err, ErrNoStore) {
			return err
		}
	}
	return fmt.Errorf("the files of a copy would be those of all stores: copy all of them with DB.Checkpoint, or write out this one with DB.Export: %w", errors.ErrUnsupported)
}

// apart is called when a copy has its files, before anything else is applied. From then on all that
// is applied is wrapped by an epoch that the copy does not have, even by an operation that already
// has its DEK (see judge). The document says that the store shares its epochs when the copy is
// registered, before the copy is whole.
func (s *Store) apart(raise func(partition, epoch uint32)) {
	if epoch := s.keys.For(inner.Block{}).Share(); epoch > 0 {
		raise(s.number, epoch+1)
	}
}

// isFree refuses a directory that exists, and says what is in it if a store that is open knows that.
func (d *DB) isFree(dir string) error {
	if _, err := d.opts.Pebble.FS.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, s := range d.openStores() {
		copies, _ := s.copies()
		for _, c := range copies {
			if c.Path != dir {
				continue
			}
			if found, err := place.Has(d.opts.Pebble.FS, dir); err != nil || !found {
				return fmt.Errorf("%s: %w: a checkpoint to it was cut off; remove the directory and forget copy %s, or name another directory", dir, fs.ErrExist, c.Instance)
			}
		}
	}
	return fmt.Errorf("%s: %w: name a directory that does not exist", dir, fs.ErrExist)
}

// HoldCheckpoint keeps the files of a copy, or of any store that is closed, unchanged until release
// is called, while somebody copies them elsewhere. Meanwhile nobody can open it for writing. A
// store that would move the copy to another KEK gets [ErrLocked], and tries again later. Other
// readers are not affected. Of opts only FS matters, and FileKEK, as in [InspectKeyring], where the files are
// sealed: what says how they must be is sealed too. A copy of a sealed directory has its BLOCKSEAL.keyring.
//
// It refuses a copy that is not whole. So what arrives elsewhere is whole if every file but LOCK
// was copied; Open, [Inspect] and [InspectKeyring] check that. Copy the identity file, BLOCKSEAL,
// last: without it the directory is not a store.
//
// To release twice does nothing. Errors: [ErrNotStore], [ErrLocked], [ErrVersion], [ErrCorrupt],
// and one for a store that was not closed.
func HoldCheckpoint(dir string, opts *Options) (release func() error, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	do, err := o.alone().withDefaults()
	if err != nil {
		return nil, err
	}
	do.ReadOnly = true
	d, found, err := newDB(dir, do)
	if err == nil && !found {
		err = fmt.Errorf("block: hold %s: there is no store: %w", dir, ErrNotStore)
	}
	if err != nil {
		return nil, err
	}
	if err = d.survey(context.Background()); err == nil && d.place.Phase() != pebble.Closed {
		err = fmt.Errorf("block: hold %s: it was not closed; open it and close it again", dir)
	}
	if err != nil {
		return nil, errors.Join(err, d.release())
	}
	return sync.OnceValue(d.release), nil
}
