package sealfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// RotateEpoch begins a new epoch of the keyring, gives each file in the directories, and in those
// in them, a DEK record under it, and destroys the epochs before, whose ids it returns. What is in
// the files stays as it is, and so do their DEKs: rewritten are 328 bytes of each head, durably, in a
// slot that was not in use. Files may be open, read and written meanwhile. It calls no vault.
//
// The directories have to be all that have files of this keyring. A file that is in none of them
// opens no more afterwards, in no copy: that is also what makes a file that was removed before, or a
// log that was reused, unreadable for whoever kept its bytes. One that is open through this FS, and was
// removed, is read and written until it is closed; through another FS on the same keyring no file may be
// open. A checkpoint that shares files (hard
// links) and has no keyring document of its own must be among them; one that has an older document
// goes on opening with it, because older records stay in the heads, and rotates by itself. But do not
// rotate the two at the same time, in two processes: both could fill the same slot of a file that they
// share.
//
// Symbolic links are not followed: one in a directory is an error, unless what it leads to is in one that
// was named. So is what is no file and no directory.
//
// Nothing is destroyed if any file's record does not open. Such a file is damaged, or not of
// this keyring, and is named; remove it, or put it back, and call RotateEpoch again. Files that are
// empty, or were cut off before their head was durable, and keyring documents, are passed over.
//
// A head has room for eight records. When it is full, a file of layout Once is copied, sealed as
// it is, and the copy takes its name, so that a checkpoint keeps its own.
func (f *FS) RotateEpoch(ctx context.Context, dirs ...string) (dropped []uint32, err error) {
	if len(dirs) == 0 {
		return nil, errors.New("sealfs: rotate epoch: no directory was named; the files that are not in one would be lost")
	}
	dropped, err = f.ring.RotateEpoch(ctx, func(ctx context.Context, rewrap keyring.Rewrap) error {
		return f.rewrapAll(ctx, dirs, rewrap)
	})
	if err != nil {
		return dropped, fmt.Errorf("sealfs: rotate epoch: %w", err)
	}
	return dropped, nil
}

// rewrapAll is one walk.
func (f *FS) rewrapAll(ctx context.Context, dirs []string, rewrap keyring.Rewrap) error {
	// A DEK whose record names an epoch before may be on its way into a file.
	if err := f.awaitMakings(ctx); err != nil {
		return err
	}
	// A file that got a name while the directories were listed may have been missed, also if that had
	// begun before.
	for range rewrapListings {
		moves := f.moves.Load()
		for _, dir := range dirs {
			if err := f.rewrapDir(ctx, dirs, dir, rewrap); err != nil {
				return err
			}
		}
		if moves%2 == 0 && f.moves.Load() == moves {
			return f.rewrapOpen(rewrap)
		}
		f.awaitNames()
	}
	return errors.New("files were renamed or linked each time that the directories were listed")
}

// awaitNames returns when a change of names that is under way has ended.
func (f *FS) awaitNames() {
	f.names.RLock()
	defer f.names.RUnlock()
}

// rewrapListings is how often directories are listed in one walk, at most.
const rewrapListings = 1000

func (f *FS) rewrapDir(ctx context.Context, dirs []string, dir string, rewrap keyring.Rewrap) error {
	names, err := f.under.List(dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := f.under.PathJoin(dir, name)
		if linked, err := f.leadsTo(path, dirs); err != nil {
			return err
		} else if linked {
			continue
		}
		fi, err := f.under.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // removed meanwhile
		case err != nil:
			return err
		case fi.IsDir():
			err = f.rewrapDir(ctx, dirs, path, rewrap)
		case !fi.Mode().IsRegular():
			return fmt.Errorf("%s is no file and no directory (%v); remove it", path, fi.Mode().Type())
		default:
			err = f.rewrapFile(path, rewrap)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// What was removed stays removed: a crash that brought it back, with a record of before, would
	// keep the next rotation from going on.
	return f.syncDir(f.under.PathJoin(dir, "x"))
}

// rewrapFile puts a record under the new epoch into a file's head.
func (f *FS) rewrapFile(name string, rewrap keyring.Rewrap) error {
	f.names.Lock()
	defer f.names.Unlock()
	defer during(&f.rewraps)()
	if strings.HasSuffix(name, replaceSuffix) {
		// Left by a crash: nobody is at work on one, because names is held.
		return f.under.Remove(name)
	}
	u, err := f.under.Open(name)
	if err != nil {
		return err
	}
	h, size, err := readHeadAndSize(u)
	foreign := errors.Is(err, ErrNotSealed) && isDocument(u)
	var at fileAt
	if err == nil {
		at, err = f.at(h.id, name, u)
	}
	if cerr := u.Close(); cerr != nil {
		return cerr
	}
	if errors.Is(err, errUnwritten) && !f.headless(name, size) || foreign {
		return nil
	}
	if err != nil {
		return ofFile(name, err)
	}
	slot, err := f.checkRecord(h)
	if err != nil {
		return ofFile(name, err)
	}
	again, err := rewrap(h.records[slot], h.context())
	if err != nil || again == nil {
		return ofFile(name, err)
	}
	if to := freeRecord(h, slot, f.fixed(h, at)); to >= 0 {
		err = f.patch(name, h, keySlotsAt+to*keySlotSize, encodeKeySlot(again))
	} else {
		h.records = [keySlots][]byte{again}
		err = f.replaceHead(name, h)
	}
	if err != nil {
		return ofFile(name, err)
	}
	f.rewrapped(h.id, again)
	return nil
}

// rewrapOpen gives the key of each open file a record under the new epoch: those whose files were removed
// are in no directory, and are read until they are closed. A record that opens no more, because somebody
// else dropped its epoch, keeps nothing from being dropped.
func (f *FS) rewrapOpen(rewrap keyring.Rewrap) error {
	f.names.Lock()
	defer f.names.Unlock()
	defer during(&f.rewraps)()
	f.mu.Lock()
	keys := slices.Collect(maps.Values(f.keys))
	f.mu.Unlock()
	for _, k := range keys {
		if err := f.rewrapKey(k, rewrap); err != nil && !errors.Is(err, keyring.ErrCorrupt) {
			return err
		}
	}
	return nil
}

func (f *FS) rewrapKey(k *fileKey, rewrap keyring.Rewrap) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	hold, err := f.acquire()
	if err != nil {
		return err
	}
	var b keyring.Binding
	b.Set(k.context)
	err = hold.For(inner.Block{}).CheckRecord(background, k.record, &b)
	hold.Release() // rewrap takes one of its own
	if err != nil {
		return err
	}
	again, err := rewrap(k.record, k.context)
	if err == nil && again != nil {
		k.record = again
	}
	return err
}

// checkRecord returns the slot of the youngest record that authenticates. Which one names the
// youngest epoch is no answer: anybody can write that into a slot.
func (f *FS) checkRecord(h *head) (int, error) {
	hold, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer func() { hold.Release() }()
	var b keyring.Binding
	b.Set(h.context())
	return h.firstGood(&hold, func(record []byte) error { return hold.For(inner.Block{}).CheckRecord(background, record, &b) })
}

// freeRecord returns a slot that may be filled, or -1: one that was never used or, if slots are not
// fixed, the oldest apart from the one in use.
func freeRecord(h *head, used int, fixed bool) int {
	for i, blank := range h.blank {
		if blank {
			return i
		}
	}
	if fixed {
		return -1
	}
	for i, r := range h.records {
		if r == nil {
			return i
		}
	}
	order := h.newestFirst()
	for i := len(order) - 1; i >= 0; i-- {
		if order[i] != used {
			return order[i]
		}
	}
	return -1
}

// isDocument reports whether a file is a keyring document, which may lie beside the files.
func isDocument(u vfs.File) bool {
	var magic [8]byte
	_, err := u.ReadAt(magic[:], 0)
	return (err == nil || errors.Is(err, io.EOF)) && string(magic[:]) == "BSKEYRNG"
}
