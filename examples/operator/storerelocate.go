package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// relocated is the result of store relocate.
type relocated struct {
	Moved  []relocatedKey `json:"moved"`
	Kept   []string       `json:"kept"`
	Copies []copyView     `json:"copies"`
}

type relocatedKey struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func (a *app) storeRelocate(f *storeFlags) *cobra.Command {
	var key string
	c := a.command("relocate DIR", "go on with the same key in another vault", `Relocate makes a store, or a copy, open with the same key in another place: in --vault,
under --key, by a restore of its backup or an import. It is for when the vault of before
is lost, which is not asked; while it answers, store rotate change-kek moves to any key.

Each KEK version that the store needs is looked for by its public key, and must unwrap;
if one is not there the command names it and changes nothing. Registered copies that can
be reached go along; what became of each is shown, and exit status 1 says that one did
not. A copy that is elsewhere is given as DIR, there. The key versions that DEKs are
wrapped by may also stay in --from-vault.

To find a version that has another name in the new vault than before, as after an import,
the identity of the store needs list as well.`,
		func(ctx context.Context, args []string) error { return a.relocateStore(ctx, f, args[0], key) })
	c.Flags().StringVar(&key, "key", "", "the `NAME` of the key in --vault (default: the name that it had)")
	return c
}

func (a *app) relocateStore(ctx context.Context, f *storeFlags, dir, key string) (err error) {
	if _, err := a.vaultDir(&a.vault); err != nil {
		return err
	}
	info, err := a.inspectKeyring(ctx, dir, f.name)
	if err != nil {
		return err
	}
	session, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.close()) }()
	s := &openStore{app: a, id: info.StoreID.String(), name: f.name, line: cli.NewLine(a.err)}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if s.vault, err = session.vault(&a.vault); err != nil {
		return err
	}
	id := vault.KeyID{Vault: s.vault.ID(), Name: info.KEK.Name}
	if key != "" {
		if id, err = s.vault.parseName(key); err != nil {
			return err
		}
	}
	opts := a.storeOptions(s)
	opts.Keyring.Anchor = f.kept()
	if opts.FileKEK, _, err = session.fileKEKOf(dir); err != nil {
		return err
	}
	if f.other.dir != "" {
		other, err := session.vault(&f.other)
		if err != nil {
			return err
		}
		var ids []vault.KeyID
		for _, id := range info.KEKs {
			ids = append(ids, id)
		}
		opts.Keyring.OtherKEKs = s.otherKEKs(id, ids, []*opened{s.vault, other})
	}
	// Remembered before: a list that names one too many keeps a key.
	if err := a.remember(s.vault.dir, s.dir); err != nil {
		return err
	}
	rel, err := block.Relocate(ctx, dir, kek.New(s.vault.data(s.id), id), opts)
	if err != nil {
		return err
	}
	return a.showRelocation(rel)
}

func (a *app) showRelocation(rel block.Relocation) error {
	w := relocated{Moved: []relocatedKey{}, Kept: []string{}, Copies: []copyView{}}
	for _, m := range rel.Moved {
		w.Moved = append(w.Moved, relocatedKey{From: m.From.String(), To: m.To.String()})
	}
	for _, id := range rel.Kept {
		w.Kept = append(w.Kept, id.String())
	}
	var behind error
	for _, c := range rel.Copies {
		v := viewCopy(c.Copy)
		ok := c.Err == nil
		if v.Current = &ok; !ok {
			v.Error = c.Err.Error()
			behind = errSilent
		}
		w.Copies = append(w.Copies, v)
	}
	err := a.show(w, func(t *table) {
		for _, m := range w.Moved {
			t.row("from", m.From)
			t.row("to", m.To)
		}
		if len(w.Moved) == 0 {
			t.row("moved", "nothing: each version is there already")
		}
		for _, id := range w.Kept {
			t.row("still needed", id)
		}
		for _, c := range w.Copies {
			t.row("copy", c.Path)
			t.row("  state", copyState(c))
		}
	})
	return errors.Join(err, behind)
}
