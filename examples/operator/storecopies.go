package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// writeJSON writes a new file.
func (a *app) writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.writeSecret(path, append(b, '\n'))
}

func (a *app) storeCheckpoint(f *storeFlags) *cobra.Command {
	return a.command("checkpoint DIR COPY", "make a copy, and register it", `Checkpoint makes a copy of the store in the directory COPY, which must not exist, and
registers it: the copy is moved along when the store's KEK is changed, as long as it
can be reached, and counts as a use of its KEK version. It needs no access.

A copy opens Inaccessible and waits for store revalidate.

A directory of several stores is copied whole. Each store remembers its copy, but as none
of them is open meanwhile the copies are in doubt (store copies list): they are not moved
along by themselves. To copy one store alone: store move export.`,
		func(ctx context.Context, args []string) error {
			if f.name == "" {
				if _, err := a.lookAt(ctx, args[0], ""); errors.Is(err, block.ErrNoStore) {
					return a.checkpointAll(ctx, args[0], args[1])
				}
			}
			return a.checkpointStore(ctx, f, args)
		})
}

// checkpointAll copies a directory of several stores.
func (a *app) checkpointAll(ctx context.Context, dir, to string) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	if err := a.withDB(ctx, dir, false, func(db *block.DB) error { return db.Checkpoint(ctx, to) }); err != nil {
		return err
	}
	stores, err := a.storesIn(ctx, to)
	if err != nil {
		return err
	}
	return a.show(map[string]any{"copy": to, "stores": len(stores)}, func(t *table) {
		t.row("copied", fmt.Sprintf("%d stores to %s", len(stores), to))
	})
}

func (a *app) checkpointStore(ctx context.Context, f *storeFlags, args []string) error {
	return a.withStore(f, func(ctx context.Context, s *openStore, args []string) error {
		copyDir, err := filepath.Abs(args[1])
		if err != nil {
			return err
		}
		if err := s.Checkpoint(ctx, copyDir); err != nil {
			return err
		}
		return a.showCopies(ctx, s)
	})(ctx, args)
}

func (a *app) showCopies(ctx context.Context, s *openStore) error {
	copies, err := s.viewCopies(ctx, time.Second)
	if err != nil {
		return err
	}
	return a.show(copies, func(t *table) {
		for i, c := range copies {
			if i > 0 {
				t.row()
			}
			t.row("copy", c.Path)
			t.row("  instance", c.Instance)
			t.row("  made", c.Made)
			t.row("  generation", c.Generation)
			t.row("  state", copyState(c))
		}
	})
}

func (a *app) storeCopies(f *storeFlags) *cobra.Command {
	c := a.group("copies", "list, forget and move registered copies", "Copies works on the copies that store checkpoint made.")
	var key string
	rewrap := a.command("rewrap COPY", "move an offline copy to another KEK", `Rewrap moves a copy that a change of the KEK did not reach to --to-key of --vault, without
touching its blocks. The key that it is on must exist, in --from-vault or, by default,
in --vault. The store goes on remembering the copy with the key that it had: store
copies forget, if that was another.`,
		func(ctx context.Context, args []string) error { return a.rewrapCopy(ctx, f, args[0], key) })
	rewrap.Flags().StringVar(&key, "to-key", "", "the `KEY` to move to (default: the newest version of the key that it is on)")
	f.addRates(rewrap, true, false)
	c.AddCommand(
		a.command("list DIR", "list a store's registered copies", `List lists the copies that a store remembers, with the KEK that each was last known to
need.`,
			a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error { return a.showCopies(ctx, s) })),
		a.command("forget DIR INSTANCE", "forget a copy", `Forget makes a store forget a copy, because it was destroyed or is a store of its own.`,
			a.withStore(f, func(ctx context.Context, s *openStore, args []string) error {
				copies, err := s.Copies(ctx)
				if err != nil {
					return err
				}
				for _, c := range copies {
					if c.Instance == args[1] {
						if err := s.ForgetCopy(ctx, c.Instance); err != nil {
							return err
						}
						return a.showCopies(ctx, s)
					}
				}
				return errors.New("the store remembers no copy " + args[1])
			})),
		a.command("copy COPY TO", "copy an offline copy elsewhere, whole", `Copy copies an offline copy, or a store that is closed, into the directory TO, which must
not exist, and looks whether all of it has arrived. Meanwhile the store that made it does
not move it to another KEK, which it does later.`,
			func(ctx context.Context, args []string) error { return a.copyCopy(ctx, args[0], args[1]) }),
		rewrap)
	return c
}

// copyCopy copies the files of an offline copy, its identity last.
func (a *app) copyCopy(ctx context.Context, from, to string) (err error) {
	release, err := looked(ctx, a, from, "", func(o *block.Options) (func() error, error) { return block.HoldCheckpoint(from, o) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(to))
		}
	}()
	const identity = "BLOCKSEAL"
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != "LOCK" && e.Name() != identity {
			names = append(names, e.Name())
		}
	}
	for _, name := range append(names, identity) {
		if err := a.copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	if err := errors.Join(a.disk.syncDir(to), a.disk.syncDir(filepath.Dir(filepath.Clean(to)))); err != nil {
		return err
	}
	stores, err := a.storesIn(ctx, to)
	if err != nil {
		return err
	}
	keks := []string{}
	for _, s := range stores {
		if s.KEK != "" && !slices.Contains(keks, s.KEK) {
			keks = append(keks, s.KEK)
		}
	}
	return a.show(map[string]any{"copy": to, "files": len(names) + 1, "keks": keks}, func(t *table) {
		t.row("copied", fmt.Sprintf("%d files to %s, which needs %s", len(names)+1, to, strings.Join(keks, ", ")))
	})
}

func (a *app) copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := a.disk.open(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = io.Copy(w, r); err == nil {
		err = w.Sync()
	}
	return errors.Join(err, w.Close())
}

// rewrapCopy moves an offline copy.
func (a *app) rewrapCopy(ctx context.Context, f *storeFlags, dir, key string) (err error) {
	info, err := a.inspectKeyring(ctx, dir, f.name)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	session, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.close()) }()
	to, err := session.vault(&a.vault)
	if err != nil {
		return err
	}
	from := to
	if f.other.dir != "" {
		if from, err = session.vault(&f.other); err != nil {
			return err
		}
	}
	id := vault.KeyID{Vault: to.ID(), Name: info.KEK.Name}
	if key != "" {
		if id, err = to.parseKey(key); err != nil {
			return err
		}
	}
	store := info.StoreID.String()
	s := &openStore{app: a, dir: abs, id: store, name: f.name, vault: to}
	opts := a.storeOptions(s)
	opts.VaultRate = f.vaultRate
	if opts.FileKEK, _, err = session.fileKEKOf(dir); err != nil {
		return err
	}
	err = block.ChangeCheckpointKEK(ctx, dir, kek.New(from.data(store), info.KEK.Versionless()), kek.New(to.data(store), id), opts)
	if err != nil {
		return err
	}
	after, err := a.inspectKeyring(ctx, dir, f.name)
	if err != nil {
		return err
	}
	return a.show(map[string]string{"copy": abs, "from": info.KEK.String(), "to": after.KEK.String()}, func(t *table) {
		t.row("copy", abs)
		t.row("from", info.KEK)
		t.row("to", after.KEK)
	})
}
