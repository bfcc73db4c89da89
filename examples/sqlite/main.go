// Sqlite is an SQLite database under a customer's key, without cgo. It is a module of its own, so that
// SQLite is no dependency of anybody else:
//
//	go -C examples/sqlite run .
//
// vfs.go and lock.go are a VFS of SQLite's on the pages of keyring/sealfs: the database, its rollback
// journal, its WAL and its temporary files are sealed. A program names it in the URI of a database, and
// is otherwise as it was. This file opens one in WAL mode and one with a rollback journal, looks at what is on
// the disk, takes the key away, and gives it back.
//
// What a program sees without the key: an error of SQLite's that matches sqlite3.IOERR_AUTH. A transaction
// that loses the key in its middle is rolled back when the database is read with the key again. What SQLite has
// in its page cache is in its memory, in clear, and in WAL mode it reads that without asking the file. So who
// promises that nothing is read after the key was taken away asks first, as with does here.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ncruces/go-sqlite3"
	sqlite "github.com/ncruces/go-sqlite3/vfs"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		log.Fatal("sqlite: ", err)
	}
}

// with calls do inside of a hold, so that a lock of the keyring is announced only after it has ended, and
// nothing that SQLite has in memory is read after one. The transaction ends in do. An error of a key that is
// away has its reason, which SQLite does not keep.
func with(r *keyring.Keyring, do func() error) error {
	hold, err := r.Acquire()
	if err != nil {
		return err
	}
	err = do()
	hold.Release()
	if errors.Is(err, sqlite3.IOERR_AUTH) {
		again, why := r.Acquire()
		if why != nil {
			return fmt.Errorf("%w: %w", err, why)
		}
		again.Release()
	}
	return err
}

func run(ctx context.Context, out io.Writer) (err error) {
	root, err := os.MkdirTemp("", "blockseal-sqlite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	v, err := local.OpenOrCreate(filepath.Join(root, "vault"), []byte("correct horse battery staple"), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if _, err := v.EnsureKey(ctx, "customer", nil); err != nil {
		return err
	}
	if err := v.Grant(ctx, "sqlite", local.DataPlane()...); err != nil {
		return err
	}
	dir := filepath.Join(root, "db")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	k := kek.New(v.As("sqlite"), vault.KeyID{Name: "customer"})
	r, err := keyring.OpenOrCreate(ctx, keyring.FileStorage(filepath.Join(root, "keyring")), k, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	fs, err := sealfs.New(vfs.Default, r, nil)
	if err != nil {
		return err
	}
	sealed, err := NewVFS(fs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sealed.Close()) }()
	sqlite.Register("sealed", sealed)
	defer sqlite.Unregister("sealed")
	for _, mode := range []string{"wal", "delete"} {
		if err := demonstrate(ctx, out, v, r, filepath.Join(dir, mode+".db"), mode); err != nil {
			return fmt.Errorf("journal_mode %s: %w", mode, err)
		}
	}
	return nil
}

const secret = "a row that nobody else reads"

// demonstrate fills a database, takes its key away, and gives it back.
func demonstrate(ctx context.Context, out io.Writer, v *local.Vault, r *keyring.Keyring, path, mode string) (err error) {
	db, err := sqlite3.OpenContext(ctx, URI("sealed", path, "journal_mode("+mode+")"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	const insert = `CREATE TABLE t (id INTEGER PRIMARY KEY, row TEXT);
		BEGIN; INSERT INTO t (row) SELECT '` + secret + `' FROM generate_series; END;`
	if err := with(r, func() error { return db.Exec(strings.Replace(insert, "generate_series", series(1000), 1)) }); err != nil {
		return err
	}
	files, found, err := search(filepath.Dir(path), secret)
	if err != nil {
		return err
	}
	if found > 0 {
		return fmt.Errorf("%d of %d files show the rows", found, files)
	}
	fmt.Fprintf(out, "%-13s 1,000 rows; none is to be found in %d files\n", mode, files)

	if err := v.Revoke(ctx, "sqlite", local.DataPlane()...); err != nil {
		return err
	}
	if r.Revalidate(ctx) == nil { // in place of waiting for the next check
		return errors.New("the vault still gives access")
	}
	count := func() (n int, err error) {
		err = with(r, func() error { n, err = query(db, `SELECT count(*) FROM t`); return err })
		return n, err
	}
	if _, err := count(); !errors.Is(err, keyring.ErrInaccessible) || !errors.Is(err, vault.ErrAccessDenied) {
		return fmt.Errorf("a query without the key said: %v", err)
	}
	// Who does not ask first is stopped at the file.
	if err := db.Exec(`INSERT INTO t (row) VALUES ('lost')`); !errors.Is(err, sqlite3.IOERR_AUTH) {
		return fmt.Errorf("an insert without the key said: %v", err)
	}
	fmt.Fprintf(out, "revoked       queries say: %v, %v\n", keyring.ErrInaccessible, vault.ErrAccessDenied)

	if err := v.Grant(ctx, "sqlite", local.DataPlane()...); err != nil {
		return err
	}
	if err := r.Revalidate(ctx); err != nil {
		return err
	}
	n, err := count()
	if err != nil {
		return err
	}
	if err := check(db); err != nil {
		return err
	}
	fmt.Fprintf(out, "returned      %d rows; integrity_check: ok\n", n)
	return nil
}

// series is a table of so many rows.
func series(n int) string {
	return fmt.Sprintf("(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM s WHERE i < %d) SELECT i FROM s)", n)
}

// query returns the number that a query has in its first row.
func query(db *sqlite3.Conn, sql string) (n int, err error) {
	stmt, _, err := db.Prepare(sql)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	if stmt.Step() {
		n = stmt.ColumnInt(0)
	}
	return n, stmt.Err()
}

// check is PRAGMA integrity_check.
func check(db *sqlite3.Conn) (err error) {
	stmt, _, err := db.Prepare(`PRAGMA integrity_check`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	for stmt.Step() {
		if said := stmt.ColumnText(0); said != "ok" {
			return fmt.Errorf("integrity_check: %s", said)
		}
	}
	return stmt.Err()
}

// search returns how many files in dir there are, and in how many of them a text is in clear.
func search(dir, text string) (files, found int, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return 0, 0, err
		}
		files++
		if strings.Contains(string(b), text) {
			found++
		}
	}
	return files, found, nil
}
