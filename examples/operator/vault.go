package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

func (a *app) vaultCommand() *cobra.Command {
	c := a.group("vault", "make and keep a vault", "Vault makes a file vault and works on it as a whole. All of it is the owner's.\n\nOf a Key Vault there are the known stores: stores and forget-store.")
	a.vault.add(c, "", "the vault")
	a.audit.add(c)
	c.AddCommand(a.vaultInit(), a.vaultInfo(), a.vaultPassphrase(), a.vaultPurgeProtection(), a.vaultBackupSecret(),
		a.vaultEscrow(), a.vaultMaintain(), a.vaultStores(), a.vaultForget())
	return c
}

// kdfFlags choose how a passphrase becomes a key.
type kdfFlags struct {
	algorithm string
	passes    uint32
	memory    uint32
	lanes     uint8
}

func (k *kdfFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&k.algorithm, "kdf", "", "how the passphrase becomes a key: `argon2id|pbkdf2` (default argon2id; pbkdf2 in FIPS 140-3 mode, and the only one with GODEBUG=fips140=only)")
	f.Uint32Var(&k.passes, "kdf-passes", 0, "argon2id: passes; pbkdf2: iterations (default 3; 600,000)")
	f.Uint32Var(&k.memory, "kdf-memory", 0, "argon2id: memory in `KiB` (default 65,536)")
	f.Uint8Var(&k.lanes, "kdf-lanes", 0, "argon2id: lanes (default 4)")
	c.RegisterFlagCompletionFunc("kdf", cobra.FixedCompletions([]string{"argon2id", "pbkdf2"}, cobra.ShellCompDirectiveNoFileComp))
}

func (k kdfFlags) kdf() (local.KDF, error) {
	d := local.KDF{Passes: k.passes, Memory: k.memory, Lanes: k.lanes}
	def := local.KDF{Passes: 3, Memory: 64 << 10, Lanes: 4}
	switch k.algorithm {
	case "":
		if d != (local.KDF{}) {
			return d, usagef("--kdf-passes, --kdf-memory and --kdf-lanes need --kdf")
		}
		return d, nil
	case "argon2id":
		d.Algorithm = local.Argon2id
	case "pbkdf2":
		d.Algorithm, def = local.PBKDF2, local.KDF{Passes: 600_000}
	default:
		return d, usagef("--kdf is argon2id or pbkdf2, not %q", k.algorithm)
	}
	if d.Passes == 0 {
		d.Passes = def.Passes
	}
	if d.Memory == 0 {
		d.Memory = def.Memory
	}
	if d.Lanes == 0 {
		d.Lanes = def.Lanes
	}
	return d, nil
}

func (a *app) vaultInit() *cobra.Command {
	var (
		kdf                     kdfFlags
		opts                    local.Options
		secretFile, escrow, out string
		escrowFile              string
	)
	c := a.command("init", "make a vault", `Init makes a vault in --vault, which must be empty or not exist.

A vault that is to restore the backups of another one shares its backup secret:
--backup-secret-file (from vault backup-secret) or --escrow-file (from vault escrow).
To rebuild a vault that was lost, so that what was wrapped by its keys finds them, give
its --id too; an escrow file has it.`, func(ctx context.Context, _ []string) (err error) {
		dir, err := a.vaultDir(&a.vault)
		if err != nil {
			return err
		}
		if isKeyVault(dir) {
			return notOfKeyVaults(dir, "it is made with az keyvault create; docs/azure.md has the steps")
		}
		if a.vault.identity != "" {
			return usagef("only the owner makes a vault; --identity is for others")
		}
		if opts.KDF, err = kdf.kdf(); err != nil {
			return err
		}
		if secretFile != "" && escrow != "" {
			return usagef("--backup-secret-file or --escrow-file, not both")
		}
		if secretFile != "" {
			if opts.BackupSecret, err = os.ReadFile(secretFile); err != nil {
				return err
			}
			if n := len(opts.BackupSecret); n != local.BackupSecretSize {
				return fmt.Errorf("%s has %d bytes, and a backup secret has %d", secretFile, n, local.BackupSecretSize)
			}
		}
		if escrow != "" {
			e, err := a.openEscrow(escrow, escrowFile)
			if err != nil {
				return err
			}
			opts.BackupSecret = e.BackupSecret
			if opts.ID == "" {
				opts.ID = e.VaultID
			}
		}
		defer clear(opts.BackupSecret)
		s, err := a.open(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.close()) }()
		passphrase, err := a.newSecret(a.vault.passphrase())
		if err != nil {
			return err
		}
		defer clear(passphrase)
		own := s.vaultOptions("")
		opts.OnEvent, opts.InsecureKDF = own.OnEvent, own.InsecureKDF
		var v *opened
		create := func() error {
			return s.do(ctx, "", audit.Action{Operation: opInit, Key: vault.KeyID{Vault: opts.ID}}, func(context.Context) (vault.KeyID, error) {
				made, err := local.Create(dir, passphrase, &opts)
				if err != nil {
					return vault.KeyID{}, err
				}
				v = s.add(made, dir, "")
				return v.all(), nil
			})
		}
		if out == "" {
			err = create()
		} else {
			_, err = a.keepSecret(out, func() ([]byte, error) {
				if err := create(); err != nil {
					return nil, err
				}
				return v.backupSecret(ctx)
			})
			if err != nil && v != nil {
				err = fmt.Errorf("the vault was made, and its backup secret was not written; try vault backup-secret: %w", err)
			}
		}
		if err != nil {
			return fromFlags(err)
		}
		return a.showVault(ctx, v)
	})
	kdf.add(c)
	f := c.Flags()
	f.IntVar(&opts.RetentionDays, "retention-days", local.DefaultRetentionDays, "how many days a deleted key can be recovered, 7 to 90")
	f.BoolVar(&opts.PurgeProtection, "purge-protection", false, "forbid purging a key before its retention is over, for good")
	f.StringVar(&secretFile, "backup-secret-file", "", "`file` with the backup secret of another vault, 32 bytes (default: a fresh one)")
	f.StringVar(&escrow, "escrow-file", "", "escrow `file` of another vault; its passphrase: --escrow-passphrase-file, $BLOCKSEAL_ESCROW_PASSPHRASE or the terminal")
	f.StringVar(&escrowFile, "escrow-passphrase-file", "", "`file` with the passphrase of --escrow-file")
	f.StringVar(&opts.ID, "id", "", "the `id` of the lost vault that this one replaces (default: a fresh one)")
	f.StringVar(&out, "backup-secret-out", "", "write the backup secret to this new `file`, mode 0600")
	return c
}

func (a *app) openEscrow(path, passphraseFile string) (local.Escrow, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return local.Escrow{}, err
	}
	p, err := a.readSecret(escrowSource(path, passphraseFile), false)
	if err != nil {
		return local.Escrow{}, err
	}
	defer clear(p)
	return local.OpenEscrow(file, p)
}

func escrowSource(path, file string) secretSource {
	return secretSource{what: "passphrase of the escrow file " + path, file: file, flag: "escrow-passphrase-file", env: "BLOCKSEAL_ESCROW_PASSPHRASE"}
}

type vaultView struct {
	ID              string    `json:"id"`
	Directory       string    `json:"directory"`
	Created         time.Time `json:"created"`
	Generation      uint64    `json:"generation"`
	KDF             string    `json:"kdf"`
	Passes          uint32    `json:"kdfPasses"`
	Memory          uint32    `json:"kdfMemoryKiB,omitempty"`
	Lanes           uint8     `json:"kdfLanes,omitempty"`
	RetentionDays   int       `json:"retentionDays"`
	PurgeProtection bool      `json:"purgeProtection"`
}

// showVault shows a vault after a change.
func (a *app) showVault(ctx context.Context, v *opened) error {
	in, err := v.Info(ctx)
	if err != nil {
		return err
	}
	return a.showInfo(v, in)
}

func (a *app) showInfo(v *opened, in local.Info) error {
	view := vaultView{in.ID, v.dir, in.Created, in.Generation, in.KDF.Algorithm.String(), in.KDF.Passes, in.KDF.Memory,
		in.KDF.Lanes, in.RetentionDays, in.PurgeProtection}
	return a.show(view, func(t *table) {
		t.row("id", view.ID)
		t.row("directory", view.Directory)
		t.row("created", view.Created)
		t.row("generation", view.Generation)
		kdf := fmt.Sprintf("%s, %d iterations", view.KDF, view.Passes)
		if in.KDF.Algorithm == local.Argon2id {
			kdf = fmt.Sprintf("%s, %d passes over %d KiB in %d lanes", view.KDF, view.Passes, view.Memory, view.Lanes)
		}
		t.row("kdf", kdf)
		t.row("retention", fmt.Sprint(view.RetentionDays, " days"))
		t.row("purge protection", view.PurgeProtection)
	})
}

// ownersOnly refuses to pretend that an identity can do what only the owner of a file vault
// can, and that a Key Vault can do it at all: instead says what there is for it.
func (a *app) ownersOnly(instead string, do func(context.Context, *opened, []string) error) func(context.Context, []string) error {
	with := a.withVault(do)
	return func(ctx context.Context, args []string) error {
		if dir, err := a.vaultDir(&a.vault); err == nil && isKeyVault(dir) {
			return notOfKeyVaults(dir, instead)
		}
		if a.vault.identity != "" {
			return usagef("only the vault's owner can do this; --identity is for others")
		}
		return with(ctx, args)
	}
}

func (a *app) vaultInfo() *cobra.Command {
	return a.command("info", "show a vault's properties", `Info shows a vault's properties. Its generation is one more at each change: kept
elsewhere, it shows whether an old copy was put in the vault's place.`,
		a.ownersOnly("az keyvault show has its properties, and key preflight says what matters of them", func(ctx context.Context, v *opened, _ []string) error {
			var in local.Info
			err := v.do(ctx, opInfo, v.all(), "", func(ctx context.Context) (_ vault.KeyID, err error) {
				in, err = v.Info(ctx)
				return vault.KeyID{}, err
			})
			if err != nil {
				return err
			}
			return a.showInfo(v, in)
		}))
}

func (a *app) vaultPassphrase() *cobra.Command {
	var kdf kdfFlags
	var file string
	c := a.command("passphrase", "change a vault's passphrase", `Passphrase changes a vault's passphrase, and with --kdf what it costs to try one.
Everything is sealed under a new key: the old passphrase opens old copies of the vault's
directory, and nothing made since. Programs that have the vault open serve until their
stores' leases end; start them again with the new passphrase before.`,
		a.ownersOnly("it has no passphrase; who signs in to it is Microsoft Entra ID's to say", func(ctx context.Context, v *opened, _ []string) error {
			k, err := kdf.kdf()
			if err != nil {
				return err
			}
			p, err := a.newSecret(secretSource{what: "new passphrase", file: file, flag: "new-passphrase-file", env: "BLOCKSEAL_NEW_PASSPHRASE"})
			if err != nil {
				return err
			}
			defer clear(p)
			err = v.do(ctx, opPassphrase, v.all(), "", func(ctx context.Context) (vault.KeyID, error) {
				return vault.KeyID{}, v.ChangePassphrase(ctx, p, k)
			})
			if err != nil {
				return fromFlags(err)
			}
			return a.showVault(ctx, v)
		}))
	kdf.add(c)
	c.Flags().StringVar(&file, "new-passphrase-file", "", "`file` with the new passphrase (default: $BLOCKSEAL_NEW_PASSPHRASE, or the terminal)")
	return c
}

func (a *app) vaultPurgeProtection() *cobra.Command {
	return a.command("purge-protection", "forbid purging keys early, for good", `Purge-protection forbids purging keys before their retention is over. It cannot be
undone.`, a.ownersOnly("az keyvault update --enable-purge-protection turns that on", func(ctx context.Context, v *opened, _ []string) error {
		err := v.do(ctx, opProtect, v.all(), "", func(ctx context.Context) (vault.KeyID, error) {
			return vault.KeyID{}, v.EnablePurgeProtection(ctx)
		})
		if err != nil {
			return err
		}
		return a.showVault(ctx, v)
	}))
}

// backupSecret returns the vault's backup secret, once that is recorded.
func (o *opened) backupSecret(ctx context.Context) (secret []byte, err error) {
	err = o.do(ctx, opBackupSecret, o.all(), "", func(ctx context.Context) (_ vault.KeyID, err error) {
		secret, err = o.BackupSecret(ctx)
		return vault.KeyID{}, err
	})
	return secret, err
}

func (a *app) vaultBackupSecret() *cobra.Command {
	var out string
	c := a.command("backup-secret", "write what opens the vault's backups", `Backup-secret writes the 32 bytes under which the vault's backups are encrypted to a
new file, as they are. Whoever has it and a backup has the key. See vault escrow for
one that is encrypted under a passphrase.`, a.ownersOnly("it has no backup secret; only Key Vault opens its backups, in the same subscription and geography", func(ctx context.Context, v *opened, _ []string) error {
		if out == "" {
			return usagef("where to? give --out")
		}
		if _, err := a.keepSecret(out, func() ([]byte, error) { return v.backupSecret(ctx) }); err != nil {
			return err
		}
		return a.show(map[string]string{"file": out}, func(t *table) { t.row("backup secret", out) })
	}))
	c.Flags().StringVar(&out, "out", "", "the new `file`, mode 0600")
	return c
}

func (a *app) vaultEscrow() *cobra.Command {
	var kdf kdfFlags
	var out, file string
	c := a.command("escrow", "write the backup secret under a passphrase", `Escrow writes the vault's backup secret and its id to a new file, encrypted under a
passphrase of its own: what brings the vault back, together with the backups of its
keys (vault init --escrow-file, then key restore).`, a.ownersOnly("it has no backup secret; only Key Vault opens its backups, in the same subscription and geography", func(ctx context.Context, v *opened, _ []string) error {
		k, err := kdf.kdf()
		if err != nil {
			return err
		}
		if out == "" {
			return usagef("where to? give --out")
		}
		p, err := a.newSecret(escrowSource(out, file))
		if err != nil {
			return err
		}
		defer clear(p)
		_, err = a.keepSecret(out, func() (e []byte, err error) {
			err = v.do(ctx, opEscrow, v.all(), "", func(ctx context.Context) (_ vault.KeyID, err error) {
				e, err = v.EscrowBackupSecret(ctx, p, k)
				return vault.KeyID{}, err
			})
			return e, err
		})
		if err != nil {
			return fromFlags(err)
		}
		return a.show(map[string]string{"file": out}, func(t *table) { t.row("escrow", out) })
	}))
	kdf.add(c)
	c.Flags().StringVar(&out, "out", "", "the new `file`, mode 0600")
	c.Flags().StringVar(&file, "escrow-passphrase-file", "", "`file` with the escrow's passphrase (default: $BLOCKSEAL_ESCROW_PASSPHRASE, or the terminal)")
	return c
}

func (a *app) vaultMaintain() *cobra.Command {
	return a.command("maintain", "do what is due: rotate, notify, purge", `Maintain rotates keys by their policies, gives notice of near expiry, and purges what
was deleted when its retention is over. Run it once a day.`,
		a.withVault(func(ctx context.Context, v *opened, _ []string) error {
			if v.azure != nil {
				return notOfKeyVaults(v.ID(), "it does by itself what is due, by each key's policy (key policy)")
			}
			var rotated []vault.KeyID
			err := v.do(ctx, opMaintain, v.all(), "", func(ctx context.Context) (_ vault.KeyID, err error) {
				rotated, err = v.fileAdmin().Maintain(ctx) // its rotations and purges are events, and recorded as such
				return vault.KeyID{}, err
			})
			keys := []string{}
			for _, id := range rotated {
				keys = append(keys, id.String())
			}
			slices.Sort(keys)
			return errors.Join(err, a.show(map[string]any{"rotated": keys}, func(t *table) {
				for _, k := range keys {
					t.row("rotated", k)
				}
			}))
		}))
}
