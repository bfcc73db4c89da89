package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
)

// copyView is a registered checkpoint.
type copyView struct {
	Instance   string    `json:"instance"`
	Path       string    `json:"path"`
	Made       time.Time `json:"made"`
	KEK        string    `json:"kek"`
	KEKs       []string  `json:"keks"` // all that it needs
	Generation uint64    `json:"generation"`
	Current    *bool     `json:"current,omitempty"` // whether it needs the store's own KEK version alone
	Error      string    `json:"error,omitempty"`   // why it was not moved there
	Doubt      string    `json:"doubt,omitempty"`   // why the store does not vouch for it
}

func viewCopy(c block.Copy) copyView {
	w := copyView{Instance: c.Instance, Path: c.Path, Made: c.Made, KEK: c.KEK.String(), KEKs: []string{}, Generation: c.Generation, Doubt: c.Doubt}
	for _, id := range c.KEKs {
		w.KEKs = append(w.KEKs, id.String())
	}
	return w
}

// useView is what needs a KEK version.
type useView struct {
	KEK      string     `json:"kek"`
	Needed   bool       `json:"needed"`
	Document bool       `json:"document"`
	Epochs   int        `json:"epochs,omitempty"`
	Records  uint64     `json:"records"`
	Copies   []copyView `json:"copies"`
	For      string     `json:"for"`
}

func viewUses(uses []block.KeyUse) []useView {
	out := []useView{}
	for _, u := range uses {
		w := useView{KEK: u.Key.String(), Needed: u.Needed(), Document: u.Document, Epochs: u.Epochs, Records: u.Records, Copies: []copyView{}, For: neededFor(u)}
		for _, c := range u.Copies {
			w.Copies = append(w.Copies, viewCopy(c))
		}
		out = append(out, w)
	}
	return out
}

type epochView struct {
	Epoch uint32 `json:"epoch"`
	DEKs  uint64 `json:"deks"`
}

type inspectView struct {
	Store         string      `json:"store"`
	Instance      string      `json:"instance"`
	CopyOf        string      `json:"copyOf,omitempty"`
	Directory     string      `json:"directory"`
	Generation    uint64      `json:"generation"`
	Sequence      uint64      `json:"sequence"`
	KEK           string      `json:"kek"`
	DEKs          uint64      `json:"deks"`
	Epochs        []epochView `json:"epochs"`
	Keys          []useView   `json:"keys"`
	PastKEKs      []string    `json:"pastKEKs"`
	Incomplete    bool        `json:"incomplete"` // copies or KEK versions may be missing
	Unfinished    []string    `json:"unfinished"`
	DocumentBytes int         `json:"documentBytes"`
	DEKBytes      uint64      `json:"dekBytes"`
	Files         uint64      `json:"files"`
	Bytes         uint64      `json:"bytes"`
}

func (a *app) storeInspect(f *storeFlags) *cobra.Command {
	return a.command("inspect DIR", "show what a store's files say in clear", `Inspect shows what a store's files say in clear: its id, its generation, the KEK version it
is on, its DEKs by epoch, what each KEK version is needed for, and sizes. It needs no
key and no vault, and works whatever the store's state. Nothing of it is
authenticated: store state and store verify do that, and show the fingerprint, which
is known only to whoever opened the store.`,
		func(ctx context.Context, args []string) error {
			if _, err := a.inspectKeyring(ctx, args[0], f.name); err != nil {
				return err
			}
			in, err := a.inspect(ctx, args[0], f.name)
			if err != nil {
				return err
			}
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			w := inspectView{Store: in.Keyring.StoreID.String(), Instance: in.Instance, CopyOf: in.CopyOf, Directory: dir,
				Generation: in.Keyring.Generation, Sequence: in.Sequence, KEK: in.Keyring.KEK.String(), DEKs: in.Records, Epochs: []epochView{}, Keys: viewUses(in.Keys),
				PastKEKs: []string{}, Unfinished: append([]string{}, in.Unfinished...), Incomplete: in.Incomplete, DocumentBytes: in.Keyring.Size, DEKBytes: in.RecordBytes,
				Files: in.Files, Bytes: in.Bytes}
			for _, e := range slices.Sorted(maps.Keys(in.Epochs)) {
				w.Epochs = append(w.Epochs, epochView{e, in.Epochs[e]})
			}
			for _, id := range in.PastKEKs {
				w.PastKEKs = append(w.PastKEKs, id.String())
			}
			return a.show(w, func(t *table) {
				t.row("store", w.Store)
				t.row("instance", w.Instance)
				if w.CopyOf != "" {
					t.row("copy of", w.CopyOf)
				}
				t.row("directory", w.Directory)
				t.row("generation", w.Generation)
				t.row("sequence", w.Sequence)
				t.row("KEK", w.KEK)
				t.row("DEKs", w.DEKs)
				for _, e := range w.Epochs {
					t.row(fmt.Sprint("  epoch ", e.Epoch), fmt.Sprint(e.DEKs, " DEKs"))
				}
				for _, k := range w.Keys {
					t.row("KEK version", k.KEK)
					t.row("  needed for", k.For)
				}
				for _, k := range w.PastKEKs {
					t.row("older copies may need", k)
				}
				if w.Incomplete {
					t.row("incomplete", "copies and older KEK versions may be missing: the store's register of them is not whole")
				}
				for _, u := range w.Unfinished {
					t.row("unfinished", u)
				}
				t.row("keyring document", fmt.Sprint(w.DocumentBytes, " bytes"))
				t.row("DEK records", fmt.Sprint(w.DEKBytes, " bytes"))
				t.row("files", fmt.Sprintf("%d, of %d bytes", w.Files, w.Bytes))
			})
		})
}

func (a *app) storeUsage(f *storeFlags) *cobra.Command {
	var open bool
	c := a.command("usage DIR", "show which KEK versions are needed, and for what", `Usage shows which KEK versions the store and its registered copies need. A version that is
not listed can be disabled without losing anything of them.

It reads what is in clear, without a key. With --open it opens the store, so that the
answer is about a keyring and copies that were authenticated, and has the number of
epochs. If the store's register of copies is not its own, or is gone, it says so and ends
with status 4: then a version that is not listed may be needed all the same.`,
		func(ctx context.Context, args []string) error {
			if open {
				return a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
					uses, err := s.KeyUsage(ctx)
					if err != nil && !errors.Is(err, block.ErrIncomplete) {
						return err
					}
					return errors.Join(a.showUses(uses), err)
				})(ctx, args)
			}
			if _, err := a.inspectKeyring(ctx, args[0], f.name); err != nil {
				return err
			}
			in, err := a.inspect(ctx, args[0], f.name)
			if err != nil {
				return err
			}
			err = a.showUses(in.Keys)
			if in.Incomplete {
				err = errors.Join(err, fmt.Errorf("the register of copies and KEK versions of %s is not whole: %w", args[0], block.ErrIncomplete))
			}
			return err
		})
	c.Flags().BoolVar(&open, "open", false, "open the store")
	return c
}

func (a *app) showUses(uses []block.KeyUse) error {
	w := viewUses(uses)
	return a.show(w, func(t *table) {
		for i, u := range uses {
			// Whole identifiers are wider than a terminal: the vault has a line of its own.
			if i == 0 || u.Key.Vault != uses[i-1].Key.Vault {
				t.row("in the vault " + u.Key.Vault + ":")
				t.row("KEY/VERSION", "NEEDED FOR")
			}
			t.row(u.Key.Name+"/"+t.id(u.Key.Version), w[i].For)
		}
	})
}
