package block

import (
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/internal/engine/pebble"
)

// HoldCheckpoint keeps the files of an offline copy, or of any store that is closed, as
// they are until release is called: for whoever copies them elsewhere, one after the other.
// Meanwhile nobody can open it for writing, and a store that would move the copy to another
// KEK gets [ErrLocked], and does it later. Other readers are not disturbed. Of opts only FS
// matters.
//
// It refuses what is not whole, so that what arrives elsewhere is, if every file but LOCK
// was copied; Open of it, [Inspect] and [InspectKeyring] say so. The identity file,
// BLOCKSEAL, is best copied last: without it the directory is not a store.
//
// To release twice does nothing. Errors: [ErrNotStore], [ErrLocked], [ErrVersion],
// [ErrCorrupt], and one for a store that was not closed.
func HoldCheckpoint(dir string, opts *Options) (release func() error, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	o.ReadOnly = true
	found, err := hasStore(o.FS, dir)
	if err == nil && !found {
		err = fmt.Errorf("block: hold %s: there is no store: %w", dir, ErrNotStore)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, dir: dir, storage: &metaStorage{}}
	if err := s.lockDir(); err != nil {
		return nil, err
	}
	if err = s.survey(); err == nil && s.id.engine.Phase != pebble.Closed {
		err = fmt.Errorf("block: hold %s: it was not closed; open it and close it again", dir)
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return sync.OnceValue(s.lock.Close), nil
}
