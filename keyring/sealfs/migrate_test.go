package sealfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// plainText is in each value of a database that is migrated.
const plainText = "a value that was there in clear"

func plainValue(i int) []byte {
	return append([]byte(plainText), content(uint64(i), 100+i*7)...)
}

// plainOptions are pebbleOptions with nothing compressed, so that a search finds what is in clear.
func plainOptions(fs vfs.FS) *pebble.Options {
	o := pebbleOptions(fs)
	for i := range o.Levels {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	return o
}

const plainValues = 150

// fillPlain makes a database on plain files: tables, blob files, a log that was reused and one with a tail.
func fillPlain(t *testing.T, under vfs.FS, dir string) *pebble.DB {
	t.Helper()
	db, err := pebble.Open(dir, plainOptions(under))
	require.NoError(t, err)
	for i := range plainValues {
		require.NoError(t, db.Set(fmt.Appendf(nil, "%05d", i), plainValue(i), pebble.Sync))
		switch i {
		case 40, 80:
			require.NoError(t, db.Flush())
		case 100:
			require.NoError(t, db.Compact(t.Context(), []byte("0"), []byte("9"), false))
		}
	}
	return db
}

// plainDatabase is one that was not closed: a crash left it, in memory.
func plainDatabase(t *testing.T) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewCrashableMem()
	require.NoError(t, mem.MkdirAll("db", 0o755))
	root, err := mem.OpenDir("")
	require.NoError(t, err)
	require.NoError(t, root.Sync())
	require.NoError(t, root.Close())
	db := fillPlain(t, mem, "db")
	left := mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, db.Close())
	return left
}

// hasAll holds that a database has all of its values.
func hasAll(t *testing.T, fs vfs.FS, dir, why string) {
	t.Helper()
	db, err := pebble.Open(dir, plainOptions(fs))
	require.NoError(t, err, why)
	it, err := db.NewIter(nil)
	require.NoError(t, err, why)
	n := 0
	for it.First(); it.Valid(); it.Next() {
		require.Equal(t, fmt.Sprintf("%05d", n), string(it.Key()), why)
		v, err := it.ValueAndErr()
		require.NoError(t, err, why)
		require.True(t, bytes.Equal(plainValue(n), v), why)
		n++
	}
	require.NoError(t, it.Close(), why)
	require.Equal(t, plainValues, n, why)
	require.NoError(t, db.Close(), why)
}

func opens(fs vfs.FS, dir string) error {
	db, err := pebble.Open(dir, plainOptions(fs))
	if err != nil {
		return err
	}
	return db.Close()
}

// filesOf returns what the files of a directory have on disk, but LOCK.
func filesOf(t *testing.T, under vfs.FS, dir string) map[string]string {
	t.Helper()
	names, err := under.List(dir)
	require.NoError(t, err)
	out := map[string]string{}
	for _, name := range names {
		if fi, err := under.Stat(under.PathJoin(dir, name)); err == nil && !fi.IsDir() && name != "LOCK" {
			out[name] = string(raw(t, under, under.PathJoin(dir, name)))
		}
	}
	return out
}

func inClear(files map[string]string) int {
	n := 0
	for _, b := range files {
		if strings.Contains(b, plainText) {
			n++
		}
	}
	return n
}

// kept is a copy of a file system in memory as it is now.
func kept(mem *vfs.MemFS) *vfs.MemFS {
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// A database that was not closed is sealed in place and unsealed again: it opens in one way at a time,
// with everything, nothing of it is in clear while it is sealed, and what is unsealed is byte for byte
// what was sealed, a log's torn tail too.
func TestMigration(t *testing.T) {
	for _, c := range []struct {
		name string
		make func() (vfs.FS, string)
	}{
		{"in memory", func() (vfs.FS, string) { return plainDatabase(t), "db" }},
		{"on a disk", func() (vfs.FS, string) {
			live, dir := t.TempDir(), t.TempDir()
			db := fillPlain(t, vfs.Default, live)
			require.NoError(t, os.CopyFS(filepath.Join(dir, "db"), os.DirFS(live)))
			require.NoError(t, db.Close())
			return vfs.Default, filepath.Join(dir, "db")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			under, dir := c.make()
			// The tail of the newest log is torn, and has what an older log left behind it.
			names, err := under.List(dir)
			require.NoError(t, err)
			slices.Sort(names)
			log := names[slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".log") })]
			putRaw(t, under, under.PathJoin(dir, log), append(raw(t, under, under.PathJoin(dir, log)), content(9, 5000)...))
			before := filesOf(t, under, dir)
			require.Greater(t, inClear(before), 2, "the search finds nothing")

			var told []string
			size := int64(0)
			did, err := sealfs.SealDir(t.Context(), under, dir, g.ring, &sealfs.MigrateOptions{OnFile: func(path string, n int64) {
				told = append(told, path)
				size += n
			}})
			require.NoError(t, err)
			sealed := filesOf(t, under, dir)
			require.Equal(t, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(sealed)), "names stay")
			require.Zero(t, inClear(sealed))
			require.Len(t, told, did.Files)
			require.Equal(t, size, did.Bytes)
			total := 0
			for name, b := range before {
				total += len(b)
				if len(b) > 0 {
					require.Equal(t, b, string(mustRead(t, g.over(under), under.PathJoin(dir, name))), name)
				}
			}
			require.EqualValues(t, total, did.Bytes)
			require.Error(t, opens(under, dir), "plainly")

			// Once more is nothing.
			again, err := sealfs.SealDir(t.Context(), under, dir, g.ring, nil)
			require.NoError(t, err)
			require.Zero(t, again.Files)
			require.Equal(t, did.Files, again.There)
			require.Equal(t, sealed, filesOf(t, under, dir))

			back, err := sealfs.UnsealDir(t.Context(), under, dir, g.ring, nil)
			require.NoError(t, err)
			require.Equal(t, did.Files, back.Files)
			require.Equal(t, before, filesOf(t, under, dir))
			_, err = sealfs.SealDir(t.Context(), under, dir, g.ring, nil)
			require.NoError(t, err)

			hasAll(t, g.over(under), dir, "sealed")
			_, err = g.over(under).RotateEpoch(t.Context(), dir)
			require.NoError(t, err)
			_, err = sealfs.UnsealDir(t.Context(), under, dir, g.ring, nil)
			require.NoError(t, err)
			require.Error(t, opens(g.over(under), dir), "through an FS")
			hasAll(t, under, dir, "plain")
		})
	}
}

// What is not to be migrated is refused, before anything is changed.
func TestMigrationRefusals(t *testing.T) {
	g := newRig(t, nil)
	other := newRig(t, nil)
	for _, c := range []struct {
		name   string
		sealed bool // already
		unseal bool
		spoil  func(mem *vfs.MemFS) error
		says   string
		is     error
		ring   *keyring.Keyring
		also   []string
	}{
		{name: "no database", spoil: func(mem *vfs.MemFS) error { return errors.Join(mem.RemoveAll("db"), mem.MkdirAll("db", 0o755)) }, is: fs.ErrNotExist, says: "no manifest"},
		{name: "no directory", spoil: func(mem *vfs.MemFS) error { return mem.RemoveAll("db") }, is: fs.ErrNotExist},
		{name: "a file of somebody else's", spoil: func(mem *vfs.MemFS) error { return touch(mem, "db/notes.txt", "x") }, says: "no file of Pebble's"},
		{name: "a directory", spoil: func(mem *vfs.MemFS) error { return mem.MkdirAll("db/checkpoint", 0o755) }, says: "was not named"},
		{name: "another database's directory", spoil: func(mem *vfs.MemFS) error {
			return errors.Join(mem.MkdirAll("wal", 0o755), touch(mem, "wal/marker.half-sealed-run-the-same-migration-again", ""))
		}, also: []string{"wal"}, says: "another database"},
		{name: "remote storage", spoil: func(mem *vfs.MemFS) error { return touch(mem, "db/REMOTE-OBJ-CATALOG-000001", "x") }, says: "remote storage"},
		{name: "a marker with content", spoil: func(mem *vfs.MemFS) error { return touch(mem, "db/marker.x.000001.y", "x") }, is: keyring.ErrCorrupt},
		{name: "a head that is none", spoil: func(mem *vfs.MemFS) error {
			return touch(mem, "db/000900.sst", "BSSEALFS"+strings.Repeat("\x00\x01\x02", 2000))
		}, is: keyring.ErrCorrupt},
		{name: "plain ones among sealed ones, again", sealed: true, spoil: func(mem *vfs.MemFS) error { return touch(mem, "db/000900.sst", strings.Repeat("x", 5000)) }, is: sealfs.ErrNotSealed, says: "no migration was cut off here"},
		{name: "plain ones among sealed ones", unseal: true, spoil: func(mem *vfs.MemFS) error { return touch(mem, "db/000900.sst", strings.Repeat("x", 5000)) }, is: sealfs.ErrNotSealed},
		{name: "a sealed one that was cut off", unseal: true, spoil: func(mem *vfs.MemFS) error { return touch(mem, "db/000900.sst", "") }, is: keyring.ErrCorrupt, says: "open the database once"},
		{name: "another keyring", unseal: true, ring: other.ring, spoil: func(mem *vfs.MemFS) error { return nil }, is: keyring.ErrCorrupt},
		{name: "another directory that is in use", spoil: func(mem *vfs.MemFS) error {
			if err := mem.MkdirAll("wal", 0o755); err != nil {
				return err
			}
			_, err := mem.Lock("wal/LOCK")
			return err
		}, also: []string{"wal"}, is: sealfs.ErrInUse, says: "wal"},
		{name: "a database that is open", spoil: func(mem *vfs.MemFS) error { _, err := mem.Lock("db/LOCK"); return err }, is: sealfs.ErrInUse},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem, do := plainDatabase(t), sealfs.SealDir
			if c.unseal {
				do = sealfs.UnsealDir
			}
			if c.unseal || c.sealed {
				_, err := sealfs.SealDir(t.Context(), mem, "db", g.ring, nil)
				require.NoError(t, err)
			}
			require.NoError(t, c.spoil(mem))
			var before map[string]string
			if c.name != "no directory" {
				before = filesOf(t, mem, "db")
			}
			ring := g.ring
			if c.ring != nil {
				ring = c.ring
			}
			_, err := do(t.Context(), mem, "db", ring, &sealfs.MigrateOptions{Also: c.also})
			require.Error(t, err)
			require.ErrorContains(t, err, c.says)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			if before != nil {
				require.Equal(t, before, filesOf(t, mem, "db"))
			}
		})
	}
}

func touch(mem *vfs.MemFS, name, content string) error {
	f, err := mem.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(content))
	return errors.Join(err, f.Sync(), f.Close())
}

// A symbolic link is refused: what it leads to would stay plain.
func TestMigrationAndSymbolicLinks(t *testing.T) {
	g := newRig(t, nil)
	dir := t.TempDir()
	require.NoError(t, fillPlain(t, vfs.Default, filepath.Join(dir, "db")).Close())
	elsewhere := filepath.Join(dir, "elsewhere")
	require.NoError(t, os.WriteFile(elsewhere, []byte("x"), 0o600))
	if err := os.Symlink(elsewhere, filepath.Join(dir, "db", "000900.sst")); err != nil {
		t.Skip(err)
	}
	_, err := sealfs.SealDir(t.Context(), vfs.Default, filepath.Join(dir, "db"), g.ring, nil)
	require.ErrorContains(t, err, "symbolic link")
	hasAll(t, vfs.Default, filepath.Join(dir, "db"), "nothing was done")
}

// A checkpoint that shares tables with the directory stays plain, and opens as before.
func TestMigrationAndCheckpoints(t *testing.T) {
	g := newRig(t, nil)
	dir := t.TempDir()
	db, checkpoint := filepath.Join(dir, "db"), filepath.Join(dir, "checkpoint")
	live := fillPlain(t, vfs.Default, db)
	require.NoError(t, live.Checkpoint(checkpoint, pebble.WithFlushedWAL()))
	require.NoError(t, live.Close())
	before := filesOf(t, vfs.Default, checkpoint)
	_, err := sealfs.SealDir(t.Context(), vfs.Default, db, g.ring, nil)
	require.NoError(t, err)
	require.Equal(t, before, filesOf(t, vfs.Default, checkpoint))
	hasAll(t, vfs.Default, checkpoint, "the checkpoint")
	hasAll(t, g.over(vfs.Default), db, "sealed")
	_, err = sealfs.SealDir(t.Context(), vfs.Default, checkpoint, g.ring, nil)
	require.NoError(t, err)
	hasAll(t, g.over(vfs.Default), checkpoint, "by itself")
}

// Logs in a directory of their own are sealed if it is named, and a keyring document in the directory
// stays what it is.
func TestMigrationOfMoreThanOneDirectory(t *testing.T) {
	dir := t.TempDir()
	wal := filepath.Join(dir, "wal")
	options := func(fs vfs.FS) *pebble.Options {
		o := plainOptions(fs)
		o.WALDir = wal
		return o
	}
	live, err := pebble.Open(dir, options(vfs.Default))
	require.NoError(t, err)
	require.NoError(t, live.Set([]byte("key"), []byte(plainText), pebble.Sync))
	require.NoError(t, live.Close())
	require.Positive(t, inClear(filesOf(t, vfs.Default, wal)), "the search finds nothing")
	k, err := fixedKEK(goldenDir)
	require.NoError(t, err)
	ring, err := keyring.Create(t.Context(), keyring.FileStorage(filepath.Join(dir, "keyring")), k, nil)
	require.NoError(t, err)
	defer ring.Close()

	_, err = sealfs.SealDir(t.Context(), vfs.Default, dir, ring, nil)
	require.ErrorContains(t, err, "was not named")
	both := &sealfs.MigrateOptions{Also: []string{wal}}
	_, err = sealfs.SealDir(t.Context(), vfs.Default, dir, ring, both)
	require.NoError(t, err)
	require.Zero(t, inClear(filesOf(t, vfs.Default, wal)))
	f, err := sealfs.New(vfs.Default, ring, nil)
	require.NoError(t, err)
	for _, fs := range []vfs.FS{f, vfs.Default} {
		db, err := pebble.Open(dir, options(fs))
		require.NoError(t, err)
		v, closer, err := db.Get([]byte("key"))
		require.NoError(t, err)
		require.Equal(t, plainText, string(v))
		require.NoError(t, closer.Close())
		require.NoError(t, db.Close())
		if fs == vfs.FS(f) {
			_, err = f.RotateEpoch(t.Context(), dir)
			require.NoError(t, err)
			_, err = sealfs.UnsealDir(t.Context(), vfs.Default, dir, ring, both)
			require.NoError(t, err)
		}
	}
}

// Without access nothing is begun, and the context ends the waiting; what loses it in the middle goes on
// when it is back, and leaves no log for torn that is whole.
func TestMigrationWithoutAccess(t *testing.T) {
	g := newRig(t, nil)
	mem := plainDatabase(t)
	before := filesOf(t, mem, "db")
	g.deny()
	fail := &sealfs.MigrateOptions{FS: &sealfs.Options{NoAccess: sealfs.Fail}}
	_, err := sealfs.SealDir(t.Context(), mem, "db", g.ring, fail)
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	require.Equal(t, before, filesOf(t, mem, "db"))

	looks := g.clock.looks.Load()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := sealfs.SealDir(ctx, mem, "db", g.ring, nil)
		ended <- err
	}()
	g.waits(looks, 1)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Equal(t, before, filesOf(t, mem, "db"))

	g.allow()
	for at := range 3 {
		n := 0
		fail.OnFile = func(string, int64) {
			if n++; n > at {
				g.deny()
			}
		}
		_, err = sealfs.SealDir(t.Context(), mem, "db", g.ring, fail)
		require.ErrorIs(t, err, keyring.ErrInaccessible)
		g.allow()
	}
	fail.OnFile = nil
	did, err := sealfs.SealDir(t.Context(), mem, "db", g.ring, fail)
	require.NoError(t, err)
	require.GreaterOrEqual(t, did.There, 6)
	hasAll(t, g.over(mem), "db", "sealed")
}

// Damage in the middle of a log that was migrated is damage, and no torn end.
func TestDamageOfMigratedLogs(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	require.NoError(t, mem.MkdirAll("db", 0o755))
	require.NoError(t, touch(mem, "db/MANIFEST-000001", "x"))
	require.NoError(t, touch(mem, "db/000002.log", string(content(1, 300_000))))
	_, err := sealfs.SealDir(t.Context(), mem, "db", g.ring, nil)
	require.NoError(t, err)
	good := raw(t, mem, "db/000002.log")
	for _, at := range []int{4096 + 100, 4096 + 70_000, len(good) - 1000} {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		putRaw(t, mem, "db/000002.log", bad)
		_, err := read(g.over(mem), "db/000002.log")
		require.ErrorIs(t, err, keyring.ErrCorrupt, at)
		_, err = sealfs.UnsealDir(t.Context(), mem, "db", g.ring, nil)
		require.ErrorIs(t, err, keyring.ErrCorrupt, at)
		putRaw(t, mem, "db/000002.log", good)
		_, err = sealfs.SealDir(t.Context(), mem, "db", g.ring, nil)
		require.NoError(t, err, "it goes back")
	}
}
