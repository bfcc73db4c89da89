package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func main() { cli.Main("customdb", run) }

const about = `Customdb fills a small database on blockseal with readings of instruments, asks it
by key and by index, and takes the key away in the middle.

  go run ./examples/customdb [-rows N]
`

// readings is the table of the demonstration. A row is the station's name, a zero
// byte, and a temperature; its key is a number.
var readings = Table{Name: "readings", Indexes: []Index{
	{Name: "station", Of: func(row []byte) []byte { return row[:len(row)-3] }},
	{Name: "temperature", Of: func(row []byte) []byte { return row[len(row)-2:] }},
}}

func reading(n uint64, station string, tenths uint16) (key, row []byte) {
	row = append([]byte(station), 0)
	return binary.BigEndian.AppendUint64(nil, n), binary.BigEndian.AppendUint16(row, tenths)
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	out = cli.Fit(out)
	flags := flag.NewFlagSet("customdb", flag.ContinueOnError)
	rows := flags.Int("rows", 20_000, "how `many` rows to write")
	if err := cli.Parse(flags, about, args, out); err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "blockseal-customdb-")
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
	if err := v.Grant(ctx, "database", local.DataPlane()...); err != nil {
		return err
	}
	k := kek.New(v.As("database"), vault.KeyID{Name: "customer"})
	s, err := block.Open(ctx, filepath.Join(root, "db"), k, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	db, err := OpenDB(ctx, sealed{s})
	if err != nil {
		return err
	}
	if err := fill(ctx, db, *rows, out); err != nil {
		return err
	}
	if err := ask(ctx, db, out); err != nil {
		return err
	}
	return revoke(ctx, db, s, v, out)
}

// fill writes rows, a hundred to a transaction.
func fill(ctx context.Context, db *DB, rows int, out io.Writer) error {
	line, start := cli.NewLine(out), time.Now()
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := 0; n < rows; {
		if err := db.Update(ctx, func(tx *Tx) error {
			for range min(100, rows-n) {
				key, row := reading(uint64(n), fmt.Sprintf("station %02d", rnd.IntN(40)), uint16(rnd.IntN(400)))
				if err := tx.Put(readings, key, row); err != nil {
					return err
				}
				n++
			}
			return nil
		}); err != nil {
			return err
		}
		line.Show(func() string { return "written       " + cli.Bar(int64(n), int64(rows)) })
	}
	took := time.Since(start)
	line.End("written       %s rows with two indexes, a hundred to a transaction, each durable: %s rows a second",
		cli.Count(rows), cli.Count(int(float64(rows)/took.Seconds())))
	return nil
}

// ask reads in one snapshot.
func ask(ctx context.Context, db *DB, out io.Writer) error {
	return db.View(ctx, func(tx *Tx) error {
		start, all, at, hottest := time.Now(), 0, 0, 0
		if err := tx.Scan(readings, nil, func(_, _ []byte) bool { all++; return true }); err != nil {
			return err
		}
		fmt.Fprintf(out, "scanned       %s rows in order, %v\n", cli.Count(all), time.Since(start).Round(time.Millisecond))
		if err := tx.Lookup(readings, "station", []byte("station 07"), func(_, _ []byte) bool { at++; return true }); err != nil {
			return err
		}
		if err := tx.Lookup(readings, "temperature", binary.BigEndian.AppendUint16(nil, 399), func(_, _ []byte) bool { hottest++; return true }); err != nil {
			return err
		}
		fmt.Fprintf(out, "by index      %s rows of station 07, %s rows at 39.9 degrees\n", cli.Count(at), cli.Count(hottest))
		return nil
	})
}

// revoke shows what a database's user sees when the customer takes the key away.
func revoke(ctx context.Context, db *DB, s *block.Store, v *local.Vault, out io.Writer) error {
	key, row := reading(1<<40, "station 07", 123)
	write := func() error { return db.Update(ctx, func(tx *Tx) error { return tx.Put(readings, key, row) }) }
	if err := v.Revoke(ctx, "database", local.DataPlane()...); err != nil {
		return err
	}
	if err := s.Revalidate(ctx); err == nil { // in place of waiting for the next check
		return errors.New("the vault still gives access")
	}
	err := write()
	if !errors.Is(err, block.ErrInaccessible) {
		return fmt.Errorf("a write without the key: %w", err)
	}
	fmt.Fprintf(out, "key revoked   %v\n", err)
	if err := v.Grant(ctx, "database", local.DataPlane()...); err != nil {
		return err
	}
	if err := s.Revalidate(ctx); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	fmt.Fprintf(out, "key returned  store %s, the same write succeeds\n", s.State().Status)
	if s.State().Status != keyring.Available {
		return errors.New("the store did not come back")
	}
	return nil
}
