package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/examples/internal/clitest"
)

// TestMain is the program itself where a test runs it as another process: what a
// certificate authority's file and the authority of Azure are is read once a process.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const asProgram = "BLOCKSEAL_AZURE_AS_PROGRAM"

func none(string) string { return "" }

// The vault that internal/keyvaulttest/serve runs is used with what that exports, by the
// program as it is used with Azure.
func TestServedVault(t *testing.T) {
	dir := t.TempDir()
	serve := filepath.Join(dir, "serve")
	out, err := exec.Command("go", "build", "-o", serve, "../../internal/keyvaulttest/serve").CombinedOutput()
	require.NoError(t, err, string(out))
	server := exec.Command(serve, "-env", "-purge-protection")
	server.Stderr = os.Stderr
	pipe, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	defer func() {
		require.NoError(t, server.Process.Signal(os.Interrupt))
		require.NoError(t, server.Wait())
	}()
	var exports []string
	line := regexp.MustCompile(`^export (\w+)='(.*)'$`)
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		m := line.FindStringSubmatch(lines.Text())
		require.NotNil(t, m, lines.Text())
		exports = append(exports, m[1]+"="+m[2])
		if m[1] == "ADMINISTRATOR_CLIENT_SECRET" {
			break
		}
	}
	program := func(without string, args ...string) (string, error) {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.Command(self, args...)
		// Of this process's own, nothing that says who signs in where.
		cmd.Env = []string{asProgram + "=1", "HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
		for _, e := range exports {
			if without == "" || !strings.HasPrefix(e, without+"=") {
				cmd.Env = append(cmd.Env, e)
			}
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	said, err := program("", "preflight")
	require.NoError(t, err, said)
	require.Contains(t, said, "pass  unwrap")
	said, err = program("", "-blocks", "20", "-dir", filepath.Join(dir, "data"))
	require.NoError(t, err, said)
	require.Contains(t, said, "blocks        20 written and read")
	require.NotContains(t, said, "eyJ", "no token")

	said, err = program("BLOCKSEAL_TEST_VAULT", "preflight")
	require.Error(t, err, "without it a vault on loopback gets no token")
	require.Contains(t, said, "the client refused the vault's challenge")
}

// What the program says of each thing that is done to the key, against the emulated
// vault, with azidentity signing in.
func TestEmulated(t *testing.T) {
	var out clitest.Output
	dir := t.TempDir()
	require.NoError(t, runWith(t.Context(), []string{"-emulate", "-blocks", "50", "-dir", dir}, none, &out), out.String())
	at := 0
	for _, want := range []string{"emulated      https://127.0.0.1:", "pass  purge protection   on", "pass  unwrap",
		"blocks        50 written and read", "KEK in use", "rotate        the store is Available",
		"disable       the store is Inaccessible", "enable        the store is Available",
		"delete        the store is Inaccessible", "recover       the store is Available", "KEK in use"} {
		i := strings.Index(out.String()[at:], want)
		require.GreaterOrEqual(t, i, 0, "%s\n%s", want, out.String())
		at += i
	}
	require.NotContains(t, out.String(), "eyJ", "no token")
	// The blocks are there and nobody reads them: that vault is gone.
	in, err := block.Inspect(t.Context(), filepath.Join(dir, "store"), nil)
	require.NoError(t, err)
	require.EqualValues(t, 50, in.Records)
}

func TestPreflightAlone(t *testing.T) {
	var out clitest.Output
	require.NoError(t, runWith(t.Context(), []string{"preflight", "-emulate"}, none, &out), out.String())
	require.Contains(t, out.String(), "pass  latency")
	require.NotContains(t, out.String(), "store ")
}

func TestCommandLine(t *testing.T) {
	env := func(name string) string {
		return map[string]string{"BLOCKSEAL_VAULT_URL": "https://contoso.vault.azure.net/", "BLOCKSEAL_KEY": "orders",
			"BLOCKSEAL_KEY_VERSION": "0123", "BLOCKSEAL_DIR": "/data", "AZURE_TENANT_ID": "t"}[name]
	}
	o, err := parse(nil, env, nil)
	require.NoError(t, err)
	require.Equal(t, "https://contoso.vault.azure.net", o.url)
	require.Equal(t, "orders/0123 in /data of t", o.key.Name+"/"+o.key.Version+" in "+o.dir+" of "+o.tenant)
	o, err = parse([]string{"preflight", "-key", "other", "-key-version", ""}, env, nil)
	require.NoError(t, err)
	require.True(t, o.preflight)
	require.Equal(t, "other/", o.key.Name+"/"+o.key.Version)
	for _, args := range [][]string{{}, {"-blocks", "0", "-emulate"}, {"postflight", "-emulate"}, {"-no-such-flag"}} {
		require.ErrorIs(t, runWith(t.Context(), args, none, &clitest.Output{}), cli.ErrUsage)
	}
	for url, ok := range map[string]bool{"https://127.0.0.1:1": true, "https://[::1]:1": true, "https://contoso.vault.azure.net": false,
		"https://127.0.0.1.example:1": false, "https://localhost:1": false, "https://203.0.113.7": false} {
		_, err = parse([]string{"-test-vault", "-vault", url}, none, nil)
		require.Equal(t, ok, err == nil, "%s: %v", url, err)
		o, err = parse([]string{"-vault", url}, func(name string) string { return map[string]string{"BLOCKSEAL_TEST_VAULT": "1"}[name] }, nil)
		require.Equal(t, ok, err == nil && o.testVault, "%s: %v", url, err)
	}
	var out clitest.Output
	require.ErrorIs(t, runWith(t.Context(), []string{"-h"}, none, &out), flag.ErrHelp)
	require.Contains(t, out.String(), "BLOCKSEAL_VAULT_URL")
}

// With -watch it stays until it is interrupted, and then ends in order.
func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	interrupted := errors.New("interrupted")
	out := &stopper{text: "watching", stop: func() { cancel(interrupted) }}
	require.NoError(t, runWith(ctx, []string{"-emulate", "-watch", "-blocks", "1"}, none, out))
	require.ErrorIs(t, context.Cause(ctx), interrupted)
}

type stopper struct {
	text string
	stop func()
}

func (s *stopper) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		s.stop()
	}
	return len(p), nil
}
