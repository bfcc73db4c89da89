package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/storename"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// A directory may have several stores (block.DB). A command on a store opens that one alone; those
// here are about the directory.

func (f *storeFlags) addStore(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.name, "store", "", "the store's `NAME`, of several in the directory (default: the only one)")
}

// inspectKeyring reads what the keyring document of a store says in clear.
func (a *app) inspectKeyring(ctx context.Context, dir, name string) (keyring.Info, error) {
	info, err := a.lookAt(ctx, dir, name)
	if err == nil || !errors.Is(err, block.ErrNoStore) {
		return info, err
	}
	stores, listErr := a.storesIn(ctx, dir)
	i := slices.IndexFunc(stores, func(r storeRow) bool { return r.Name == name && name != "" })
	switch {
	case listErr != nil:
		return info, err
	case i >= 0:
		return info, fmt.Errorf("the store %s in %s is %s: %w", storename.Shown(name), dir, stores[i].State, block.ErrNoStore)
	case name != "":
		return info, fmt.Errorf("%s has no store %q: %w; store list shows those that there are", dir, name, block.ErrNoStore)
	case len(stores) == 0:
		return info, fmt.Errorf("%s has no store: %w; store create makes one", dir, block.ErrNoStore)
	}
	return info, usagef("%s has %d stores: give --store NAME; store list shows the names", dir, len(stores))
}

// dbOptions are what this tool wants of a directory.
func (a *app) dbOptions(readOnly bool) *block.DBOptions {
	o := &block.DBOptions{ReadOnly: readOnly, RecordCache: -1, RowCache: -1, Pebble: block.PebbleOptions{BlockCache: 8 << 20, MemTable: 8 << 20}}
	if a.verbose {
		o.Logger = slog.New(slog.NewTextHandler(a.err, nil))
	}
	return o
}

// withDB runs do with a directory open, in which none of the stores is.
func (a *app) withDB(ctx context.Context, dir string, readOnly bool, do func(db *block.DB) error) (err error) {
	if readOnly {
		if _, err := a.lookAt(ctx, dir, ""); errors.Is(err, block.ErrNotStore) || errors.Is(err, block.ErrLocked) {
			return err
		}
	}
	files, done, err := a.opening(ctx, dir, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	o := a.dbOptions(readOnly)
	o.FileKEK, o.FileKeyring = files.FileKEK, keyring.Options{PinVersion: true, RequireAccess: true, Logger: o.Logger}
	db, err := block.OpenDB(ctx, dir, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return do(db)
}

// storeRow is a store as a directory lists it, without a key: none of it is authenticated.
type storeRow struct {
	Name       string `json:"name"` // empty of an entry that cannot be read
	ID         string `json:"id,omitempty"`
	KEK        string `json:"kek,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	State      string `json:"state"`
	Error      string `json:"error,omitempty"`
}

// The states of a storeRow.
const (
	statePresent  = "present"
	stateDropping = "dropping" // begun, and not finished
	stateCreating = "creating"
	stateDamaged  = "damaged"
)

// storesIn lists the stores of a directory, sorted by their names, those too that are being dropped.
func (a *app) storesIn(ctx context.Context, dir string) (rows []storeRow, err error) {
	err = a.withDB(ctx, dir, true, func(db *block.DB) error {
		unfinished, err := db.Unfinished(ctx)
		if err != nil {
			return err
		}
		for _, u := range unfinished {
			state := stateCreating
			if u.Dropping {
				state = stateDropping
			}
			rows = append(rows, storeRow{Name: u.Name, State: state})
		}
		for s, err := range db.Stores(ctx) {
			if err := ctx.Err(); err != nil {
				return err
			}
			row := storeRow{Name: s.Name, State: statePresent}
			if err != nil {
				row.State, row.Error = stateDamaged, err.Error()
			} else {
				row.ID, row.KEK, row.Generation = s.ID.String(), s.KEK.String(), s.Generation
			}
			if i := slices.IndexFunc(rows, func(r storeRow) bool { return r.Name == s.Name && s.Name != "" }); i >= 0 {
				rows[i] = row // its document is there, so that it is made
				continue
			}
			rows = append(rows, row)
		}
		return nil
	})
	slices.SortStableFunc(rows, func(x, y storeRow) int { return cmp.Compare(x.Name, y.Name) })
	return rows, err
}

// inspected is a store of a directory with what its files say, or why they do not.
type inspected struct {
	label string
	in    block.Inspection
	err   error
}

// inspectAll looks at all stores of a directory.
func (a *app) inspectAll(ctx context.Context, dir string) []inspected {
	var out []inspected
	if info, sealed, err := fileKeyring(dir); err != nil || sealed {
		out = append(out, inspected{"of files in " + dir, block.Inspection{Keys: []block.KeyUse{{Key: info.KEK, Document: true}}}, err})
	}
	in, err := a.inspect(ctx, dir, "")
	if !errors.Is(err, block.ErrNoStore) {
		return append(out, inspected{dir, in, err})
	}
	rows, err := a.storesIn(ctx, dir)
	if err != nil {
		return append(out, inspected{dir, in, err})
	}
	for _, r := range rows {
		s := inspected{label: fmt.Sprintf("%s in %s", storename.Shown(r.Name), dir)}
		switch r.State {
		case statePresent:
			s.in, s.err = a.inspect(ctx, dir, r.Name)
		case stateDamaged:
			s.err = errors.New(r.Error)
		default:
			continue // of one that is being dropped nothing is to be opened any more
		}
		out = append(out, s)
	}
	return out
}

func (a *app) storeList() *cobra.Command {
	return a.command("list DIR", "list the stores of a directory", `List lists the stores of a directory: the name, the id and the generation of each, the KEK
version that it is on, and whether it is there, damaged, or about to be dropped. It needs
no key and no vault, changes nothing, and nothing of it is authenticated. A name is any
UTF-8: one with characters that are not seen is quoted, a long one is cut (--whole). Exit
status 4 if the entry or the keyring document of one is damaged.`,
		func(ctx context.Context, args []string) error {
			rows, err := a.storesIn(ctx, args[0])
			if err != nil {
				return err
			}
			damaged := 0
			err = a.show(append([]storeRow{}, rows...), func(t *table) {
				if len(rows) > 0 {
					t.row("NAME", "ID", "GENERATION", "STATE", "KEK")
				}
				for _, r := range rows {
					name := t.name(r.Name)
					if r.Name == "" {
						name = "?"
					}
					t.row(name, dash(t.id(r.ID)), r.Generation, r.State, dash(cmp.Or(r.KEK, r.Error)))
				}
			})
			for _, r := range rows {
				if r.State == stateDamaged {
					damaged++
				}
			}
			if damaged > 0 {
				err = errors.Join(err, fmt.Errorf("%d of the stores of %s are damaged: %w", damaged, args[0], block.ErrCorrupt))
			}
			return err
		})
}

func (a *app) storeCreate(sf *storeFlags) *cobra.Command {
	var made creation
	c := a.command("create DIR NAME", "make another store in a directory", `Create makes a store in DIR beside those that are there, on a key of the vault, and remembers
beside the vault that there is one in DIR (vault stores). DIR may be empty or not exist.
NAME has 1 to 255 bytes of UTF-8, and is compared byte by byte.

The identity that the store works as needs get, wrapKey and unwrapKey: --identity.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			if sf.name != "" {
				return usagef("the name is the second argument, and --store was given too")
			}
			s, id, opts, err := made.options(v, sf, args[0], args[1])
			if err != nil {
				return err
			}
			if err := a.remember(v.dir, s.dir); err != nil {
				return err
			}
			if _, err := a.fileKEKFor(v.session, s.dir); err != nil {
				return err
			}
			err = a.withDB(ctx, args[0], false, func(db *block.DB) error {
				// The store has no id yet: in the audit log its directory and name stand for it.
				s.Store, err = db.Create(ctx, s.name, kek.New(v.data(s.dir+" "+storename.Shown(s.name)), id), opts)
				if err != nil {
					return fromName(err)
				}
				return errors.Join(a.showState(s), s.Close())
			})
			if err != nil {
				return errors.Join(err, a.forgetNone(v.dir, s.dir))
			}
			return nil
		}))
	made.add(a, c)
	return c
}

// fromName makes an error a usageError if it says that a name is none.
func fromName(err error) error {
	if errors.Is(err, block.ErrName) {
		return usageError{err}
	}
	return err
}

func (a *app) storeDrop(f *storeFlags) *cobra.Command {
	var yes, open bool
	var out string
	c := a.command("drop DIR NAME", "remove a store of a directory for good", `Drop removes a store and everything that it has, from DIR and from its files, and shows a
receipt, as store erase does: what could still open copies of the files that were made
before. The other stores stay as they are. It cannot be undone.

It asks for the store's name again, on the terminal, or is given --yes. It takes no key,
so that it works for a customer who has revoked his. With --open it opens the store first,
so that the receipt says which of the KEK versions in it exist; if the vault refuses or
does not answer, it drops the store all the same, and the receipt says that this is not
known. A drop that was cut off is finished when it is called again, or by the next command
that opens DIR to write; store dropped has its receipt.`,
		func(ctx context.Context, args []string) (err error) {
			dir, name := args[0], args[1]
			if f.name != "" {
				return usagef("the name is the second argument, and --store was given too")
			}
			if out != "" {
				// What cannot be kept is not begun.
				if _, err := os.Lstat(out); err == nil {
					return fmt.Errorf("the receipt %s: %w", out, os.ErrExist)
				}
			}
			begun, err := a.confirmDrop(ctx, dir, name, yes)
			if err != nil {
				return err
			}
			return a.withDB(ctx, dir, false, func(db *block.DB) (err error) {
				if open && !begun {
					done, err := a.openFor(ctx, f, db, dir, name)
					if err != nil {
						return err
					}
					defer func() { err = errors.Join(err, done()) }()
				}
				r, err := db.Drop(ctx, name)
				if begun && errors.Is(err, block.ErrNoStore) {
					r, err = lastReceipt(ctx, db, name) // it was finished when the directory was opened
				}
				if err != nil {
					return err
				}
				var kept error
				if out != "" {
					kept = a.writeJSON(out, r)
				}
				return errors.Join(a.showReceipt(r), kept)
			})
		})
	c.Flags().BoolVar(&yes, "yes", false, "do not ask for the name again")
	c.Flags().BoolVar(&open, "open", false, "open the store first, and ask its vault which KEK versions exist")
	c.Flags().StringVar(&out, "receipt", "", "write the receipt to this new `file` too, as JSON")
	return c
}

// lastReceipt returns the receipt of the store of that name that was dropped last.
func lastReceipt(ctx context.Context, db *block.DB, name string) (last block.Receipt, err error) {
	for r, err := range db.Dropped(ctx) {
		if err == nil && r.Name == name {
			last = r
		}
	}
	if !last.Dropped {
		return last, fmt.Errorf("the store %s is dropped, and there is no receipt of it: %w", storename.Shown(name), block.ErrNoStore)
	}
	return last, nil
}

func (a *app) storeDropped() *cobra.Command {
	return a.command("dropped DIR", "list the receipts of the stores that were dropped", `Dropped lists the receipts of the latest stores that were dropped from DIR, in the order in
which they were made, with the KEK versions that could still open older copies of the
files. It needs no key and no vault, and nothing of it is authenticated. Exit status 4 if
one cannot be read. --json has them whole.`,
		func(ctx context.Context, args []string) error {
			receipts := []block.Receipt{}
			var damaged []error
			err := a.withDB(ctx, args[0], true, func(db *block.DB) error {
				for r, err := range db.Dropped(ctx) {
					if err := ctx.Err(); err != nil {
						return err
					}
					if err != nil {
						damaged = append(damaged, err)
						continue
					}
					receipts = append(receipts, r)
				}
				return nil
			})
			if err != nil {
				return err
			}
			return errors.Join(append(damaged, a.show(receipts, func(t *table) {
				if len(receipts) > 0 {
					t.row("NAME", "STORE", "DROPPED", "OPENED BY")
				}
				for _, r := range receipts {
					var keys []string
					for _, k := range r.Keys {
						keys = append(keys, k.Key.String())
					}
					t.row(t.name(r.Name), t.id(r.Store.String()), r.Time, dash(strings.Join(keys, ", ")))
				}
			}))...)
		})
}

// confirmDrop says what is about to be removed, and asks a person for its name, unless yes is given.
// begun says that its drop was begun before, and cut off.
func (a *app) confirmDrop(ctx context.Context, dir, name string, yes bool) (begun bool, err error) {
	rows, err := a.storesIn(ctx, dir)
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(rows, func(r storeRow) bool { return r.Name == name })
	if i < 0 || name == "" {
		return false, fmt.Errorf("%s has no store %q: %w; store list shows those that there are", dir, name, block.ErrNoStore)
	}
	row, shown := rows[i], storename.Shown(name)
	switch row.State {
	case statePresent:
		a.note("about to drop the store %s, id %s, generation %d, on %s", shown, row.ID, row.Generation, row.KEK)
	default:
		a.note("about to drop the store %s: %s", shown, row.State)
	}
	begun = row.State == stateDropping
	if yes {
		return begun, nil
	}
	answer, err := a.prompt("type the name of the store to drop it, with everything in it, for good")
	if errors.Is(err, errNoTerminal) {
		return begun, usagef("to drop a store, give --yes, or run on a terminal")
	}
	if err != nil {
		return begun, err
	}
	// One that cannot be typed is typed as it is shown.
	if typed := strings.TrimRight(string(answer), "\r\n"); typed != name && typed != shown {
		return begun, fmt.Errorf("that is not the name; nothing was dropped: %w", errRefused)
	}
	return begun, nil
}

// openFor opens a store of a DB, with the keys that it ever was on, for what asks about them.
func (a *app) openFor(ctx context.Context, f *storeFlags, db *block.DB, dir, name string) (done func() error, err error) {
	var info keyring.Info
	for s, err := range db.Stores(ctx) {
		if s.Name == name {
			if err != nil {
				return nil, err
			}
			info.StoreID, info.KEK = s.ID, s.KEK
		}
	}
	session, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	of := *f
	of.name = name
	s, k, opts, err := a.prepareStore(ctx, &of, session, dir, info, false)
	if err == nil {
		s.Store, err = db.Open(ctx, name, k, opts)
	}
	if err != nil {
		return nil, errors.Join(err, session.close())
	}
	if st := s.State(); st.Status == keyring.Inaccessible {
		a.note("the store is Inaccessible: %v", st.Cause)
	}
	return session.close, nil // Drop closes the store
}
