// Azure is a store whose KEK is in Azure Key Vault or Managed HSM:
//
//	go run ./examples/azure -emulate
//
//	export BLOCKSEAL_VAULT_URL=https://contoso.vault.azure.net BLOCKSEAL_KEY=kek
//	go run ./examples/azure preflight
//	go run ./examples/azure -watch
//
// It looks whether the key can serve (the preflight), opens a store on it, writes and
// reads blocks, and says what that cost in calls to the vault. With -watch it stays and
// tells of each change of access, while somebody takes the key away in the portal. With
// -emulate there is no Azure: a server on loopback speaks Key Vault's REST, and the
// program plays the key administrator too, who rotates, disables and deletes the key.
// internal/keyvaulttest/serve runs that server for programs such as this one, and its
// -env says what to export.
//
// The credential is azidentity's DefaultAzureCredential: a managed
// identity, a workload identity, AZURE_CLIENT_ID and its like, or "az login".
// docs/azure.md says how vault, key and roles are set up.
//
// Read use in store.go: what a program does. main.go is the command line, emulate.go the
// rehearsal.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

func main() { cli.Main("azure", run) }

const about = `Azure is a store whose KEK is in Azure Key Vault or Managed HSM.

  go run ./examples/azure [preflight] [-vault URL] [-key NAME] [-dir DIR] [-watch]
  go run ./examples/azure [preflight] -emulate

The environment has defaults: BLOCKSEAL_VAULT_URL, BLOCKSEAL_KEY, BLOCKSEAL_KEY_VERSION,
BLOCKSEAL_DIR, BLOCKSEAL_TEST_VAULT=1 for -test-vault, and what azidentity reads
(AZURE_CLIENT_ID and so on).
`

// options are the command line and the environment.
type options struct {
	preflight   bool // only that
	emulate     bool
	watch       bool
	allowPurge  bool
	testVault   bool
	url, tenant string
	key         vault.KeyID
	dir         string
	blocks      int
}

func parse(args []string, getenv func(string) string, out io.Writer) (o options, err error) {
	if len(args) > 0 && args[0] == "preflight" {
		o.preflight, args = true, args[1:]
	}
	env := func(name, otherwise string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	flags := flag.NewFlagSet("azure", flag.ContinueOnError)
	flags.BoolVar(&o.emulate, "emulate", false, "use a server on loopback that speaks Key Vault's REST, and rehearse what an administrator does")
	flags.BoolVar(&o.watch, "watch", false, "stay, and tell of each change of access until interrupted")
	flags.BoolVar(&o.allowPurge, "allow-purge", false, "go on without purge protection, where one call destroys all data")
	flags.BoolVar(&o.testVault, "test-vault", getenv("BLOCKSEAL_TEST_VAULT") == "1",
		"for tests alone: the vault is one of internal/keyvaulttest on loopback, and so is the authority that signs in")
	flags.StringVar(&o.url, "vault", env("BLOCKSEAL_VAULT_URL", ""), "the vault's `URL`, such as https://contoso.vault.azure.net")
	flags.StringVar(&o.tenant, "tenant", getenv("AZURE_TENANT_ID"), "the `ID` of the tenant that the vault should be in (default: any)")
	flags.StringVar(&o.key.Name, "key", env("BLOCKSEAL_KEY", "kek"), "the key's `name`")
	flags.StringVar(&o.key.Version, "key-version", env("BLOCKSEAL_KEY_VERSION", ""), "the key's `version` (default: the newest, followed when the key is rotated)")
	flags.StringVar(&o.dir, "dir", env("BLOCKSEAL_DIR", ""), "the store's `directory` (default: a temporary one)")
	flags.IntVar(&o.blocks, "blocks", 1000, "how many blocks to write and read")
	if err := cli.Parse(flags, about, args, out); err != nil {
		return o, err
	}
	switch {
	case o.emulate:
		o.url = ""
	case o.url == "":
		return o, fmt.Errorf("set BLOCKSEAL_VAULT_URL or -vault to the vault's URL, or use -emulate; %w", cli.ErrUsage)
	}
	if o.testVault && !o.emulate && !loopback(o.url) {
		return o, fmt.Errorf("-test-vault, or BLOCKSEAL_TEST_VAULT, is for a vault on loopback, which %s is not: against another it would send tokens to whoever asks; %w", o.url, cli.ErrUsage)
	}
	if o.blocks < 1 || o.blocks > 10_000_000 {
		return o, fmt.Errorf("-blocks %d is not within 1 to 10,000,000; %w", o.blocks, cli.ErrUsage)
	}
	o.url = strings.TrimRight(o.url, "/")
	return o, nil
}

// loopback reports whether a URL is of this machine, by its address.
func loopback(vault string) bool {
	u, err := url.Parse(vault)
	return err == nil && net.ParseIP(u.Hostname()).IsLoopback()
}

func run(ctx context.Context, args []string, out io.Writer) error {
	return runWith(ctx, args, os.Getenv, out)
}

func runWith(ctx context.Context, args []string, getenv func(string) string, out io.Writer) (err error) {
	out = cli.Shared(out) // a change of access is told from another goroutine
	o, err := parse(args, getenv, out)
	if err != nil {
		return err
	}
	if o.dir == "" && !o.preflight {
		if o.dir, err = os.MkdirTemp("", "blockseal-azure-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if o.emulate {
		return emulate(ctx, o, out)
	}
	var credOpts azidentity.DefaultAzureCredentialOptions
	var opts azure.Options
	if o.testVault {
		// What a client checks of Azure and loopback cannot have: that the authority is one
		// that Microsoft knows, and that the vault is of Key Vault's domain.
		credOpts.DisableInstanceDiscovery = true
		opts.ClientOptions.DisableChallengeResourceVerification = true
	}
	cred, err := azidentity.NewDefaultAzureCredential(&credOpts)
	if err != nil {
		return err
	}
	return use(ctx, o, cred, &opts, nil, out)
}

// connect makes the vault and runs the preflight. One Vault and one credential serve a
// whole process.
func connect(ctx context.Context, o options, cred azcore.TokenCredential, opts *azure.Options, out io.Writer) (*azure.Vault, error) {
	v, err := azure.New(o.url, cred, opts)
	if err != nil {
		return nil, err
	}
	report := v.Preflight(ctx, o.key, &azure.PreflightOptions{Tenant: o.tenant, AllowPurge: o.allowPurge})
	fmt.Fprintf(out, "preflight     %s", report)
	if !report.OK() {
		return nil, errors.New("the preflight failed; its report says what to do")
	}
	return v, nil
}
