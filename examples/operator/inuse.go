package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
)

// A vault's known stores are remembered beside it, in DIR.stores: a file of lines,
// each the absolute path of a store's directory as a JSON string. The vault's own
// directory holds nothing but the vault, and the list is no secret: it is there to
// keep people from mistakes, and nothing else depends on it. DIR.stores.lock is locked
// while it is changed; whoever reads it finds the old list or the new one.

func storesFile(vaultDir string) string { return filepath.Clean(vaultDir) + ".stores" }

func knownStores(vaultDir string) ([]string, error) {
	b, err := os.ReadFile(storesFile(vaultDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var dirs []string
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var dir string
		if err := json.Unmarshal(lines.Bytes(), &dir); err != nil {
			return nil, fmt.Errorf("%s: a line is no path in JSON: %q; mend it, it says which stores the vault's keys must be kept for", storesFile(vaultDir), lines.Text())
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// remember adds a store to those that a vault is known to have.
func (a *app) remember(vaultDir, store string) error {
	store, err := filepath.Abs(store)
	if err != nil {
		return err
	}
	return a.editStores(vaultDir, func(dirs []string) ([]string, error) {
		if slices.Contains(dirs, store) {
			return dirs, nil
		}
		return append(dirs, store), nil
	})
}

// forget takes a store from them.
func (a *app) forget(vaultDir, store string) error {
	store, err := filepath.Abs(store)
	if err != nil {
		return err
	}
	return a.editStores(vaultDir, func(dirs []string) ([]string, error) {
		i := slices.Index(dirs, store)
		if i < 0 {
			return nil, fmt.Errorf("%s has no known store %s", storesFile(vaultDir), store)
		}
		return slices.Delete(dirs, i, i+1), nil
	})
}

// editStores replaces the list by what f makes of it. One process at a time does: what
// another added meanwhile must not be lost, for its store's key would be.
func (a *app) editStores(vaultDir string, f func(dirs []string) ([]string, error)) error {
	path := storesFile(vaultDir)
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	before, err := knownStores(vaultDir)
	if err != nil {
		return err
	}
	after, err := f(slices.Clone(before))
	if err != nil || slices.Equal(before, after) {
		return err
	}
	var out []byte
	for _, dir := range after {
		line, err := json.Marshal(dir)
		if err != nil {
			return err
		}
		out = append(append(out, line...), '\n')
	}
	return a.replaceFile(path, out, 0o600)
}

// guard keeps keys that a store needs from being taken away by mistake.
type guard struct {
	stores []string
	force  bool
}

func (g *guard) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&g.stores, "store", nil, "look at the store in this `directory` too; repeat for more (the vault's known stores are looked at anyway: vault stores)")
	c.Flags().BoolVar(&g.force, "force", false, "do it even if a store still needs the key, or cannot be looked at")
	c.MarkFlagDirname("store")
}

const guardHelp = `

It is refused, with exit status 3, as long as a store needs it: one that was made or
moved here with this tool (vault stores), or is named by --store. A store that cannot
be looked at, because it is gone or open in another process, may need it too. --force
does it all the same, and says what needs it.`

// check returns an error that matches errRefused if a store needs the key, in the
// given version or, if there is none, any. With force it only says so.
func (g *guard) check(ctx context.Context, v *opened, key vault.KeyID) error {
	known, err := knownStores(v.dir)
	if err != nil {
		return err
	}
	dirs := slices.Clone(known)
	for _, dir := range g.stores {
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	var reasons []string
	for _, dir := range dirs {
		for _, s := range v.session.app.inspectAll(ctx, dir) {
			if s.err != nil {
				reasons = append(reasons, fmt.Sprintf("store %s cannot be looked at: %v", s.label, s.err))
				if slices.Contains(known, dir) && errors.Is(s.err, block.ErrNotStore) {
					reasons[len(reasons)-1] += " (if it is gone for good: vault forget-store)"
				}
				continue
			}
			if s.in.Incomplete {
				reasons = append(reasons, fmt.Sprintf("store %s may have copies that need it and that nothing names: its register of them is not whole", s.label))
			}
			for _, u := range s.in.Keys {
				if u.Needed() && u.Key.Vault == key.Vault && u.Key.Name == key.Name && (key.Version == "" || u.Key.Version == key.Version) {
					reasons = append(reasons, fmt.Sprintf("store %s needs version %s: %s", s.label, u.Key.Version, neededFor(u)))
				}
			}
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	if g.force {
		for _, r := range reasons {
			v.session.app.note("forced: %s", r)
		}
		return nil
	}
	return &inUseError{key, strings.Join(reasons, "; ")}
}

// inUseError is the tool's no to taking a key away.
type inUseError struct {
	key     vault.KeyID
	reasons string
}

func (e *inUseError) Error() string {
	return fmt.Sprintf("%s is in use: %s; move the stores to another version or key first, or --force: %v", e.key, e.reasons, errRefused)
}

// Unwrap gives the audit log what may be recorded.
func (e *inUseError) Unwrap() []error {
	return []error{errRefused, &audit.Refusal{Reason: "key in use", Detail: e.reasons}}
}

// neededFor says what needs a KEK version.
func neededFor(u block.KeyUse) string {
	var parts []string
	if u.Document {
		parts = append(parts, "the keyring")
	}
	if u.Records > 0 {
		parts = append(parts, fmt.Sprint(u.Records, " DEK records"))
	}
	for _, c := range u.Copies {
		parts = append(parts, "the copy "+c.Path)
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

func (a *app) vaultStores() *cobra.Command {
	return a.command("stores", "list the stores that the vault's keys are known to serve", `Stores lists the directories of the stores that were made, moved or revalidated with
this tool on a key of the vault. The list is the file beside the vault that ends in
".stores", of a Key Vault one in $BLOCKSEAL_STATE. It needs no passphrase.`, func(context.Context, []string) error {
		dir, err := a.storesBase(&a.vault)
		if err != nil {
			return err
		}
		dirs, err := knownStores(dir)
		if err != nil {
			return err
		}
		return a.show(append([]string{}, dirs...), func(t *table) {
			for _, d := range dirs {
				t.row(d)
			}
		})
	})
}

func (a *app) vaultForget() *cobra.Command {
	return a.command("forget-store STORE", "forget a store that is gone", `Forget-store takes a store's directory from the list of vault stores: it is gone, or
this vault's keys need not be kept for it. Nothing is done to the store.`, func(_ context.Context, args []string) error {
		dir, err := a.storesBase(&a.vault)
		if err != nil {
			return err
		}
		if err := a.forget(dir, args[0]); err != nil {
			return err
		}
		return a.show(map[string]string{"forgotten": args[0]}, func(t *table) { t.row("forgotten", args[0]) })
	})
}
