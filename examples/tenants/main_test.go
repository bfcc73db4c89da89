package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// ownTemp gives the command a directory of its own for temporary files.
func ownTemp(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "something was left behind")
}

func TestRun(t *testing.T) {
	temp := ownTemp(t)
	t.Setenv("COLUMNS", "80")
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-customers", "6"}, &out))
	unfolded := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"revoked customer-001: block: get \"note 00\": keyring: inaccessible since ", "key disabled",
		"the other 5 went on",
		"rotated customer-002: to version ",
		"moved customer-003: 20 blocks, ",
		"dropped customer-004: receipt ",
		"restart, get 6 120 ",
		"drop one 1 ",
		"apart 6 customers in one database",
	} {
		require.Contains(t, unfolded, want)
	}
	for line := range strings.Lines(out.String()) {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
	}
	requireEmpty(t, temp)
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		text string
		args []string
	}{
		{"flag provided but not defined: -x; run with -h for the flags", []string{"-x"}},
		{`unexpected argument "ten"; run with -h for the flags`, []string{"ten"}},
		{"-customers: there must be 5 at least; run with -h for the flags", []string{"-customers", "4"}},
	} {
		temp := ownTemp(t)
		err := run(t.Context(), c.args, io.Discard)
		require.EqualError(t, err, c.text)
		require.ErrorIs(t, err, cli.ErrUsage)
		requireEmpty(t, temp)
	}
}

func TestCancelled(t *testing.T) {
	temp := ownTemp(t)
	for _, after := range []string{"revoked ", "dropped "} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := run(ctx, []string{"-customers", "5"}, writer(func(p []byte) {
			if bytes.Contains(p, []byte(after)) {
				cancel()
			}
		}))
		require.ErrorIs(t, err, context.Canceled, after)
		requireEmpty(t, temp)
	}
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// services are two, on a vault in memory, with customers who have notes in the first one.
func services(t *testing.T, customers ...string) (v *vaulttest.Vault, here, there *service) {
	v = vaulttest.New(nil)
	dir := t.TempDir()
	open := func(name string) *service {
		s, err := openService(t.Context(), filepath.Join(dir, name), v)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	here, there = open("here"), open("there")
	for _, c := range customers {
		v.CreateKey(c)
		require.NoError(t, here.signUp(t.Context(), c))
		require.NoError(t, here.put(t.Context(), c, notesOf(c)))
	}
	return v, here, there
}

// Whoever cannot be had there stays here.
func TestAMoveThatFailsLosesNothing(t *testing.T) {
	ctx := t.Context()
	v, here, there := services(t, "a", "b")
	require.NoError(t, there.signUp(ctx, "a"))
	_, _, err := here.moveTo(ctx, there, "a")
	require.ErrorIs(t, err, block.ErrExists, "there is somebody of that name")
	require.NoError(t, getAll(ctx, here, "a"))
	_, _, err = here.moveTo(ctx, there, "nobody")
	require.ErrorIs(t, err, block.ErrNoStore)

	v.SetOutage(vaulttest.Unavailable())
	_, _, err = here.moveTo(ctx, there, "b")
	require.ErrorContains(t, err, "b arrived, and does not open")
	v.SetOutage(nil)
	require.NoError(t, getAll(ctx, here, "b"))
	_, err = there.db.Drop(ctx, "b")
	require.NoError(t, err)
	_, r, err := here.moveTo(ctx, there, "b")
	require.NoError(t, err)
	require.Equal(t, "b", r.Name)
	require.NoError(t, getAll(ctx, there, "b"))
	_, err = here.get(ctx, "b", noteID(0))
	require.ErrorIs(t, err, block.ErrNoStore)
}

// A step that fails for one of them says whose error it is, and the table has no row for it.
func TestMeanwhile(t *testing.T) {
	tab := newTable(io.Discard)
	all := []string{"a", "b", "c"}
	wrong := errors.New("wrong")
	fails := func(one string) func(string) error {
		return func(c string) error {
			if c == one {
				return fmt.Errorf("%s: %w", c, wrong)
			}
			return nil
		}
	}
	require.ErrorIs(t, tab.meanwhile("x", all, fails("b"), func() error { return nil }), wrong)
	require.ErrorIs(t, tab.meanwhile("x", all, fails(""), func() error { return keyring.ErrInaccessible }), keyring.ErrInaccessible)
	require.ErrorIs(t, tab.step("x", all, 0, fails("c")), wrong)
	require.Empty(t, tab.rows)
	var happened atomic.Bool
	var after atomic.Int64
	require.NoError(t, tab.meanwhile("x", all, func(string) error {
		if happened.Load() {
			after.Add(1)
		}
		return nil
	}, func() error { happened.Store(true); return nil }))
	require.Len(t, tab.rows, 1)
	require.GreaterOrEqual(t, after.Load(), int64(len(all)), "all others, after what happened")
}
