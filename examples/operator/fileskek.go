package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// A directory may be under a file KEK (block.DBOptions.FileKEK): then everything in it is sealed, what the
// commands without a key read too. That it is says BLOCKSEAL.keyring, and on which key, in clear.

// fileKEKFlags say where the file KEK is, and which one a new directory gets.
type fileKEKFlags struct {
	vault vaultFlags
	key   string
}

func (a *app) addFileKEK(c *cobra.Command) {
	a.fileKEK.vault.add(c, "files-", "the vault with the KEK that the files of DIR are sealed under, if they are and it is not the one of --vault")
}

// fileKeyring reads what the document of a sealed directory says in clear; false: it is not sealed.
func fileKeyring(dir string) (info keyring.Info, sealed bool, err error) {
	path := filepath.Join(dir, "BLOCKSEAL.keyring")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return info, false, nil
	}
	if err == nil {
		info, err = keyring.Inspect(b)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return info, true, err
}

// filesVault returns the vault with the file KEK.
func (s *session) filesVault(dir string, id vault.KeyID) (*opened, error) {
	a := s.app
	f := &a.fileKEK.vault
	if f.dir == "" {
		for _, v := range s.known {
			if v.ID() == id.Vault {
				return v, nil
			}
		}
		if _, err := a.vaultDir(&a.vault); err != nil {
			return nil, usagef("the files of %s are sealed under %s: give --files-vault, where that is", dir, id)
		}
		f = &a.vault
	}
	v, err := s.vault(f)
	if err == nil && id.Vault != "" && v.ID() != id.Vault {
		err = fmt.Errorf("the files of %s are sealed under %s, and the vault %s is %s: %w; --files-vault says where the file KEK is", dir, id, f.dir, v.ID(), keyring.ErrWrongKEK)
	}
	return v, err
}

// fileKEKOf returns the KEK that the files of dir are sealed under, or are to be, and its vault; nil: none.
func (s *session) fileKEKOf(dir string) (*kek.KEK, *opened, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, err
	}
	info, sealed, err := fileKeyring(abs)
	key := s.app.fileKEK.key
	if err != nil || !sealed && key == "" {
		return nil, nil, err
	}
	v, err := s.filesVault(dir, info.KEK)
	if err != nil {
		return nil, nil, err
	}
	id, label := info.KEK.Versionless(), info.StoreID.String()
	if !sealed {
		label = abs // it has no id yet
	}
	if key != "" {
		asked, err := v.parseKey(key)
		if err != nil {
			return nil, nil, err
		}
		if sealed && asked.Versionless() != id {
			return nil, nil, fmt.Errorf("the files of %s are sealed under %s already: %w; leave out --files-key", dir, info.KEK, keyring.ErrWrongKEK)
		}
		id = asked
	}
	return kek.New(v.data(label), id), v, nil
}

// fileKEKFor is fileKEKOf for a directory in which a store is about to be made: the vault of the file KEK
// remembers it.
func (a *app) fileKEKFor(s *session, dir string) (*kek.KEK, error) {
	k, v, err := s.fileKEKOf(dir)
	if err == nil && k != nil {
		err = a.remember(v.dir, dir)
	}
	return k, err
}

// opening returns the options by which a store of dir is opened or looked at, with the file KEK if there is
// one. done closes the vaults that took.
func (a *app) opening(ctx context.Context, dir, name string) (o *block.Options, done func() error, err error) {
	o = &block.Options{Name: name}
	o.Keyring.PinVersion = true
	if _, sealed, err := fileKeyring(dir); err != nil || !sealed && a.fileKEK.key == "" {
		return o, func() error { return nil }, err
	}
	s, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if o.FileKEK, _, err = s.fileKEKOf(dir); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return o, s.close, nil
}

// looked calls look with the options that a store of dir is looked at by.
func looked[T any](ctx context.Context, a *app, dir, name string, look func(o *block.Options) (T, error)) (out T, err error) {
	o, done, err := a.opening(ctx, dir, name)
	if err != nil {
		return out, err
	}
	out, err = look(o)
	return out, errors.Join(err, done())
}

// inspect is block.Inspect, under a file KEK too.
func (a *app) inspect(ctx context.Context, dir, name string) (block.Inspection, error) {
	return looked(ctx, a, dir, name, func(o *block.Options) (block.Inspection, error) { return block.Inspect(ctx, dir, o) })
}

// lookAt is block.InspectKeyring, under a file KEK too.
func (a *app) lookAt(ctx context.Context, dir, name string) (keyring.Info, error) {
	return looked(ctx, a, dir, name, func(o *block.Options) (keyring.Info, error) { return block.InspectKeyring(dir, o) })
}

// fileKEKView is the file KEK of a directory.
type fileKEKView struct {
	Directory string     `json:"directory"`
	Status    string     `json:"status"`
	KEK       string     `json:"kek"`
	Expires   *time.Time `json:"expires,omitempty"`
	Epoch     uint32     `json:"epoch"`
	Dropped   []uint32   `json:"droppedEpochs,omitempty"`
}

func (a *app) storeFiles() *cobra.Command {
	c := a.group("files", "the KEK that the files of a directory are sealed under", `Files is about the file KEK of a directory: the operator's key, under which everything in it
is sealed, beneath the KEKs of its stores. A directory gets one when it is made: store init
and store create with --files-key. All other commands find out that a directory has one, and
look for it in --files-vault, or else in --vault.`)
	var key string
	change := a.command("change-kek DIR", "move the files to another KEK", `Change-kek wraps the keyring of the files with another key, --to-key, of the same vault.
The key before is needed by checkpoints that were made until then.`,
		a.onFiles(func(ctx context.Context, v *opened, db *block.DB, w *fileKEKView) error {
			if key == "" {
				return usagef("to which key? give --to-key")
			}
			id, err := v.parseKey(key)
			if err != nil {
				return err
			}
			// Remembered before: a list that names one too many keeps a key.
			if err := a.remember(v.dir, w.Directory); err != nil {
				return err
			}
			info, _, err := fileKeyring(w.Directory)
			if err != nil {
				return err
			}
			return db.ChangeFileKEK(ctx, kek.New(v.data(info.StoreID.String()), id))
		}))
	change.Flags().StringVar(&key, "to-key", "", "the `KEY`; without a version, the current one")
	c.AddCommand(
		a.command("state DIR", "show the file KEK, its version and its epoch", "", a.onFiles(func(context.Context, *opened, *block.DB, *fileKEKView) error { return nil })),
		a.command("rotate-kek DIR", "move the files to the key's newest version", `Rotate-kek wraps the keyring of the files with the newest version of the file KEK: a constant
number of vault calls, whatever the data. The version before is needed by checkpoints that
were made until then.`,
			a.onFiles(func(ctx context.Context, _ *opened, db *block.DB, _ *fileKEKView) error { return db.RotateFileKEK(ctx) })),
		a.command("rotate-epoch DIR", "give each file a DEK record of a new epoch, and destroy the epochs before", `Rotate-epoch rewrites the head of each file, and no contents. It calls no vault. What the
medium keeps of files that were removed before opens no more; checkpoints open as before.`,
			a.onFiles(func(ctx context.Context, _ *opened, db *block.DB, w *fileKEKView) (err error) {
				w.Dropped, err = db.RotateFileEpoch(ctx)
				return err
			})),
		change)
	return c
}

// onFiles runs do with a directory open that is under a file KEK, and shows what that is afterwards.
func (a *app) onFiles(do func(ctx context.Context, v *opened, db *block.DB, w *fileKEKView) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) (err error) {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		if _, sealed, err := fileKeyring(dir); err != nil {
			return err
		} else if !sealed {
			return fmt.Errorf("%s has no file KEK: it has no BLOCKSEAL.keyring", dir)
		}
		s, err := a.open(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		_, v, err := s.fileKEKOf(dir)
		if err != nil {
			return err
		}
		return a.withDB(ctx, dir, false, func(db *block.DB) error {
			w := &fileKEKView{Directory: dir}
			if err := do(ctx, v, db, w); err != nil {
				return err
			}
			st := db.FileKEK().State
			w.Status, w.KEK, w.Epoch = st.Status.String(), st.KEK.String(), st.Epoch
			if !st.KEKExpires.IsZero() {
				w.Expires = &st.KEKExpires
			}
			return a.show(w, func(t *table) {
				t.row("directory", w.Directory)
				t.row("status", w.Status)
				t.row("KEK", w.KEK)
				if w.Expires != nil {
					t.row("expires", *w.Expires)
				}
				t.row("epoch", w.Epoch)
				if len(w.Dropped) > 0 {
					t.row("epochs destroyed", fmt.Sprint(w.Dropped))
				}
			})
		})
	}
}
