package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/storename"
)

func (a *app) storeMove(f *storeFlags) *cobra.Command {
	c := a.group("move", "carry a store to another directory", `Move carries a store from one directory to another, by a file or a pipe: its keyring, its
DEK records and its blocks, sealed as they are. It takes no key. To move a store:

  1. write nothing to it any more;
  2. store move export DIR --store NAME FILE
  3. store move import TO FILE
  4. store revalidate TO --store NAME: until then it is a copy, and opens for nobody;
  5. store drop DIR NAME`)
	c.AddCommand(a.moveExport(f), a.moveImport(f))
	return c
}

// movedView is a store that was written out or read in.
type movedView struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	KEK        string `json:"kek"`
	Generation uint64 `json:"generation"`
	Blocks     uint64 `json:"blocks"`
	Bytes      uint64 `json:"bytes"`
}

func viewMoved(m block.Moved) movedView {
	return movedView{m.Name, m.ID.String(), m.KEK.String(), m.Generation, m.Blocks, m.Bytes}
}

func (w movedView) rows(t *table, what string) {
	t.row(what, t.name(w.Name))
	t.row("store", w.ID)
	t.row("generation", w.Generation)
	t.row("KEK", w.KEK)
	t.row("blocks", w.Blocks)
	t.row("bytes", w.Bytes)
}

func (a *app) moveExport(f *storeFlags) *cobra.Command {
	return a.command("export DIR [FILE]", "write a store to a file or to standard output", `Export writes a store to a new file, mode 0600, or to standard output, as it is. The store
stays as it is too. Whoever has the file, and access to the KEK, has the store.`,
		func(ctx context.Context, args []string) error {
			name := f.name
			if name == "" {
				rows, err := a.storesIn(ctx, args[0])
				if err != nil {
					return err
				}
				rows = slices.DeleteFunc(rows, func(r storeRow) bool { return r.State != statePresent && r.State != stateDamaged })
				if len(rows) != 1 {
					return usagef("%s has %d stores: give --store NAME; store list shows the names", args[0], len(rows))
				}
				name = rows[0].Name
			}
			if len(args) > 1 && args[1] != "-" {
				return a.exportTo(ctx, args[0], name, args[1])
			}
			if a.json {
				return usagef("with --json the store cannot be written to standard output: give a FILE")
			}
			if a.width != nil && a.width() > 0 {
				return usagef("a store is not written to a terminal: give a FILE, or a pipe")
			}
			return a.withDB(ctx, args[0], true, func(db *block.DB) error {
				m, err := db.Export(ctx, name, a.out)
				if err != nil {
					return err
				}
				a.note("exported the store %s: %d blocks, %d bytes", storename.Shown(m.Name), m.Blocks, m.Bytes)
				return nil
			})
		})
}

// exportTo writes a store to a new file, which is whole or gone.
func (a *app) exportTo(ctx context.Context, dir, name, path string) error {
	path = filepath.Clean(path)
	return a.withDB(ctx, dir, true, func(db *block.DB) error {
		file, err := a.disk.open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		m, err := db.Export(ctx, name, file)
		if err == nil {
			err = file.Sync()
		}
		if err = errors.Join(err, file.Close()); err == nil {
			err = a.disk.syncDir(filepath.Dir(path))
		}
		if err != nil {
			return errors.Join(err, os.Remove(path))
		}
		w := viewMoved(m)
		return a.show(w, func(t *table) { w.rows(t, "exported") })
	})
}

func (a *app) moveImport(f *storeFlags) *cobra.Command {
	return a.command("import DIR [FILE]", "read a store from a file or from standard input", `Import reads a store that store move export wrote into DIR, beside those that are there. DIR
may be empty or not exist. It keeps its name, which must be free there. It arrives as a copy
does, and waits for store revalidate --store NAME.

What was cut off or damaged on the way is no store: exit status 4.`,
		func(ctx context.Context, args []string) (err error) {
			if f.name != "" {
				return usagef("a store keeps its name: --store is not for store move import")
			}
			var in io.Reader = a.in
			if len(args) > 1 && args[1] != "-" {
				file, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			return a.withDB(ctx, args[0], false, func(db *block.DB) error {
				m, err := db.Import(ctx, in)
				if err != nil {
					return err
				}
				a.note("it is a copy; to make it a store of its own: store revalidate %s --store %s", args[0], shellWord(m.Name))
				w := viewMoved(m)
				return a.show(w, func(t *table) { w.rows(t, "imported") })
			})
		})
}

// shellWord is a name as a shell takes it, if all of it is seen.
func shellWord(name string) string {
	if storename.Shown(name) != name {
		return "NAME"
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
