package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

func (a *app) storeRotate(f *storeFlags) *cobra.Command {
	c := a.group("rotate", "move a store to another KEK version, KEK or epoch", `Rotate changes the keys that a store is on. kek and change-kek cost a constant number of
vault calls, whatever the data; epoch rewraps every DEK and calls no vault. None of
them touches a block.`)
	c.AddCommand(a.rotateKEK(f), a.rotateEpoch(f), a.changeKEK(f))
	return c
}

// moved is the result of moving a store to another KEK.
type moved struct {
	From      string     `json:"from"`
	To        string     `json:"to"`
	Rewrapped uint64     `json:"rewrapped"` // DEK records
	Copies    []copyView `json:"copies"`
	Remaining []useView  `json:"stillNeeded"` // KEK versions beside the new one
	// Incomplete is whether others may be needed too, by copies that the store does not know.
	Incomplete bool `json:"incomplete"`
}

// plan says which copies are about to be moved along, and which are not.
func (a *app) plan(ctx context.Context, s *openStore) error {
	copies, err := s.Copies(ctx)
	if err != nil {
		return err
	}
	for _, c := range copies {
		if c.Doubt != "" {
			a.note("does not move along: %s, copy %s: %s", c.Path, c.Instance, c.Doubt)
		} else {
			a.note("moves along, if it is there: %s, copy %s", c.Path, c.Instance)
		}
	}
	return nil
}

// afterMove rewraps what was wrapped by the KEK before and shows what became of it.
func (a *app) afterMove(ctx context.Context, s *openStore, from string, rewrap bool) error {
	w := moved{From: from, To: s.State().KEK.String(), Copies: []copyView{}, Remaining: []useView{}}
	if rewrap {
		err := s.RewrapDEKs(ctx, func(p block.Step) { w.Rewrapped = p.Done; s.quietly("rewrap", p) })
		s.line.Clear()
		if err != nil {
			return fmt.Errorf("the store is on %s now, and DEKs of the KEK before are left; go on with store rewrap: %w", w.To, err)
		}
	}
	copies, err := s.viewCopies(ctx, 5*time.Second) // they are told of, on a busy machine a little later
	if err != nil {
		return err
	}
	w.Copies = copies
	uses, err := s.KeyUsage(ctx)
	if w.Incomplete = errors.Is(err, block.ErrIncomplete); err != nil && !w.Incomplete {
		return err
	}
	for _, u := range viewUses(uses) {
		if u.Needed && u.KEK != w.To {
			w.Remaining = append(w.Remaining, u)
		}
	}
	return a.show(w, func(t *table) {
		t.row("from", w.From)
		t.row("to", w.To)
		t.row("DEKs rewrapped", w.Rewrapped)
		for _, c := range w.Copies {
			t.row("copy", c.Path)
			t.row("  state", copyState(c))
		}
		for _, u := range w.Remaining {
			t.row("still needed", u.KEK)
			t.row("  for", u.For)
		}
		if w.Incomplete {
			t.row("others", "may be needed by copies that the store does not know")
		}
	})
}

func copyState(c copyView) string {
	on := strings.Join(c.KEKs, " and ")
	switch {
	case c.Doubt != "":
		return "in doubt, on " + on + ": " + c.Doubt
	case c.Current == nil || *c.Current:
		return "on " + on
	case c.Error != "":
		return "still on " + on + ": " + c.Error
	}
	return "still on " + on
}

// quietly is progress for those who keep count themselves.
func (s *openStore) quietly(what string, p block.Step) {
	if show := s.progress(what); show != nil {
		show(p)
	}
}

// viewCopies returns the registered copies, with what keeps those that were not
// moved along, for which it waits a while.
func (s *openStore) viewCopies(ctx context.Context, while time.Duration) ([]copyView, error) {
	copies, err := s.Copies(ctx)
	if err != nil {
		return nil, err
	}
	now := s.State().KEK
	behind := 0
	for _, c := range copies {
		if !current(c, now) {
			behind++
		}
	}
	failures := s.failures(keyring.CopyKEKNotChanged, behind, while)
	views := []copyView{}
	for _, c := range copies {
		w := viewCopy(c)
		is := current(c, now)
		w.Current = &is
		if err := failures[c.Path]; err != nil && !is {
			w.Error = err.Error()
		}
		views = append(views, w)
	}
	return views, nil
}

// current is whether a copy needs no KEK version but the store's own.
func current(c block.Copy, now vault.KeyID) bool { return c.NeedsOnly(now) }

// rates bound how much of the vault and of the disk an operation takes.
func (f *storeFlags) addRates(c *cobra.Command, vault, rewrite bool) {
	if vault {
		c.Flags().IntVar(&f.vaultRate, "vault-rate", block.DefaultVaultRate, "at most so many vault calls in 10 seconds")
	}
	if rewrite {
		c.Flags().Int64Var(&f.rewriteRate, "rate", 0, "at most so many bytes of blocks a second (default unbounded)")
	}
}

func (a *app) rotateKEK(f *storeFlags) *cobra.Command {
	var noRewrap bool
	c := a.command("kek DIR", "move to the newest version of the KEK", `Kek wraps the store's keyring with the newest version of its KEK, then rewraps the DEKs that
the vault wraps (store init --wrapping kek). Registered copies that can be reached are
moved along; the others are listed with what they need. Which those are is said before
anything is moved. A copy that the store does not know to have made is not.`,
		a.withStoreAndKEKs(f, true, func(ctx context.Context, s *openStore, _ []string) error {
			from := s.State().KEK.String()
			if err := a.plan(ctx, s); err != nil {
				return err
			}
			if err := s.RotateKEK(ctx); err != nil {
				return err
			}
			return a.afterMove(ctx, s, from, !noRewrap)
		}))
	c.Flags().BoolVar(&noRewrap, "no-rewrap", false, "leave DEKs that the vault wraps to store rewrap")
	f.addRates(c, true, false)
	return c
}

func (a *app) changeKEK(f *storeFlags) *cobra.Command {
	var to vaultFlags
	var key string
	var noRewrap bool
	c := a.command("change-kek DIR", "move to another key, of this vault or another", `Change-kek wraps the store's keyring with another key: --to-key, of --vault or, if it is
given, of --to-vault. The new wrap is proven by an unwrap and durable before the old
one is let go. Then it does what store rotate kek does.`,
		a.withStoreAndKEKs(f, true, func(ctx context.Context, s *openStore, _ []string) error {
			if key == "" {
				return usagef("to which key? give --to-key")
			}
			target := s.vault
			if to.dir != "" {
				var err error
				if target, err = s.vault.session.vault(&to); err != nil {
					return err
				}
			}
			id, err := target.parseKey(key)
			if err != nil {
				return err
			}
			from := s.State().KEK.String()
			// Remembered before the move: a list that names one too many keeps a key.
			if err := a.remember(target.dir, s.dir); err != nil {
				return err
			}
			if err := a.plan(ctx, s); err != nil {
				return err
			}
			if err := s.ChangeKEK(ctx, kek.New(target.data(s.id), id)); err != nil {
				return err
			}
			return a.afterMove(ctx, s, from, !noRewrap)
		}))
	c.Flags().StringVar(&key, "to-key", "", "the `KEY` to move to")
	c.Flags().BoolVar(&noRewrap, "no-rewrap", false, "leave DEKs that the vault wraps to store rewrap")
	to.add(c, "to-", "the vault to move to (default: the same)")
	f.addRates(c, true, false)
	return c
}

func (a *app) rotateEpoch(f *storeFlags) *cobra.Command {
	return a.command("epoch DIR", "begin a new epoch and rewrap every DEK", `Epoch begins a new epoch, rewraps every DEK under it, and destroys the epoch keys before.
An operation that was cut off goes on where it was with the next call.`,
		a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
			before := s.State().Epoch
			var last block.Step
			err := s.RotateEpoch(ctx, func(p block.Step) { last = p; s.quietly("rotate epoch", p) })
			s.line.Clear()
			if err != nil {
				return err
			}
			st := s.State()
			return a.show(map[string]any{"from": before, "epoch": st.Epoch, "deks": last.Done, "generation": st.Generation}, func(t *table) {
				t.row("epoch", fmt.Sprintf("%d, before %d", st.Epoch, before))
				t.row("DEKs", cli.Count(last.Done))
			})
		}))
}

func (a *app) storeRekey(f *storeFlags) *cobra.Command {
	var ids idFlags
	var r rangeFlags
	c := a.command("rekey DIR", "give blocks fresh DEKs", `Rekey gives the blocks of a range fresh DEKs and encrypts them anew. An operation that was
cut off goes on where it was when it is called with the same range.`,
		a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
			rng, err := r.parse(ids)
			if err != nil {
				return err
			}
			var last block.Step
			err = s.Rekey(ctx, rng, func(p block.Step) { last = p; s.quietly("rekey", p) })
			s.line.Clear()
			if err != nil {
				return err
			}
			return a.show(map[string]any{"blocks": last.Done, "bytes": last.Bytes}, func(t *table) {
				t.row("blocks", cli.Count(last.Done))
				t.row("bytes", last.Bytes)
			})
		}))
	ids.add(c)
	r.add(c)
	f.addRates(c, false, true)
	return c
}

func (a *app) storeRewrap(f *storeFlags) *cobra.Command {
	var forecast bool
	c := a.command("rewrap DIR", "rewrap DEKs that an older KEK version wraps", `Rewrap wraps the DEKs that an older KEK version wraps (store init --wrapping kek) with the
one that the store is on: an unwrap, a wrap, and an unwrap that proves it, each.
Give the older key's vault in --from-vault, if it is another.`,
		a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
			records, err := s.behind(ctx)
			if err != nil {
				return err
			}
			var last block.Step
			if !forecast {
				err := s.RewrapDEKs(ctx, func(p block.Step) { last = p; s.quietly("rewrap", p) })
				s.line.Clear()
				if err != nil {
					return err
				}
			}
			w := map[string]any{"records": records, "vaultCalls": 3 * records, "rewrapped": last.Done}
			return a.show(w, func(t *table) {
				t.row("DEKs to rewrap", cli.Count(records))
				t.row("vault calls", cli.Count(3*records)) // an unwrap, a wrap, and the unwrap that proves it
				if !forecast {
					t.row("rewrapped", cli.Count(last.Done))
				}
			})
		}))
	c.Flags().BoolVar(&forecast, "forecast", false, "only say what it would cost")
	f.addRates(c, true, false)
	return c
}

// behind is how many DEKs are wrapped by another KEK version than the store is on.
func (s *openStore) behind(ctx context.Context) (n uint64, err error) {
	uses, err := s.KeyUsage(ctx)
	if err != nil && !errors.Is(err, block.ErrIncomplete) { // copies may be missing, which are not counted
		return 0, err
	}
	for _, u := range uses {
		if u.Key != s.State().KEK {
			n += u.Records
		}
	}
	return n, nil
}

func (a *app) storeErase(f *storeFlags) *cobra.Command {
	var out string
	c := a.command("erase DIR", "make what was deleted unreadable", `Erase makes everything that was deleted or overwritten so far unreadable in the store's
files, and shows a receipt: the epochs whose keys were destroyed, and what could still
open copies of the files that were made before (the KEK versions in "keys", and the
registered copies), and whether those versions exist, as far as the vault says. Keep the
receipt, and purge those versions when nothing else needs them (store usage).`,
		a.withStoreAndKEKs(f, true, func(ctx context.Context, s *openStore, _ []string) error {
			if out != "" {
				// What cannot be kept is not begun.
				if _, err := os.Lstat(out); err == nil {
					return fmt.Errorf("the receipt %s: %w", out, os.ErrExist)
				}
			}
			r, err := s.Erase(ctx, s.progress("erase"))
			s.line.Clear()
			if err != nil {
				return err
			}
			var kept error
			if out != "" {
				kept = a.writeJSON(out, r)
			}
			return errors.Join(a.showReceipt(r), kept)
		}))
	c.Flags().StringVar(&out, "receipt", "", "write the receipt to this new `file` too, as JSON")
	return c
}

// showReceipt shows what an erasure, or a drop, has left to say.
func (a *app) showReceipt(r block.Receipt) error {
	return a.show(r, func(t *table) {
		if r.Dropped {
			t.row("dropped", t.name(r.Name))
		}
		t.row("store", r.Store)
		t.row("time", r.Time)
		t.row("generation", r.Generation)
		for _, e := range r.Epochs {
			t.row("destroyed", fmt.Sprint("epoch ", e))
		}
		if !r.Dropped {
			t.row("DEKs kept", r.Kept)
		}
		for _, k := range r.Keys {
			switch k.State {
			case block.KeyExists:
				t.row("older copies", fmt.Sprint("of the files open with ", k.Key))
			case block.KeyNotFound:
				t.row("older copies", fmt.Sprint("of the files opened with ", k.Key, " (which the vault does not find)"))
			default:
				t.row("older copies", fmt.Sprint("of the files open with ", k.Key, " (whether it exists is not known)"))
			}
		}
		for _, id := range r.FileKEKs {
			t.row("file KEK", fmt.Sprint(id, " (copies of the files that were made under it take it too)"))
		}
		for _, c := range r.Copies {
			t.row("copy", strings.TrimSuffix(c.Path+": "+c.Doubt, ": "))
		}
		if r.Incomplete {
			t.row("incomplete", "KEK versions or copies may be missing above")
		}
		switch {
		case r.Pinned && r.Dropped:
			t.row("pinned", "a snapshot or scan of another store was open: the files keep what it saw until it is closed")
		case r.Pinned:
			t.row("pinned", "a snapshot or scan was open at the end: erase again")
		}
		t.row("hash", r.Hash)
	})
}
