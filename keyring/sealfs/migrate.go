package sealfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/keyring"
)

// MigrateOptions are the options of [SealDir] and [UnsealDir]. nil options are the defaults.
type MigrateOptions struct {
	// FS are the options of the FS that the database is opened with when it is sealed. Its
	// NoAccess says what a migration does without access; ending its context ends the waiting.
	FS *Options
	// Also are the other directories with files of the same database: Options.WALDir of
	// Pebble's, the secondary directory of its WALFailover, the one of its ArchiveCleaner.
	Also []string
	// OnFile is called after each file that was migrated, with how many bytes of content it has.
	OnFile func(path string, size int64)
}

// Migrated is what a migration did.
type Migrated struct {
	Files int   // that were sealed, or unsealed, by this call
	Bytes int64 // of their content
	There int   // files that were so already, by a call before
}

// ErrInUse says that a process has the database open, this one or another.
var ErrInUse = errors.New("a process has the database open")

// The marks of a migration that is not finished: empty files, which have no content to be torn. Pebble
// opens no directory that has a file whose name begins with "marker." and is none of its own, before it
// changes anything there, and its error has that name: so it says what to do.
const (
	sealingMark   = "marker.half-sealed-run-the-same-migration-again"
	unsealingMark = "marker.half-unsealed-run-the-same-migration-again"
)

// SealDir seals the database that a Pebble has in dir, on plain files, in place. Afterwards it opens
// through an [FS] of the same keyring, and no more without. [UnsealDir] is the way back.
//
// The database has to be closed: SealDir holds Pebble's lock of the directory, and one like it of each in
// Also, where it leaves an empty file LOCK, and fails with [ErrInUse] if another has one. How it was closed does not matter: a log with a torn tail is sealed as it is, byte
// for byte, for Pebble to judge.
//
// One file after the other is sealed beside, synced, and put into the place of the plain one, its name
// durable before the next one is begun. So the disk needs room for one more file, the largest, and the
// machine may stop at any moment: no file is ever missing or half written. Until all are done a mark
// in the directory keeps it from being opened, plainly or sealed. After an error or a crash call SealDir
// again, which goes on, or UnsealDir, which goes back; Pebble's error on opening names the mark.
//
// Every name in the directory has to be one of Pebble's. Anything else is an error before anything is
// changed: another file, a directory that is not in Also, a symbolic link, a database with tables in
// remote storage. A keyring document may lie there, and stays as it is. Errors, beside those of the file system and of the keyring: [ErrInUse];
// fs.ErrNotExist if dir has no database; [ErrNotSealed] for files of both kinds without a mark, which no
// migration leaves.
//
// What it cannot do:
//
//   - The plain bytes stay on the medium until something is written over them: in blocks that the file system
//     has freed, in its journal, in snapshots, in the spare blocks of an SSD. Sealing protects what is
//     written from then on, and copies that are made of the directory. To be rid of the old bytes too,
//     encrypt or discard the medium, or restore a sealed copy to a new one.
//   - Backups and checkpoints stay plain, also those that share files with the directory by hard links:
//     a sealed file is a new one. So sealing a directory whose tables a checkpoint shares takes their room
//     once more.
//   - It authenticates what it finds: what somebody altered before is sealed as it is.
func SealDir(ctx context.Context, under vfs.FS, dir string, r *keyring.Keyring, opts *MigrateOptions) (Migrated, error) {
	m, err := migrate(ctx, under, dir, r, opts, true)
	if err != nil {
		return m, fmt.Errorf("sealfs: seal %s: %w", dir, err)
	}
	return m, nil
}

// UnsealDir is the way back from [SealDir]: it turns the sealed database in dir into one on plain files,
// in the same way, with the same errors, and can be called again in the same way. Each file is
// authenticated while it is read; one that does not open is an error that names it, and stays. What a crash
// left of a sealed file that was being made is one too: open the database once, which removes it, and close it.
func UnsealDir(ctx context.Context, under vfs.FS, dir string, r *keyring.Keyring, opts *MigrateOptions) (Migrated, error) {
	m, err := migrate(ctx, under, dir, r, opts, false)
	if err != nil {
		return m, fmt.Errorf("sealfs: unseal %s: %w", dir, err)
	}
	return m, nil
}

// migration is one call.
type migration struct {
	ctx  context.Context
	fs   *FS // its own: nobody else has its files
	dirs []string
	seal bool
	on   func(string, int64)
	done Migrated
}

func migrate(ctx context.Context, under vfs.FS, dir string, r *keyring.Keyring, opts *MigrateOptions, seal bool) (done Migrated, err error) {
	var o MigrateOptions
	if opts != nil {
		o = *opts
	}
	f, err := New(under, r, o.FS)
	if err != nil {
		return Migrated{}, err
	}
	defer context.AfterFunc(ctx, func() { f.Stop(context.Cause(ctx)) })()
	m := &migration{ctx: ctx, fs: f, dirs: append([]string{dir}, o.Also...), seal: seal, on: o.OnFile}
	if m.on == nil {
		m.on = func(string, int64) {}
	}
	// Before the lock, which makes a file. Whoever has the database open removes others meanwhile.
	if names, err := under.List(dir); err != nil {
		return Migrated{}, err
	} else if !slices.ContainsFunc(names, isManifest) {
		return Migrated{}, fmt.Errorf("there is no database of Pebble's, as it has no manifest: %w", fs.ErrNotExist)
	}
	locks, err := m.lock()
	defer func() {
		for _, l := range locks {
			err = errors.Join(err, l.Close())
		}
	}()
	if err != nil {
		return Migrated{}, err
	}
	err = m.run()
	return m.done, err
}

// lock locks all directories: the first is Pebble's own lock, and by the others two migrations that share one
// keep out each other. The caller closes what it returns, with an error too.
func (m *migration) lock() (locks []io.Closer, err error) {
	under := m.fs.under
	var paths []string
	for _, dir := range m.dirs {
		path := under.PathJoin(dir, "LOCK")
		if slices.Contains(paths, path) {
			continue
		}
		paths = append(paths, path)
		l, err := under.Lock(path)
		if pathErr := (*fs.PathError)(nil); err != nil && !errors.As(err, &pathErr) {
			return locks, fmt.Errorf("%s: %w: %w", dir, ErrInUse, err)
		} else if err != nil {
			return locks, err
		}
		locks = append(locks, l)
	}
	return locks, nil
}

// run migrates. The locks are held.
func (m *migration) run() error {
	found, err := m.list()
	if err != nil {
		return err
	}
	mark, other := sealingMark, unsealingMark
	if !m.seal {
		mark, other = other, mark
	}
	if len(found.marks) == 0 {
		if there, err := m.check(found); err != nil {
			return err
		} else if there {
			m.done.There = len(found.files)
			return nil
		}
	}
	// Without access nothing is begun. What is waited for is waited for here, and not in a directory that
	// nobody can open meanwhile.
	if err := m.fs.retry(func() error {
		hold, err := m.fs.acquire()
		if err == nil {
			hold.Release()
		}
		return err
	}); err != nil {
		return err
	}
	// The new mark is durable before the old one goes, and that before the first file changes. With both,
	// after a crash, either migration goes on.
	if err := m.putMark(mark); err != nil {
		return err
	}
	if err := m.dropMark(other); err != nil {
		return err
	}
	for _, path := range found.left {
		if err := m.fs.under.Remove(path); err != nil {
			return err
		}
	}
	for _, path := range m.ordered(found.files) {
		if err := context.Cause(m.ctx); err != nil {
			return err
		}
		did, size, err := m.migrateFile(path)
		if err != nil {
			return err
		}
		if !did {
			m.done.There++
			continue
		}
		m.done.Files++
		m.done.Bytes += size
		m.on(path, size)
	}
	return m.dropMark(mark)
}

func (m *migration) markPath(mark string) string { return m.fs.under.PathJoin(m.dirs[0], mark) }

func (m *migration) putMark(mark string) error {
	u, err := m.fs.under.Create(m.markPath(mark), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(u.Sync(), u.Close()); err != nil {
		return err
	}
	return m.fs.syncDir(m.markPath(mark))
}

func (m *migration) dropMark(mark string) error {
	if err := m.fs.under.Remove(m.markPath(mark)); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return m.fs.syncDir(m.markPath(mark))
}

// ordered puts the manifests first when sealing and last when unsealing, so that meanwhile a Pebble on
// plain files finds one that it cannot read, and would, even if it did not know the mark.
func (m *migration) ordered(files []string) []string {
	var manifests, rest []string
	for _, path := range files {
		if isManifest(m.fs.under.PathBase(path)) {
			manifests = append(manifests, path)
		} else {
			rest = append(rest, path)
		}
	}
	if m.seal {
		return append(manifests, rest...)
	}
	return append(rest, manifests...)
}

// check looks at a directory without a mark, before anything is changed. It reports whether all files are
// as they should be already.
func (m *migration) check(found listing) (there bool, err error) {
	var plain, sealed string // one of each
	var unsure []string      // cut off before the head, if they had one
	for _, path := range found.files {
		state, err := m.stateOf(path)
		switch {
		case err != nil:
			return false, err
		case state == statePlain:
			plain = path
		case state == stateSealed:
			sealed = path
		case state == stateUnwritten:
			unsure = append(unsure, path)
		}
	}
	if plain != "" && sealed != "" {
		return false, fmt.Errorf("%s is plain and %s is sealed, and no migration was cut off here: %w", plain, sealed, ErrNotSealed)
	}
	if (sealed != "") == m.seal {
		return true, nil
	}
	if m.seal {
		return false, nil
	}
	for _, path := range unsure {
		return false, fmt.Errorf("%s was cut off before its head; open the database once, which removes what a crash left, and close it: %w", path, keyring.ErrCorrupt)
	}
	// All of them open, so that a wrong keyring, and most damage, is found now.
	for _, path := range found.files {
		if err := context.Cause(m.ctx); err != nil {
			return false, err
		}
		file, err := m.fs.Open(path)
		if err != nil {
			return false, err
		}
		if err := file.Close(); err != nil {
			return false, err
		}
	}
	return false, nil
}
