package block

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// These are the defaults of Options.RecordCache and Options.RowCache, in bytes.
const (
	DefaultRecordCache = 32 << 20
	DefaultRowCache    = 64 << 20
)

// Options configure a store. A nil *Options, and each zero field, means the default that the field
// states.
type Options struct {
	// Keyring configures keys, lease, checks, rotation, events and logging. Its
	// ReadOnly and RequireAccess are set by the store as well.
	Keyring keyring.Options

	// Name says which store of a directory [Open] opens, if a DB has made several in it, and what
	// the store is called that it makes. A DB's own methods have it as an argument. Default: the
	// only one there is; a new one is called [DefaultName].
	Name string
	// RequireAccess makes Open fail if the vault refuses or does not answer. Default: Open returns
	// a store in state Inaccessible, with the reason.
	RequireAccess bool
	// ReadOnly opens an existing store, such as a copy, and changes nothing in its directory, but
	// makes the file LOCK if that is missing. Any number can be open at once, in one process or in
	// many, and [Inspect] beside them, but not beside a store that writes. On a read-only medium
	// LOCK may be missing. It then does not keep out who mounts the medium for writing elsewhere.
	ReadOnly bool
	// NoSync lets Put, Delete and Commit return before the write is durable: a crash of the machine
	// may lose the last of them, never part of one. Default: what they acknowledged survives.
	NoSync bool

	// VaultRate bounds RewrapDEKs and, with ByKEK, Rekey and renewal, in vault calls per 10 seconds
	// together. Default: 1,000.
	VaultRate int
	// ManualRewrap leaves DEKs that an older KEK wraps (ByKEK) to RewrapDEKs, and a copy of which
	// only such DEKs are behind to RotateKEK, ChangeKEK and ChangeCheckpointKEK. Default: the store
	// rewraps them in the background after a change of the KEK.
	ManualRewrap bool
	// RewriteRate bounds Rekey and renewal (Keyring.RekeyAfter), in bytes of blocks per second.
	// Default: unbounded.
	RewriteRate int64

	// AnchorEvery is the least time between two advances of Keyring.Anchor while the store is
	// written to. It is also advanced at Open, at Close, and when the keyring document was saved.
	// Each advance costs a synced write of a 42-byte record, and what the anchor costs. A rollback
	// of what was acknowledged since the last advance goes unnoticed. Default: 1 second.
	AnchorEvery time.Duration

	// RecordCache is the memory in bytes for wrapped DEK records, allocated at Open and filled as
	// blocks are read and written, at 73 bytes a block. It holds no secrets and survives a lock.
	// Default: 32 MiB; negative: none.
	RecordCache int64
	// RowCache is the most memory in bytes for sealed blocks that were read more than once lately,
	// allocated as it is used. A Get of one costs no look-up in Pebble. It holds no plaintext and
	// no DEKs, and survives a lock. It is not used with ByKEK. Default: 64 MiB; negative: none.
	RowCache int64
	// Pebble configures the storage engine of the directory. For a store in a DB it means nothing:
	// DBOptions.Pebble does.
	Pebble PebbleOptions

	// FileKEK opens a directory whose engine's files are sealed; see DBOptions.FileKEK, which it is for a store
	// that has its directory for itself, for [Inspect], [Relocate], [ChangeCheckpointKEK] and
	// [HoldCheckpoint]. Each of them asks its vault, and fails without access. Its keyring has Keyring's
	// Clock, Logger, Lease, CheckEvery, VaultTimeout, ManualRevalidation and PinVersion. For a store in a
	// DB it means nothing. Default: the files are not sealed.
	FileKEK *kek.KEK

	// atRest is for a copy that is moved to another KEK: the store does nothing by itself. Renewals
	// and rewraps that are due wait until somebody opens the copy to use it.
	atRest bool
	// relocate, if not nil, is what Relocate does before the keyring is opened.
	relocate func(ctx context.Context, s *Store, ko keyring.Options) error
	// moving is the copy that its store is moving; nothing else may be in its place. Nobody writes
	// to what it points to.
	moving *register.Entry
}

// PebbleOptions configure Pebble, the storage engine of a directory. Nothing else in this package's
// interface is Pebble's own.
type PebbleOptions struct {
	// BlockCache is the memory in bytes for the cache of sealed blocks as they lie in files.
	// Default: 64 MiB.
	BlockCache int64
	// MemTable is the size in bytes of one of the memtables, of which there may be four.
	// Default: 64 MiB.
	MemTable uint64
	// ValueSeparation is the least size in bytes of a sealed block that lies in a blob file, which
	// writes less and reads one step further. Default: 1,024; negative: never.
	ValueSeparation int

	// FS is the file system. Default: the operating system's. A file system that wraps the
	// operating system's has its locks too, besides its own; any other has its own alone, under
	// which a directory is open once, read only or not.
	FS vfs.FS
	// Fatal is called when the storage engine cannot go on because a write of its log failed; it
	// must end the process or the goroutine. Default: the message goes to the logger and to
	// standard error, and the process ends with status 1. Nothing acknowledged is lost.
	Fatal func(msg string)
}

// DefaultName is the name of a store that Open makes.
const DefaultName = "default"

func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if c.RecordCache == 0 {
		c.RecordCache = DefaultRecordCache
	}
	if c.RowCache == 0 {
		c.RowCache = DefaultRowCache
	}
	c.Pebble.FS = c.Pebble.fs()
	if c.VaultRate == 0 {
		c.VaultRate = DefaultVaultRate
	}
	if c.AnchorEvery == 0 {
		c.AnchorEvery = DefaultAnchorEvery
	}
	if c.Pebble.BlockCache < 0 || c.VaultRate < 0 || c.RewriteRate < 0 || c.AnchorEvery < 0 {
		return c, fmt.Errorf("block: options: Pebble.BlockCache, VaultRate, RewriteRate and AnchorEvery must not be negative")
	}
	c.Keyring.ReadOnly = c.Keyring.ReadOnly || c.ReadOnly
	c.Keyring.RequireAccess = c.Keyring.RequireAccess || c.RequireAccess
	return c, inner.RequireKEKs("block: options: Keyring.OtherKEKs", c.Keyring.OtherKEKs)
}

func (o *PebbleOptions) fs() vfs.FS {
	if o.FS == nil {
		return vfs.Default
	}
	return o.FS
}
