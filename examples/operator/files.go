package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// filesFlags are what the commands on other people's databases share.
type filesFlags struct {
	document string // the file with the keyring's document
	key      string
	also     []string
}

func (a *app) filesCommand() *cobra.Command {
	c := a.group("files", "seal the files of a Pebble that is there", `Files puts the database of a program that uses Pebble under a KEK, in place, and takes it
out again. The program opens it through keyring/sealfs afterwards, with the same keyring.

The keyring's document is a file beside the directory, DIR.keyring, unless --keyring says
otherwise. It is part of the database: without it nothing opens, and a backup needs both.

Meanwhile nobody opens the database: it must be closed. Stop the program, and run this
command as the user that the program runs as, who owns the files afterwards. If it is cut
off, run the same command again, or the other one, which goes back.

The commands that take keys away (key disable, delete, purge, expire) do not know of
databases that were sealed so: vault stores does not list them.`)
	f := &filesFlags{}
	a.vault.add(c, "", "the vault with the database's KEK")
	a.audit.add(c)
	p := c.PersistentFlags()
	p.StringVar(&f.document, "keyring", "", "the `file` with the keyring's document (default: DIR.keyring)")
	p.StringArrayVar(&f.also, "also", nil, "another `directory` with files of the same database, such as that of its logs; may be given again")
	c.AddCommand(a.filesSeal(f), a.filesUnseal(f))
	return c
}

func (a *app) filesSeal(f *filesFlags) *cobra.Command {
	c := a.command("seal DIR", "seal a Pebble's directory in place", `Seal seals the database in DIR, on the key --key if it has no keyring yet. Each file is
sealed beside, made durable, and put in the place of the plain one, so that the disk needs
room for one more file and a crash loses nothing. Until all are done nothing opens the
database.

What was in clear before stays on the medium until something is written over it: in freed
blocks, in snapshots, in the spare blocks of an SSD. Backups and checkpoints stay plain,
also those that share files with DIR by hard links.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			return a.migrate(ctx, f, v, args[0], "sealed", sealfs.SealDir)
		}))
	c.Flags().StringVar(&f.key, "key", "", "the `KEY` of a database that has no keyring yet")
	return c
}

func (a *app) filesUnseal(f *filesFlags) *cobra.Command {
	return a.command("unseal DIR", "make a sealed directory plain again, in place", `Unseal is the way back from files seal: it makes the files in DIR plain, in the same way.
The keyring stays. Its file may be removed when no backup of the sealed files is wanted
any more.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			return a.migrate(ctx, f, v, args[0], "unsealed", sealfs.UnsealDir)
		}))
}

type filesView struct {
	Directory string `json:"directory"`
	Keyring   string `json:"keyring"`
	KEK       string `json:"kek"`
	Files     int    `json:"files"`
	Bytes     int64  `json:"bytes"`
	Already   int    `json:"already"` // files that a command before had done
}

func (a *app) migrate(ctx context.Context, f *filesFlags, v *opened, dir, done string,
	do func(context.Context, vfs.FS, string, *keyring.Keyring, *sealfs.MigrateOptions) (sealfs.Migrated, error)) (err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	// Before a keyring is made for it, which is never removed again: files may be under it.
	if manifests, err := filepath.Glob(filepath.Join(globbed(abs), "MANIFEST-*")); err != nil || len(manifests) == 0 {
		return errors.Join(fmt.Errorf("%s has no database of Pebble's, as it has no manifest: %w", abs, fs.ErrNotExist), err)
	}
	document := f.document
	if document == "" {
		document = abs + ".keyring"
	}
	r, err := a.openFiles(ctx, f, v, abs, document, done == "sealed")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w := filesView{Directory: abs, Keyring: document}
	line := cli.NewLine(a.err)
	defer line.Clear()
	opts := &sealfs.MigrateOptions{FS: &sealfs.Options{NoAccess: sealfs.Fail}, Also: f.also}
	opts.OnFile = func(_ string, size int64) {
		w.Files++
		w.Bytes += size
		line.Show(func() string { return fmt.Sprintf("%s %d files, %s", done, w.Files, cli.MB(w.Bytes)) })
	}
	did, err := do(ctx, vfs.Default, dir, r, opts)
	if errors.Is(err, sealfs.ErrInUse) {
		return fmt.Errorf("%w: %w", err, errBusy)
	}
	if err != nil {
		if did.Files+did.There > 0 {
			a.note("%d files are %s; run the same command again, which goes on, or the other one, which goes back", did.Files+did.There, done)
		}
		return err
	}
	w.KEK, w.Already = r.State().KEK.String(), did.There
	return a.show(w, func(t *table) {
		t.row("directory", w.Directory)
		t.row("keyring", w.Keyring)
		t.row("KEK", w.KEK)
		t.row(done, fmt.Sprintf("%d files, %s; %d were before", w.Files, cli.MB(w.Bytes), w.Already))
	})
}

// globbed is a path as a pattern of itself.
func globbed(path string) string {
	if os.PathSeparator == '\\' {
		return path // there nothing can be escaped, and only brackets would have to be
	}
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// openFiles opens the keyring of a database, or makes one.
func (a *app) openFiles(ctx context.Context, f *filesFlags, v *opened, dir, document string, mayMake bool) (*keyring.Keyring, error) {
	opts := &keyring.Options{PinVersion: true, RequireAccess: true}
	if a.verbose {
		opts.Logger = slog.New(slog.NewTextHandler(a.err, nil))
	}
	b, err := os.ReadFile(document)
	if errors.Is(err, fs.ErrNotExist) {
		if !mayMake {
			return nil, fmt.Errorf("the keyring of %s: %w; --keyring says where it is", dir, err)
		}
		if f.key == "" {
			return nil, usagef("%s has no keyring yet: on which key? give --key, or --keyring if it has one elsewhere", dir)
		}
		id, err := v.parseKey(f.key)
		if err != nil {
			return nil, err
		}
		return keyring.Create(ctx, keyring.FileStorage(document), kek.New(v.data(dir), id), opts)
	}
	if err != nil {
		return nil, err
	}
	info, err := keyring.Inspect(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", document, err)
	}
	if v.ID() != info.KEK.Vault {
		return nil, fmt.Errorf("the keyring %s is on %s, and the vault is %s: %w", document, info.KEK, v.ID(), keyring.ErrWrongKEK)
	}
	if f.key != "" {
		if id, err := v.parseKey(f.key); err != nil {
			return nil, err
		} else if (id.Versionless() != info.KEK.Versionless()) || id.Version != "" && id != info.KEK {
			return nil, fmt.Errorf("the keyring %s is on %s already: %w; leave out --key", document, info.KEK, keyring.ErrWrongKEK)
		}
	}
	return keyring.Open(ctx, keyring.FileStorage(document), kek.New(v.data(info.StoreID.String()), info.KEK), opts)
}
