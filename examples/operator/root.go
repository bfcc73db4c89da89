package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/azure"
)

// app is what the commands share: where they read and write, and the flags that
// all of them have.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	prompt   func(label string) ([]byte, error) // asks a person, on the terminal
	width    func() int                         // of the terminal, or 0; nil: none
	disk     disk                               // tests put others in the place of these two
	openLog  func(dir string, opts *audit.DirOptions) (*audit.Log, error)
	connect  func(vaultURL string) (azcore.TokenCredential, *azure.Options, error) // tests sign in to a Key Vault by it; nil: signIn
	cheapKDF bool                                                                  // tests, whose passphrases protect nothing, permit a KDF below the floor

	ran     bool // whether a command was begun
	json    bool
	whole   bool // ids, in tables
	verbose bool
	vault   vaultFlags
	audit   auditFlags
	fileKEK fileKEKFlags
	session *session // of the command, while one is open; see open
}

const about = `Operator works on both sides of a store's keys.

The owner of a vault makes key encryption keys (KEKs), grants identities the use of
them, and can take both away: the commands vault, key, grant and audit. Who runs a
store puts it on a KEK and moves it from one to the next: the command store.

A vault is a file vault, by its directory, or an Azure Key Vault or managed HSM, by its
URL: --vault https://NAME.vault.azure.net. help keyvault says what differs.

` + exitHelp

const flow = `In order:

  1. The vault, its passphrase, and what brings it back when it is lost:
       operator vault init --vault V --backup-secret-out SECRET
     Keep SECRET and the backups of keys (key backup) in two different places.
     Without it: vault escrow, later.
  2. A KEK, and an identity that may use it and nothing else:
       operator key create customer --vault V
       operator grant add store get wrapKey unwrapKey --vault V
  3. A store on it. The vault remembers the store (vault stores), so that a KEK
     version that it needs is not taken away by mistake:
       operator store init S --key customer --vault V --identity store --audit A
  4. What the store is doing, and that it is whole:
       operator store state S ...    operator store verify S ...
       operator store inspect S      (needs neither key nor vault)
  5. A new KEK version, and the old one away once nothing needs it:
       operator key rotate customer ...
       operator store rotate kek S ...
       operator store usage S
       operator key disable customer/OLDVERSION ...
  6. An emergency: key disable --force, or grant remove. Stores that are open go
     Inaccessible at their next check. key enable, then store revalidate.
  7. Erasure: store delete, store erase --receipt R, and purge the KEK versions that
     the receipt names when nothing else needs them.
  8. The audit log: audit verify A --head-file HEAD --save-head HEAD, with HEAD where
     the writer of the log cannot change it.

A store, and an audit log, can be open in one process at a time. Beside a program
that has a store open, only the vault's side (vault, key, grant) works: the tool
refuses to disable a key that such a store may need, unless --force.

Passphrases of file vaults come from --passphrase-file, from the environment, or from the
terminal, never from the command line:
  BLOCKSEAL_VAULT           the default of --vault
  BLOCKSEAL_AUDIT           the default of --audit
  BLOCKSEAL_PASSPHRASE      of the vault
  BLOCKSEAL_NEW_PASSPHRASE  the new one, with vault passphrase
  BLOCKSEAL_ESCROW_PASSPHRASE, BLOCKSEAL_IMPORT_PASSWORD,
  BLOCKSEAL_TO_PASSPHRASE, BLOCKSEAL_FROM_PASSPHRASE, BLOCKSEAL_FILES_PASSPHRASE
                            as the commands that use them say`

const aboutKeyVault = `With the URL of an Azure Key Vault or managed HSM for --vault, the commands key and store
do what they do with a file vault:

       operator key create customer --vault https://contoso.vault.azure.net
       operator key preflight customer --vault https://contoso.vault.azure.net
       operator store init S --key customer --vault https://contoso.vault.azure.net

The tool signs in as azidentity's DefaultAzureCredential: a managed identity, a workload
identity, AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or "az login". Who
administers keys needs the role Key Vault Crypto Officer, who runs a store Key Vault Crypto
Service Encryption User: two identities, so two environments.

What differs:
  passphrases, grants  A Key Vault has neither: --passphrase-file, --identity and the
                       commands grant and vault (but stores and forget-store) are for file
                       vaults. Who may do what is said by role assignments.
  key create --hsm     The key is made, or imported, in the vault's HSM (premium tier); in
                       a managed HSM all keys are.
  key backup           Only Key Vault opens it, in the same subscription and geography.
  key policy           Counts in whole days; Key Vault rotates by itself.
  key delete           Waits until the deletion is done, which takes some seconds. Key Vault
                       purges when the retention is over.
  key list             Asks for each key's versions, one request each.
  known stores         vault stores is a list of this user's, in $BLOCKSEAL_STATE (default:
                       blockseal in the user's configuration directory). What others made
                       is not in it: name it with --store.
  the audit log        Its caller is "` + signedIn + `"; each record has Key Vault's
                       request id.`

// newRoot returns the whole command.
func newRoot(a *app) *cobra.Command {
	root := a.group("operator", "vaults, keys, grants, audit logs and stores", about)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write the result as JSON, and an error as {\"error\", \"exit\"}")
	root.PersistentFlags().BoolVar(&a.whole, "whole", false, "write ids whole in tables; with --json they are")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "write what stores and vaults report to standard error")
	root.AddCommand(a.vaultCommand(), a.keyCommand(), a.grantCommand(), a.auditCommand(), a.storeCommand(), a.filesCommand(), a.anchorCommand(), a.manCommand(),
		&cobra.Command{Use: "flow", Short: "in which order the commands are used", Long: flow}, // two help topics
		&cobra.Command{Use: "keyvault", Short: "what differs with an Azure Key Vault or managed HSM", Long: aboutKeyVault},
	)
	a.explain(root)
	return root
}

// run runs one command line and returns the exit status.
func run(ctx context.Context, args []string, a *app) int {
	if a.disk == nil {
		a.disk = system{}
	}
	if a.openLog == nil {
		a.openLog = audit.OpenDir
	}
	root := newRoot(a)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.ran {
		err = usageError{err} // of cobra's own, such as flags that exclude each other
	}
	return a.report(ctx, err)
}

// group is a command that only has subcommands.
func (a *app) group(use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%s has no command %q", c.CommandPath(), args[0])
			}
			return c.Help()
		},
	}
}

// command is a command that does something. use names its arguments: NAME is one
// that is required, [NAME] one that is not, NAME... at least one, [NAME...] any number.
func (a *app) command(use, short, long string, do func(ctx context.Context, args []string) error) *cobra.Command {
	const many = 1 << 20
	least, most := 0, 0
	for _, arg := range strings.Fields(use)[1:] {
		switch {
		case strings.HasPrefix(arg, "["):
			most++
			if strings.HasSuffix(arg, "...]") {
				most = many
			}
		case strings.HasSuffix(arg, "..."):
			least, most = least+1, many
		default:
			least, most = least+1, most+1
		}
	}
	if long == "" {
		long = strings.ToUpper(short[:1]) + short[1:] + "."
	}
	return &cobra.Command{
		Use: use, Short: short, Long: long, DisableFlagsInUseLine: false,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < least || len(args) > most {
				return usagef("%s; usage: %s", given(len(args)), c.UseLine())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			a.ran = true
			return do(audit.WithRequestID(c.Context(), newRequest()), args)
		},
	}
}

// given says how many arguments there are.
func given(n int) string {
	switch n {
	case 0:
		return "no argument was given"
	case 1:
		return "1 argument was given"
	}
	return fmt.Sprintf("%d arguments were given", n)
}

// note tells a person something beside the result.
func (a *app) note(format string, args ...any) {
	if a.json {
		json.NewEncoder(a.err).Encode(map[string]string{"note": fmt.Sprintf(format, args...)})
		return
	}
	fmt.Fprintf(a.err, "operator: "+format+"\n", args...)
}
