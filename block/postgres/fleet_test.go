package postgres_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockhttp"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// page is what a status page says, as JSON, and as people read it.
type page struct {
	Process struct {
		Host   string
		PID    int
		Shared bool
	}
	State struct{ Status string }
	text  string
}

func look(t *testing.T, h http.Handler) (p page) {
	t.Helper()
	ask := func(path string) string {
		r := httptest.NewRecorder()
		h.ServeHTTP(r, httptest.NewRequest("GET", path, nil))
		require.Equal(t, http.StatusOK, r.Code)
		return r.Body.String()
	}
	require.NoError(t, json.Unmarshal([]byte(ask("/status.json")), &p))
	p.text = ask("/?still")
	return p
}

// A lock in one process is none in another, and each one's page says which process it is of, and that
// it is of that one alone.
func TestPageIsOfOneProcess(t *testing.T) {
	g := newRig(t)
	first, second := g.db(), g.db()
	a := g.create(first, "store")
	b := g.open(second, "store")
	g.vault.SetEnabled(g.key, false)
	require.ErrorIs(t, a.Revalidate(g.ctx), vault.ErrKeyDisabled)
	require.Equal(t, keyring.Inaccessible, status(a))
	require.Equal(t, keyring.Available, status(b), "it has not asked")
	require.True(t, a.Stats().Shared)
	for _, c := range []struct {
		h    http.Handler
		want string
	}{
		{blockhttp.Handler(a, nil), "Inaccessible"},
		{blockhttp.Handler(b, nil), "Available"},
		{blockhttp.DBHandler(first, nil), "error"},
		{blockhttp.DBHandler(second, nil), "ok"},
	} {
		p := look(t, c.h)
		require.Equal(t, c.want, p.State.Status)
		require.True(t, p.Process.Shared)
		require.Equal(t, os.Getpid(), p.Process.PID)
		require.Contains(t, p.text, fmt.Sprint("process ", os.Getpid()))
		require.Contains(t, p.text, "of this process alone")
	}
	require.ErrorIs(t, b.Revalidate(g.ctx), vault.ErrKeyDisabled)
	require.Equal(t, "Inaccessible", look(t, blockhttp.Handler(b, nil)).State.Status)

	// In a directory there is one process, and nothing to say.
	alone, err := block.Open(g.ctx, t.TempDir(), g.kek, &g.store)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	require.Nil(t, alone)
	g.vault.SetEnabled(g.key, true)
	alone, err = block.Open(g.ctx, t.TempDir(), g.kek, &g.store)
	require.NoError(t, err)
	defer func() { require.NoError(t, alone.Close()) }()
	p := look(t, blockhttp.Handler(alone, nil))
	require.False(t, p.Process.Shared)
	require.NotContains(t, p.text, "of this process alone")
}

// What a process asks the vault is its own, and does not depend on how many blocks there are: to open,
// to check, and to rotate the epoch, the KEK and the DEKs. No process hears notices here: who hears that
// the KEK has changed unwraps once, sooner than its check would.
func TestVaultCallsAreFlatInBlocksAndPerProcess(t *testing.T) {
	type calls struct{ open, check, epoch, deks, kek, follow uint64 }
	var all []calls
	total := func(s *block.Store) uint64 { c := s.VaultCalls(); return c.Get + c.Wrap + c.Unwrap }
	for _, blocks := range []int{1, 100, 3000} {
		g := newRig(t)
		g.deaf = true
		a := g.create(g.db(), "store")
		made := total(a)
		b := a.NewBatch()
		for i := range blocks {
			require.NoError(t, b.Put(g.ctx, fmt.Appendf(nil, "%05d", i), []byte("data")))
		}
		require.NoError(t, b.Commit(g.ctx))
		require.NoError(t, b.Close())
		require.Equal(t, made, total(a), "writing asks no vault")
		s := g.open(g.db(), "store")
		requireData(t, s, "00000", "data")
		var c calls
		c.open = total(s)
		step := func(f func() error) uint64 {
			before := total(s)
			require.NoError(t, f())
			return total(s) - before
		}
		c.check = step(func() error { return s.Revalidate(g.ctx) })
		c.epoch = step(func() error { return s.RotateEpoch(g.ctx, nil) })
		c.deks = step(func() error { return s.Rekey(g.ctx, block.Range{}, nil) })
		g.vault.Rotate("customer")
		c.kek = step(func() error { return s.RotateKEK(g.ctx) })
		require.Len(t, requireWhole(t, s).DEKs, 1)
		require.Equal(t, made, total(a), "what one asks another does not")
		require.NoError(t, a.Revalidate(g.ctx)) // a check, which finds the document of another
		require.Equal(t, s.State().KEK, a.State().KEK)
		c.follow = total(a) - made
		all = append(all, c)
	}
	require.Equal(t, all[0], all[1])
	require.Equal(t, all[0], all[2])
	require.EqualValues(t, 3, all[0].open)
	require.EqualValues(t, 3, all[0].check)
	t.Logf("%+v", all[0])
}
