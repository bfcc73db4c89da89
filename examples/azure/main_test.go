package main

import (
	"context"
	"errors"
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/examples/internal/clitest"
)

func none(string) string { return "" }

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
