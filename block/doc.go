// Package block is an embedded store of encrypted blocks. Each block is sealed with its own AES-256
// key (DEK); the DEKs are kept wrapped, apart from the blocks, and open only through an RSA-2048
// key (KEK) that never leaves a vault. Revoke the KEK and the store goes Inaccessible; give it back
// and it serves again.
//
// Start with [Open], then [Store.Put] and [Store.Get]. [Store.NewBatch] groups writes,
// [Store.Blocks] walks blocks in order, [Store.Snapshot] reads the store as it was at one moment,
// [Store.Verify] authenticates everything.
//
//	k := kek.New(v, vault.KeyID{Name: "customer"})
//	s, err := block.Open(ctx, dir, k, nil)
//	err = s.Put(ctx, id, data)
//	data, err = s.Get(ctx, id, nil)
//
// What is not hidden: the ids, sizes and number of blocks, and when they change. Ids are stored as
// they are, because the store is ordered by them; a program whose ids are secret derives others
// from them, by HMAC for example. See docs/threat-model.md.
//
// # Compatibility
//
// docs/format.md fixes the layout and the records, which have versions. A release reads all
// versions before it.
package block

import (
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// These are the errors of a store. Match them with [errors.Is]; a cause beneath, such as
// vault.ErrKeyDisabled under ErrInaccessible, matches too.
var (
	// ErrNotFound says that there is no block with this id.
	ErrNotFound = row.ErrNotFound
	// ErrInaccessible says that the keys may not be used: the vault said no, or has not answered
	// for longer than the lease.
	ErrInaccessible = keyring.ErrInaccessible
	// ErrCorrupt says that something on disk is damaged, moved or forged.
	ErrCorrupt = keyring.ErrCorrupt
	// ErrClosed says that the store, snapshot or batch was closed.
	ErrClosed = keyring.ErrClosed
	// ErrReadOnly says that a read-only store was asked to write.
	ErrReadOnly = keyring.ErrReadOnly
	// ErrVersion says that the directory or something in it has a format version that this release
	// does not know.
	ErrVersion = keyring.ErrVersion
	// ErrInvalidID says that a block id is empty or longer than MaxID.
	ErrInvalidID = row.ErrInvalidID
	// ErrTooLarge says that a block is larger than MaxBlock, or a batch than MaxBatch.
	ErrTooLarge = row.ErrTooLarge
	// ErrChanged says that PutIf found other contents than it should replace, a block where there
	// should be none, or no block.
	ErrChanged = row.ErrChanged
	// ErrNotStore says that a directory has files and is not a store.
	ErrNotStore = place.ErrNotStore
	// ErrNoStore says that a DB has no store of a name.
	ErrNoStore = catalogue.ErrNone
	// ErrExists says that a DB has a store of a name already.
	ErrExists = catalogue.ErrExists
	// ErrName refuses what is no name of a store.
	ErrName = catalogue.ErrName
	// ErrLocked says that another process, or another Store, has the directory open, and that one
	// of the two is for writing.
	ErrLocked = place.ErrLocked
	// ErrStale says that a batch's DEKs were wrapped by a KEK (ByKEK) that the store has since
	// moved away from. Make the batch again.
	ErrStale = row.ErrStale
	// ErrPinned says that open snapshots, scans or batches keep what Erase should erase.
	ErrPinned = errors.New("snapshots, scans or batches are open")
	// ErrIncomplete says that the store may have copies that it does not know: its register was
	// missing or not authentic, or full when a DB.Checkpoint was made, or nobody can tell because the
	// keys were not accessible yet.
	// Something that it does not list may still be needed.
	ErrIncomplete = register.ErrIncomplete
	// ErrFileKEK says that the reason is the KEK of the engine's files (DBOptions.FileKEK): together with
	// ErrInaccessible, that access to it is lost, so that all stores of the DB are Inaccessible; alone,
	// that it is set for a directory whose files are not sealed, or not set for one whose files are.
	ErrFileKEK = place.ErrFileKEK
	// ErrOutcomeUnknown says that a database did not answer whether a write was made: the connection
	// was lost, or ctx ended, after it was sent. It was made as a whole, now or in a moment, or not at
	// all. Who reads finds out; to put the same again is right in both cases.
	ErrOutcomeUnknown = engine.ErrOutcomeUnknown
	// ErrViewEnded says that a snapshot or scan on a database cannot be read any more: its time is
	// over there, or its connection was lost.
	ErrViewEnded = engine.ErrViewEnded
	// ErrForeign says that a store holds the keyring of another store, or that what is found under a
	// name is a store of another name.
	ErrForeign = register.ErrForeign
)

// wrapErr adds the operation and the block to an error.
func wrapErr(op string, id []byte, err error) error {
	return fmt.Errorf("block: %s %s: %w", op, row.Shown(id), err)
}

// errorText is an error in JSON.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
