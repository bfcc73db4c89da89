// Clients runs Microsoft's own clients of Key Vault for JavaScript and for Python against
// the server that stands for Key Vault in tests: what they take for an answer, that server
// should say. It is not among the tests of `go test ./...`, because it needs Node.js, npm
// and a registry of its packages, and Python with azure-identity, azure-keyvault-keys and
// cryptography (Debian: nodejs, npm, python3-azure):
//
//	go run ./internal/keyvaulttest/clients
//
// Each flow (flow.mjs, flow.py) signs in, and goes through a key's life and through what
// is refused. The program fails unless both went through every step.
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// steps are what every client goes through, in this order.
var steps = []string{
	"a wrong secret is refused", "create", "import", "get", "list keys in pages", "list versions in pages",
	"wrap and unwrap", "wrap at the vault", "expiry and tags", "disable and enable", "rotation policy", "rotate",
	"back up, purge and restore", "delete and recover", "errors",
}

//go:embed flow.mjs
var flowJS []byte

//go:embed flow.py
var flowPy []byte

//go:embed package.json
var packageJSON []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("clients", flag.ContinueOnError)
	flags.SetOutput(out)
	node := flags.String("node", "node", "the Node.js `program`; empty: not the JavaScript client")
	npm := flags.String("npm", "npm", "the npm `program`")
	python := flags.String("python", "/usr/bin/python3", "the Python `program`; empty: not the Python client")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for name, text := range map[string][]byte{"flow.mjs": flowJS, "flow.py": flowPy, "package.json": packageJSON} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	if *node != "" {
		if err := client(ctx, dir, out, nil, "", *npm, "install", "--silent", "--no-audit", "--no-fund"); err != nil {
			return fmt.Errorf("install the JavaScript client: %w", err)
		}
		if err := flow(ctx, dir, out, "JavaScript", *node, "flow.mjs"); err != nil {
			return err
		}
	}
	if *python != "" {
		return flow(ctx, dir, out, "Python", *python, "flow.py")
	}
	return nil
}

// flow runs one client's flow against a server of its own.
func flow(ctx context.Context, dir string, out io.Writer, name, program, script string) (err error) {
	s, err := keyvaulttest.New(&keyvaulttest.Options{PageSize: 3})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := s.Vault().CreateKey(ctx, "kek", nil); err != nil {
		return err
	}
	cert := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(cert, s.Certificate(), 0o644); err != nil {
		return err
	}
	env := append(os.Environ(), "VAULT_URL="+s.URL(), "AUTHORITY="+s.URL(), "TENANT_ID="+s.Tenant(),
		"NODE_EXTRA_CA_CERTS="+cert, "REQUESTS_CA_BUNDLE="+cert, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	for _, g := range []struct {
		name string
		ops  []local.Permission
	}{
		{"OFFICER", local.Permissions()},
		{"SERVICE", local.DataPlane()},
		{"WRAPPER", []local.Permission{vault.OpWrapKey}},
		{"UNWRAPPER", []local.Permission{vault.OpUnwrapKey}},
	} {
		id, err := s.AddIdentity(strings.ToLower(g.name), g.ops...)
		if err != nil {
			return err
		}
		env = append(env, g.name+"_CLIENT_ID="+id.ClientID, g.name+"_CLIENT_SECRET="+id.ClientSecret)
	}
	start := time.Now()
	var said bytes.Buffer
	err = client(ctx, dir, &said, env, name, program, script)
	var done []string
	for line := range strings.Lines(said.String()) {
		if step, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			done = append(done, step)
		}
	}
	if err != nil {
		next := "its end"
		if len(done) < len(steps) {
			next = fmt.Sprintf("%q", steps[len(done)])
		}
		return fmt.Errorf("%s, at %s: %w\n%s", name, next, err, said.String())
	}
	if !slices.Equal(done, steps) {
		return fmt.Errorf("%s went through %q, and the steps are %q", name, done, steps)
	}
	fmt.Fprintf(out, "%s: %d steps, %d requests, %v\n", name, len(done), s.Requests(""), time.Since(start).Round(time.Millisecond))
	return nil
}

func client(ctx context.Context, dir string, out io.Writer, env []string, name, program string, args ...string) error {
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Env, c.Stdout, c.Stderr = dir, env, out, out
	err := c.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; give it by its flag, or leave the client out with an empty one", err)
	}
	return err
}
