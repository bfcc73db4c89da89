package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func (a *app) keyImport() *cobra.Command {
	var flags keyFlags
	var password string
	var c *cobra.Command
	c = a.command("import NAME FILE", "take in a key that was made elsewhere", `Import makes a key from a file: PEM (PKCS#8, encrypted or not, or PKCS#1), PKCS#12
(.pfx, .p12), or a key transfer blob (.byok), told apart by their content. The key is
RSA, exactly 2048 bits. A name that is taken is refused, unless --new-version says that
a new current version of that key is meant.

The password of an encrypted file comes from --password-file,
$BLOCKSEAL_IMPORT_PASSWORD or the terminal. A .byok file is made for a key of this
vault: make that with key create NAME --import-only, and give its public half (key
public) to the tool that makes the file. .pfx and .byok are refused where FIPS 140-3 is
enforced: they need SHA-1, or a key derivation that is in no FIPS module.

FILE stays where it is: destroy it when there is a key backup.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			o, err := flags.options(c, v)
			if err != nil {
				return err
			}
			file, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			defer clear(file)
			source := secretSource{what: "password of " + args[1], file: password, flag: "password-file", env: "BLOCKSEAL_IMPORT_PASSWORD"}
			pass, err := a.importPassword(source, file)
			if err != nil {
				return err
			}
			defer clear(pass)
			return a.doKey(ctx, v, local.OpImport, id, func(ctx context.Context) (vault.Key, error) {
				return v.admin().ImportFile(ctx, id.Name, file, pass, o)
			})
		}))
	flags.add(c, true)
	c.Flags().StringVar(&password, "password-file", "", "`file` with the password of FILE")
	return c
}

// importPassword returns the password of a file to import, or nil if there is none. A
// person is asked only if the file does not open without; where there is nobody, the
// import says what is wrong.
func (a *app) importPassword(source secretSource, file []byte) ([]byte, error) {
	if source.file != "" || a.getenv(source.env) != "" {
		return a.readSecret(source, false)
	}
	_, pemErr := local.ParsePEM(file, nil)
	_, pfxErr := local.ParsePFX(file, "")
	if !errors.Is(pemErr, local.ErrWrongPassword) && !errors.Is(pfxErr, local.ErrWrongPassword) {
		return nil, nil
	}
	pass, err := a.prompt(source.what)
	if errors.Is(err, errNoTerminal) {
		return nil, nil
	}
	return pass, err
}

func (a *app) keyBackup() *cobra.Command {
	var out string
	c := a.command("backup NAME", "write a key to a file, encrypted", `Backup writes a key with all its versions and its rotation policy to a new file,
encrypted under the vault's backup secret. It is the one way out for a private key.
Vaults that share the secret restore it: vault init --backup-secret-file. A Key Vault's
backup only Key Vault opens, in the same subscription and geography.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			if out == "" {
				return usagef("where to? give --out")
			}
			size, err := a.keepSecret(out, func() (b []byte, err error) {
				err = v.do(ctx, local.OpBackup, id, "", func(ctx context.Context) (_ vault.KeyID, err error) {
					b, err = v.admin().BackupKey(ctx, id.Name)
					return vault.KeyID{}, err
				})
				return b, err
			})
			if err != nil {
				return err
			}
			return a.show(map[string]any{"name": id.Name, "file": out, "size": size}, func(t *table) {
				t.row("backup of", id.Name)
				t.row("file", out)
				t.row("size", size)
			})
		}))
	c.Flags().StringVar(&out, "out", "", "the new `file`, mode 0600")
	return c
}

func (a *app) keyRestore() *cobra.Command {
	return a.command("restore FILE", "take a key from a backup", `Restore adds the key of a backup, with all its versions, under its old name, which must
be free. The vault shares the backup secret of the one that made the backup.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			file, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			return a.doKey(ctx, v, local.OpRestore, v.all(), func(ctx context.Context) (vault.Key, error) {
				return v.admin().RestoreKey(ctx, file)
			})
		}))
}
