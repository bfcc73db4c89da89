package local_test

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/accesstest"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// What administrators do, and what policies and retention do by the clock, as a store on
// the key sees it. The ways of losing access are package block's to run.
func TestAdministration(t *testing.T) {
	accesstest.RunAdministration(t, administered)
}

// administered is a vault with a retention of 7 days, which the store uses as the
// identity "ingest".
func administered(t *testing.T, clock *vaulttest.Clock) accesstest.World {
	ctx, keys := t.Context(), &pool{}
	var mu sync.Mutex
	var told []string
	v, err := local.Create(filepath.Join(t.TempDir(), "v"), passphrase, local.WithGenerate(local.Options{
		Clock: clock, KDF: cheap, InsecureKDF: true, RetentionDays: 7,
		OnEvent: func(e local.Event) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, e.Kind.String())
		},
	}, keys.generate))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	require.NoError(t, v.Grant(ctx, "ingest", local.DataPlane()...))
	k, err := v.CreateKey(ctx, "customer", nil)
	require.NoError(t, err)
	name := k.ID.Name
	no := false
	update := func(u local.Update) error {
		_, err := v.UpdateKey(ctx, k.ID, u)
		return err
	}
	return accesstest.World{
		Name: "local", Vault: v.As("ingest"), Key: k.ID,
		Administration: map[string]func(string) error{
			"create":  func(string) error { _, err := v.CreateKey(ctx, name, nil); return err },
			"rotate":  func(string) error { _, err := v.RotateKey(ctx, name); return err },
			"delete":  func(string) error { _, err := v.DeleteKey(ctx, name); return err },
			"recover": func(string) error { _, err := v.RecoverKey(ctx, name); return err },
			"purge":   func(string) error { return v.PurgeKey(ctx, name) },
			"disable": func(string) error { return update(local.Update{Enabled: &no}) },
			"expire": func(d string) error {
				after, err := time.ParseDuration(d)
				require.NoError(t, err)
				at := clock.Now().Add(after)
				return update(local.Update{Expires: &at})
			},
			"policy": func(args string) error {
				p, err := accesstest.Policy(args)
				require.NoError(t, err)
				return v.SetRotationPolicy(ctx, name, local.RotationPolicy{
					RotateAfter: p["after"], RotateBeforeExpiry: p["before-expiry"],
					ExpiresAfter: p["expires-after"], NotifyBefore: p["notice-before"],
				})
			},
			"maintain": func(string) error { _, err := v.Maintain(ctx); return err },
			"protect":  func(string) error { return v.EnablePurgeProtection(ctx) },
		},
		Told: func() []string {
			mu.Lock()
			defer mu.Unlock()
			was := slices.Clone(told)
			told = nil
			return was
		},
	}
}
