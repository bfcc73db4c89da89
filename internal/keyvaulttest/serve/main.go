// Serve runs a key vault to test clients with, on loopback, for another program to talk
// to:
//
//	go run ./internal/keyvaulttest/serve
//
// It says where the vault and its authority are, and with which client ids and secrets
// to sign in; with -env as lines for a shell, as examples/azure and azidentity read them.
// It ends when it is interrupted, and then the vault is gone, unless -dir says where it is
// kept.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault/local"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "serve:", err)
	os.Exit(1)
}

var errUsage = errors.New("run with -h for the flags")

type options struct {
	keyvaulttest.Options
	key        string
	identities []grant
	cert       string
	env        bool
}

// grant is an identity and what it may do.
type grant struct {
	name string
	ops  []local.Permission
}

func parseGrant(s string) (grant, error) {
	name, list, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return grant{}, fmt.Errorf("want NAME=PERMISSION,PERMISSION, or NAME=all")
	}
	if list == "all" {
		return grant{name, local.Permissions()}, nil
	}
	g := grant{name: name}
	for _, op := range strings.Split(list, ",") {
		if !slices.Contains(local.Permissions(), local.Permission(op)) {
			return grant{}, fmt.Errorf("there is no permission %q; there are %v", op, local.Permissions())
		}
		g.ops = append(g.ops, local.Permission(op))
	}
	return g, nil
}

func parse(args []string, out io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.Address, "listen", "127.0.0.1:0", "the loopback `address` to listen on")
	flags.StringVar(&o.Dir, "dir", "", "the vault's `directory`, made if it is not there (default: a temporary one)")
	flags.StringVar(&o.Tenant, "tenant", keyvaulttest.DefaultTenant, "the `ID` of the tenant that owns the vault")
	flags.StringVar(&o.key, "key", "kek", "make a key of this `name` if there is none; empty: none")
	flags.IntVar(&o.Limit, "limit", 0, "how many operations are served in 10 seconds (default: no limit)")
	flags.StringVar(&o.RetryAfter, "retry-after", "", "the header of the answers beyond the limit, in `seconds`")
	flags.BoolVar(&o.AccessPolicies, "access-policies", false, "word refusals as a vault with access policies does")
	flags.BoolVar(&o.PurgeProtection, "purge-protection", false, "refuse to purge keys")
	flags.StringVar(&o.cert, "cert", "", "write the server's certificate to this `file` (default: in the temporary directory)")
	flags.BoolVar(&o.env, "env", false, "say it as export lines for a shell")
	flags.Func("identity", "an identity and what it may do, `NAME=get,wrapKey` or NAME=all; may be repeated\n(default: store=get,wrapKey,unwrapKey and administrator=all)", func(s string) error {
		g, err := parseGrant(s)
		o.identities = append(o.identities, g)
		return err
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "Serve runs a key vault to test clients with, on loopback.")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return o, err
	case err != nil:
		return o, fmt.Errorf("%w; %w", err, errUsage)
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; %w", flags.Arg(0), errUsage)
	}
	if len(o.identities) == 0 {
		o.identities = []grant{{"store", local.DataPlane()}, {"administrator", local.Permissions()}}
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "keyvault-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if o.Dir == "" {
		o.Dir = filepath.Join(tmp, "vault")
	}
	if o.cert == "" {
		o.cert = filepath.Join(tmp, "ca.pem")
	}
	s, err := keyvaulttest.New(&o.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := os.WriteFile(o.cert, s.Certificate(), 0o644); err != nil {
		return err
	}
	if o.key != "" {
		if _, err := s.Vault().EnsureKey(ctx, o.key, nil); err != nil {
			return err
		}
	}
	var ids []keyvaulttest.Identity
	for _, g := range o.identities {
		id, err := s.AddIdentity(g.name, g.ops...)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	if o.env {
		exports(out, s, o, ids)
	} else {
		describe(out, s, o, ids)
	}
	<-ctx.Done()
	return nil
}

// exports writes what there is to know as lines for a shell: of each identity, in names
// that start with its own, and of the first as azidentity reads it.
func exports(out io.Writer, s *keyvaulttest.Server, o options, ids []keyvaulttest.Identity) {
	line := func(name, value string) { fmt.Fprintf(out, "export %s='%s'\n", name, value) }
	line("BLOCKSEAL_VAULT_URL", s.URL())
	line("BLOCKSEAL_KEY", o.key)
	line("BLOCKSEAL_TEST_VAULT", "1") // no client of Azure's takes a vault on loopback otherwise
	line("SSL_CERT_FILE", o.cert)
	line("AZURE_AUTHORITY_HOST", s.URL())
	line("AZURE_TENANT_ID", s.Tenant())
	line("AZURE_CLIENT_ID", ids[0].ClientID)
	line("AZURE_CLIENT_SECRET", ids[0].ClientSecret)
	for _, id := range ids {
		name := strings.ToUpper(strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, id.Name))
		line(name+"_CLIENT_ID", id.ClientID)
		line(name+"_CLIENT_SECRET", id.ClientSecret)
	}
}

func describe(out io.Writer, s *keyvaulttest.Server, o options, ids []keyvaulttest.Identity) {
	token := s.URL() + "/" + s.Tenant() + "/oauth2/v2.0/token"
	fmt.Fprintf(out, "vault         %s\ncertificate   %s\ntenant        %s\ntokens        %s\n", s.URL(), o.cert, s.Tenant(), token)
	for _, id := range ids {
		fmt.Fprintf(out, "identity      %s: client id %s, client secret %s\n", id.Name, id.ClientID, id.ClientSecret)
	}
	fmt.Fprintf(out, `
TOKEN=$(curl -s --cacert %[1]s %[2]s -d grant_type=client_credentials -d scope=https://vault.azure.net/.default \
  -d client_id=%[3]s -d client_secret=%[4]s | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -s --cacert %[1]s -H "Authorization: Bearer $TOKEN" "%[5]s/keys/%[6]s?api-version=%[7]s"

Interrupt to end.
`, o.cert, token, ids[0].ClientID, ids[0].ClientSecret, s.URL(), o.key, keyvaulttest.APIVersion)
}
