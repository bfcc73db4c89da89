package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
)

func (f *storeFlags) addAnchor(c *cobra.Command) {
	c.PersistentFlags().StringVar(&f.anchor, "anchor", "", "`file` on another disk, in a directory of its own there, that keeps what is the least acceptable: "+
		"a store that is older, or another, is refused, with exit status 4")
}

// kept is what is known of the store from outside of its disk, nil if nothing is.
func (f *storeFlags) kept() keyring.Anchor {
	switch {
	case f.anchor != "":
		return keyring.FileAnchor(f.anchor)
	case f.fingerprint != "" || f.generation > 0:
		return keyring.Expect{Fingerprint: f.fingerprint, Generation: f.generation}
	}
	return nil
}

func (a *app) anchorCommand() *cobra.Command {
	c := a.group("anchor", "show what an anchor keeps, and accept an older store", `Anchor works on the file of a store's anchor (store --anchor), which keeps, on another
disk, what is the least acceptable of it: its fingerprint, the generation of its
keyring, and its sequence number. It only moves forward.`)
	a.vault.add(c, "", "the vault with the store's KEK")
	a.addFileKEK(c)
	a.audit.add(c)
	f := &storeFlags{}
	f.addStore(c)
	c.AddCommand(a.anchorShow(), a.anchorAccept(f))
	return c
}

type pointView struct {
	Fingerprint string `json:"fingerprint"`
	Generation  uint64 `json:"generation"`
	Sequence    uint64 `json:"sequence"`
}

func (a *app) anchorShow() *cobra.Command {
	return a.command("show FILE", "show what an anchor keeps", `Show shows what the anchor in FILE keeps. It needs no key and no vault. Exit status 4 if
the file is damaged.`,
		func(ctx context.Context, args []string) error {
			p, err := keyring.FileAnchor(args[0]).Load(ctx)
			if err != nil {
				return err
			}
			if p == (keyring.Point{}) {
				return fmt.Errorf("there is no %s: %w", args[0], os.ErrNotExist)
			}
			return a.showPoint(p)
		})
}

func (a *app) showPoint(p keyring.Point) error {
	return a.show(pointView{p.Fingerprint, p.Generation, p.Sequence}, func(t *table) {
		t.row("fingerprint", p.Fingerprint)
		t.row("generation", p.Generation)
		t.row("sequence", p.Sequence)
	})
}

func (a *app) anchorAccept(f *storeFlags) *cobra.Command {
	var yes bool
	c := a.command("accept DIR FILE", "accept a store that is older than its anchor", `Accept takes the store in DIR as it is now for the least acceptable from now on: after a
restore on purpose, or when the anchor is damaged. The store is opened without looking at
the anchor; FILE is moved aside, under a name with the date, and written anew.

It asks first, on the terminal, or is given --yes. What was done since the copy was made
is lost with this, revocations and erasures too: see docs/operations.md.`,
		a.withStore(f, func(ctx context.Context, s *openStore, args []string) error {
			return a.acceptStore(ctx, s, filepath.Clean(args[1]), yes)
		}))
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) acceptStore(ctx context.Context, s *openStore, file string, yes bool) error {
	now, err := s.AnchorPoint(ctx)
	if err != nil {
		return err
	}
	kept, err := keyring.FileAnchor(file).Load(ctx)
	was := kept.String()
	switch {
	case err == nil:
	case errors.Is(err, keyring.ErrCorrupt), errors.Is(err, keyring.ErrVersion):
		was = "what cannot be read"
		a.note("%v", err)
	default:
		return err // of a disk that is not there, for one
	}
	a.note("the anchor holds %s", was)
	a.note("the store is at %v", now)
	if err := a.confirm("accept the store as it is now", yes); err != nil {
		return err
	}
	what := audit.Action{Operation: opAccept, Key: s.State().KEK,
		Detail: fmt.Sprintf("store %s, anchor %s: from %s to %v", s.id, file, was, now)}
	err = s.vault.session.do(ctx, s.vault.identity, what, func(ctx context.Context) (vault.KeyID, error) {
		if err := a.setAside(file); err != nil {
			return vault.KeyID{}, err
		}
		return s.State().KEK, keyring.FileAnchor(file).Advance(ctx, now)
	})
	if err != nil {
		return err
	}
	return a.showPoint(now)
}

// setAside moves a file, if there is one, to a name with the date that nothing has yet.
func (a *app) setAside(file string) error {
	if _, err := os.Lstat(file); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	aside := file + "." + time.Now().UTC().Format("2006-01-02T15-04-05.000000000Z")
	if _, err := os.Lstat(aside); err == nil {
		return fmt.Errorf("%s is in the way: %w", aside, os.ErrExist)
	}
	if err := a.disk.rename(file, aside); err != nil {
		return err
	}
	a.note("moved %s to %s", file, aside)
	return a.disk.syncDir(filepath.Dir(file))
}

// confirm asks a person, unless yes is given.
func (a *app) confirm(what string, yes bool) error {
	if yes {
		return nil
	}
	answer, err := a.prompt("type yes to " + what)
	if errors.Is(err, errNoTerminal) {
		return usagef("to %s, give --yes, or run on a terminal", what)
	}
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(answer)) != "yes" {
		return fmt.Errorf("nothing was changed: %w", errRefused)
	}
	return nil
}
