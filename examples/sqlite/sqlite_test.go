package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/ncruces/go-sqlite3"
	sqlite "github.com/ncruces/go-sqlite3/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var every = flag.Int("every", 40, "of how many operations on the disk TestCrash stops the machine in one")

// modes are the ways in which SQLite keeps a transaction whole, each as durable as it can be.
var modes = []struct {
	name    string
	pragmas []string
}{
	{"delete", []string{"journal_mode(delete)", "synchronous(extra)"}},
	{"truncate", []string{"journal_mode(truncate)", "synchronous(extra)"}},
	{"persist", []string{"journal_mode(persist)", "synchronous(extra)"}},
	{"wal", []string{"journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(20)"}},
	{"wal alone", []string{"locking_mode(exclusive)", "journal_mode(wal)", "synchronous(full)", "wal_autocheckpoint(20)"}},
}

// rig is a keyring on a vault in memory.
type rig struct {
	t    *testing.T
	v    *vaulttest.Vault
	ring *keyring.Keyring
}

func newRig(t *testing.T) *rig {
	v := vaulttest.New(nil)
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, v.CreateKey("customer").Versionless()), nil)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return &rig{t, v, r}
}

// vfs registers one on a file system, and returns its name.
func (g *rig) vfs(under vfs.FS) string {
	g.t.Helper()
	fs, err := sealfs.New(under, g.ring, nil)
	require.NoError(g.t, err)
	v, err := NewVFS(fs)
	require.NoError(g.t, err)
	name := filepath.Base(v.index)
	sqlite.Register(name, v)
	g.t.Cleanup(func() {
		sqlite.Unregister(name)
		require.NoError(g.t, v.Close())
	})
	return name
}

func open(t *testing.T, uri string) *sqlite3.Conn {
	t.Helper()
	db, err := sqlite3.Open(uri)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestDemonstration(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Equal(t, 2, strings.Count(out.String(), "integrity_check: ok"))
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, len(strings.TrimSpace(line)), 80)
	}
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// fill makes a database whose rows, indexes and temporary files have the secret in them.
const fill = `CREATE TABLE t (id INTEGER PRIMARY KEY, row TEXT); CREATE INDEX i ON t (row);
	BEGIN; INSERT INTO t (row) SELECT '` + secret + ` ' || i FROM s; UPDATE t SET row = row || ' again' WHERE id % 2; END;`

// In every mode the database is what it is on plain files, opened again too. In a transaction, whose journal
// or WAL is there, nothing is to be found on the disk; of the same on plain files it is.
func TestModes(t *testing.T) {
	for _, mode := range modes {
		for _, kind := range []string{"plain", "sealed"} {
			t.Run(mode.name+"/"+kind, func(t *testing.T) {
				name := "os"
				if kind == "sealed" {
					name = newRig(t).vfs(vfs.Default)
				}
				dir := t.TempDir()
				uri := URI(name, filepath.Join(dir, "some [%] db"), mode.pragmas...)
				db := open(t, uri)
				require.NoError(t, db.Exec(strings.Replace(fill, "FROM s;", "FROM "+series(2000)+";", 1)))
				require.NoError(t, db.Exec(`PRAGMA cache_size = 10; BEGIN; UPDATE t SET row = row || ' in flight'; SELECT * FROM t ORDER BY row DESC;`))
				files, found, err := search(dir, secret)
				require.NoError(t, err)
				require.GreaterOrEqual(t, files, 2)
				require.Equal(t, kind == "plain", found > 0, "%d of %d files", found, files)
				require.NoError(t, db.Exec(`ROLLBACK`))
				require.NoError(t, check(db))
				require.NoError(t, db.Close())

				db = open(t, uri)
				n, err := query(db, `SELECT count(*) FROM t WHERE row LIKE '`+secret+`%' AND row NOT LIKE '%flight'`)
				require.NoError(t, err)
				require.Equal(t, 2000, n)
				require.NoError(t, db.Exec(`DELETE FROM t WHERE id > 100; VACUUM;`))
				require.NoError(t, check(db))
				require.NoError(t, db.Close())
			})
		}
	}
}

// Without the key nothing is read or written, a transaction that is under way included, and with the key
// everything that was committed is there.
func TestRevoked(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			g := newRig(t)
			uri := URI(g.vfs(vfs.Default), filepath.Join(t.TempDir(), "db"), mode.pragmas...)
			db := open(t, uri)
			require.NoError(t, db.Exec(strings.Replace(fill, "FROM s;", "FROM "+series(2000)+";", 1)))
			require.NoError(t, db.Exec(`PRAGMA cache_size = 10; BEGIN; UPDATE t SET row = 'lost' WHERE id < 500;`))
			g.v.Revoke()
			require.Error(t, g.ring.Revalidate(t.Context()))
			err := with(g.ring, func() error { _, err := query(db, `SELECT count(*) FROM t`); return err })
			require.ErrorIs(t, err, keyring.ErrInaccessible)
			err = db.Exec(`UPDATE t SET row = 'lost'; COMMIT;`)
			require.ErrorIs(t, err, sqlite3.IOERR_AUTH)
			_, err = sqlite3.Open(uri)
			require.Error(t, err)
			require.NotContains(t, err.Error(), secret)
			if db.GetAutocommit() == false {
				db.Exec(`ROLLBACK`) // which may need the key, and leaves a journal then
			}
			g.v.Restore()
			require.NoError(t, g.ring.Revalidate(t.Context()))
			require.NoError(t, db.Close())
			db = open(t, uri)
			n, err := query(db, `SELECT count(*) FROM t WHERE row LIKE '`+secret+`%'`)
			require.NoError(t, err)
			require.Equal(t, 2000, n)
			require.NoError(t, check(db))
			require.NoError(t, db.Close())
		})
	}
}

// The machine may stop in any operation on the disk, with none, half or all kept of what was not synced, and
// pages of the database torn: what was committed is there, and the transaction that was under way as a whole
// or not at all.
func TestCrash(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			g := newRig(t)
			mem := vfs.NewCrashableMem()
			type crash struct {
				committed int
				left      *vfs.MemFS
			}
			var (
				mu        sync.Mutex
				crashes   []crash
				n, commit int
				counting  bool
			)
			injector := errorfs.InjectorFunc(func(op errorfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if n++; counting && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && n%*every == 0 && op.Kind != errorfs.OpLock {
					crashes = append(crashes, crash{commit, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[len(crashes)%3], RNG: rand.New(rand.NewPCG(uint64(n), 1))})})
				}
				return nil
			})
			db := open(t, URI(g.vfs(errorfs.Wrap(mem, injector)), "/db", mode.pragmas...))
			require.NoError(t, db.Exec(`PRAGMA cache_size = 10; CREATE TABLE t (id INTEGER PRIMARY KEY, version INTEGER, filler BLOB);
				BEGIN; INSERT INTO t SELECT i, 0, randomblob(900) FROM `+series(100)+`; END;`))
			mu.Lock()
			counting = true
			mu.Unlock()
			for i := 1; i <= 15; i++ {
				require.NoError(t, db.Exec(fmt.Sprintf(`BEGIN; UPDATE t SET version = %d, filler = randomblob(900 + 10*%d); END;`, i, i)))
				mu.Lock()
				commit = i
				mu.Unlock()
			}
			mu.Lock()
			counting = false
			mu.Unlock()
			require.NoError(t, db.Close())
			require.Greater(t, len(crashes), 20)
			for i, c := range crashes {
				why := fmt.Sprintf("crash %d of %d, of those with %d%%", i, len(crashes), []int{0, 50, 100}[i%3])
				db, err := sqlite3.Open(URI(g.vfs(c.left), "/db", mode.pragmas...))
				require.NoError(t, err, why)
				require.NoError(t, check(db), why)
				least, err := query(db, `SELECT min(version) FROM t`)
				require.NoError(t, err, why)
				most, err := query(db, `SELECT max(version) FROM t`)
				require.NoError(t, err, why)
				rows, err := query(db, `SELECT count(*) FROM t`)
				require.NoError(t, err, why)
				require.Equal(t, least, most, "%s: a transaction is half there", why)
				require.GreaterOrEqual(t, least, c.committed, why)
				require.LessOrEqual(t, least, c.committed+1, why)
				require.Equal(t, 100, rows, why)
				require.NoError(t, db.Close(), why)
			}
			t.Logf("%d crashes", len(crashes))
		})
	}
}

// Pages that would share a sealed one are refused, when a database is made and by VACUUM: of a sealed page that a
// crash tore the journal could not restore a part. Larger ones are as good as the default.
func TestPageSizes(t *testing.T) {
	for _, mode := range modes {
		for _, size := range []int{512, 1024, 2048, 4096, 8192, 65536} {
			t.Run(fmt.Sprint(mode.name, "/", size), func(t *testing.T) {
				g := newRig(t)
				uri := URI(g.vfs(vfs.Default), filepath.Join(t.TempDir(), "db"), append([]string{fmt.Sprintf("page_size(%d)", size)}, mode.pragmas...)...)
				db, err := sqlite3.Open(uri) // a WAL has a page written at once
				if err == nil {
					err = db.Exec(`CREATE TABLE t (id INTEGER PRIMARY KEY)`)
					require.NoError(t, db.Close())
				}
				if size >= pageSize {
					require.NoError(t, err)
					require.NoError(t, check(open(t, uri)))
				} else {
					require.ErrorContains(t, err, "I/O error")
				}
			})
		}
	}
	g := newRig(t)
	uri := URI(g.vfs(vfs.Default), filepath.Join(t.TempDir(), "db"))
	db := open(t, uri)
	require.NoError(t, db.Exec(strings.Replace(fill, "FROM s;", "FROM "+series(300)+";", 1)))
	err := db.Exec(`PRAGMA page_size = 1024; VACUUM;`)
	require.ErrorIs(t, err, sqlite3.IOERR_WRITE)
	require.NoError(t, db.Close())
	db = open(t, uri)
	n, err := query(db, `SELECT count(*) FROM t WHERE row LIKE '`+secret+`%'`)
	require.NoError(t, err)
	require.Equal(t, 300, n)
	require.NoError(t, check(db))
}

// Connections of one process lock each other out as SQLite wants it, and another process, or another FS, is
// kept out.
func TestConnections(t *testing.T) {
	for _, mode := range modes[:4] {
		t.Run(mode.name, func(t *testing.T) {
			g := newRig(t)
			path := filepath.Join(t.TempDir(), "db")
			uri := URI(g.vfs(vfs.Default), path, append([]string{"busy_timeout(60000)"}, mode.pragmas...)...)
			first := open(t, uri)
			require.NoError(t, first.Exec(`CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (0);`))
			other, err := sqlite3.Open(URI(g.vfs(vfs.Default), path))
			require.ErrorContains(t, err, "a process has the database open")
			require.Nil(t, other)

			var all sync.WaitGroup
			errs := make(chan error, 4)
			for range 4 {
				all.Go(func() {
					db, err := sqlite3.Open(uri)
					for range 25 {
						if err == nil {
							err = db.Exec(`BEGIN IMMEDIATE; UPDATE t SET n = n + 1; END;`)
						}
						if err == nil {
							_, err = query(db, `SELECT n FROM t`)
						}
					}
					errs <- errors.Join(err, db.Close())
				})
			}
			all.Wait()
			for range 4 {
				require.NoError(t, <-errs)
			}
			n, err := query(first, `SELECT n FROM t`)
			require.NoError(t, err)
			require.Equal(t, 100, n)

			// A reader is not disturbed by a writer that is not done.
			require.NoError(t, first.Exec(`BEGIN IMMEDIATE; UPDATE t SET n = 7`))
			second := open(t, strings.Replace(uri, "60000", "1", 1))
			n, err = query(second, `SELECT n FROM t`)
			require.NoError(t, err)
			require.Equal(t, 100, n)
			require.ErrorIs(t, second.Exec(`BEGIN IMMEDIATE`), sqlite3.BUSY)
			require.NoError(t, first.Exec(`END`))
			n, err = query(second, `SELECT n FROM t`)
			require.NoError(t, err)
			require.Equal(t, 7, n)
			require.NoError(t, second.Close())
			require.NoError(t, first.Close())
		})
	}
}

// A byte that was altered anywhere is an error or is not read, and never other rows.
func TestDamage(t *testing.T) {
	g := newRig(t)
	path := filepath.Join(t.TempDir(), "db")
	uri := URI(g.vfs(vfs.Default), path)
	db := open(t, uri)
	require.NoError(t, db.Exec(strings.Replace(fill, "FROM s;", "FROM "+series(300)+";", 1)))
	require.NoError(t, db.Close())
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	refused := 0
	for at := 0; at < len(good); at += 997 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		db, err := sqlite3.Open(uri)
		if err == nil {
			var n int
			if n, err = query(db, `SELECT count(*) FROM t WHERE row LIKE '`+secret+`%'`); err == nil {
				require.Equal(t, 300, n)
				err = check(db)
			}
			require.NoError(t, db.Close())
		}
		if err != nil {
			refused++
		}
	}
	require.Greater(t, refused, len(good)/997*3/4)
	require.NoError(t, os.WriteFile(path, good, 0o600))
	require.NoError(t, check(open(t, uri)))
}

// The header of a WAL's frame is written with the page that follows, and in front of whatever else is done.
func TestFrameHeaders(t *testing.T) {
	g := newRig(t)
	v := sqlite.Find(g.vfs(vfs.NewMem()))
	header, page := bytes.Repeat([]byte("h"), frameHeader), bytes.Repeat([]byte("p"), pageSize)
	whole := slices.Concat(header, page, header)
	for name, next := range map[string]func(f sqlite.File) error{
		"read":     func(f sqlite.File) error { _, err := f.ReadAt(make([]byte, 1), 0); return err },
		"write":    func(f sqlite.File) error { _, err := f.WriteAt([]byte("h"), 0); return err },
		"header":   func(f sqlite.File) error { _, err := f.WriteAt(header, 0); return err },
		"sync":     func(f sqlite.File) error { return f.Sync(0) },
		"size":     func(f sqlite.File) error { _, err := f.Size(); return err },
		"truncate": func(f sqlite.File) error { return f.Truncate(int64(len(whole))) },
		"close":    func(f sqlite.File) error { return f.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			flags := sqlite.OPEN_WAL | sqlite.OPEN_CREATE | sqlite.OPEN_READWRITE
			f, _, err := v.Open(name, flags)
			require.NoError(t, err)
			other, _, err := v.Open(name, flags)
			require.NoError(t, err)
			write := func(b []byte, at int, there int64) {
				n, err := f.WriteAt(b, int64(at))
				require.NoError(t, err)
				require.Equal(t, len(b), n)
				size, err := other.Size()
				require.NoError(t, err)
				require.Equal(t, there, size)
			}
			write(header, 0, 0)
			write(page, frameHeader, frameHeader+pageSize)
			write(header, frameHeader+pageSize, frameHeader+pageSize)
			require.NoError(t, next(f))
			got := make([]byte, len(whole))
			_, err = other.ReadAt(got, 0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(whole, got))
			require.NoError(t, other.Close())
			if name != "close" {
				require.NoError(t, f.Close())
			}
		})
	}
}

// A transaction that writes a page to the WAL twice, because the cache is full, has SQLite write the checksums of
// its frames anew, each header alone and no page behind the last. What is committed is in the file then: a process
// that dies loses nothing of it, and nothing is written later over what another connection may have put there.
func TestChecksumsAnew(t *testing.T) {
	g := newRig(t)
	dir, copied := t.TempDir(), t.TempDir()
	pragmas := []string{"journal_mode(wal)", "synchronous(normal)", "wal_autocheckpoint(0)"}
	uri := URI(g.vfs(vfs.Default), filepath.Join(dir, "db"), pragmas...)
	db := open(t, uri)
	require.NoError(t, db.Exec(`PRAGMA cache_size = 2; CREATE TABLE t (id INTEGER PRIMARY KEY, row TEXT);
		INSERT INTO t (row) SELECT hex(randomblob(500)) FROM `+series(100)))
	require.NoError(t, db.Exec(`BEGIN; UPDATE t SET row = row || '1'; UPDATE t SET row = row || '2'; UPDATE t SET row = 'last'; END`))
	for _, name := range []string{"db", "db-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(copied, name), b, 0o600))
	}
	count := func(uri string) int {
		s, _, err := open(t, uri).Prepare(`SELECT count(*) FROM t WHERE row = 'last'`)
		require.NoError(t, err)
		defer s.Close()
		require.True(t, s.Step())
		return s.ColumnInt(0)
	}
	require.Equal(t, 100, count(URI(g.vfs(vfs.Default), filepath.Join(copied, "db"), pragmas...)), "after a crash of the process")
	require.Equal(t, 100, count(uri))
}
