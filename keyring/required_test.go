package keyring_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// untouched is a storage and an anchor that nobody may ask.
type untouched struct{ t *testing.T }

func (u untouched) Load(context.Context) ([]byte, keyring.Revision, error) {
	u.t.Error("the storage was read")
	return nil, "", keyring.ErrNoDocument
}

func (u untouched) Swap(context.Context, keyring.Revision, []byte) (keyring.Revision, error) {
	u.t.Error("the storage was written")
	return "", nil
}

// What has to be given and is not is refused by name, before a storage or a vault is asked.
func TestRequired(t *testing.T) {
	g, ctx := newRig(t), t.Context()
	r := g.create()
	before, calls := g.storage.saves, r.VaultCalls()
	var none keyring.Storage
	for _, of := range []struct {
		what string
		kek  *kek.KEK
		says string
	}{
		{"no KEK", nil, "a KEK is required"},
		{"the zero KEK", &kek.KEK{}, "a KEK is required that has a vault"},
		{"a KEK without a vault", kek.New(nil, g.key), "a KEK is required that has a vault"},
	} {
		others := g.opts
		others.OtherKEKs = []*kek.KEK{g.kek, of.kek}
		for _, tt := range []struct {
			call string
			err  func() error
			says string
		}{
			{"Create", func() error { _, err := keyring.Create(ctx, untouched{t}, of.kek, &g.opts); return err }, "keyring: create: " + of.says},
			{"Open", func() error { _, err := keyring.Open(ctx, untouched{t}, of.kek, &g.opts); return err }, "keyring: open: " + of.says},
			{"OpenOrCreate", func() error { _, err := keyring.OpenOrCreate(ctx, untouched{t}, of.kek, &g.opts); return err }, "keyring: open: " + of.says},
			{"Relocate", func() error { _, err := keyring.Relocate(ctx, untouched{t}, of.kek, &g.opts); return err }, "keyring: relocate: " + of.says},
			{"ChangeKEK", func() error { return r.ChangeKEK(ctx, of.kek) }, "keyring: change KEK: " + of.says},
			{"Create, among others", func() error { _, err := keyring.Create(ctx, untouched{t}, g.kek, &others); return err }, "keyring: options: OtherKEKs[1]: " + of.says},
			{"Open, among others", func() error { _, err := keyring.Open(ctx, untouched{t}, g.kek, &others); return err }, "keyring: options: OtherKEKs[1]: " + of.says},
			{"Relocate, among others", func() error { _, err := keyring.Relocate(ctx, untouched{t}, g.kek, &others); return err }, "keyring: relocate: keyring: options: OtherKEKs[1]: " + of.says},
		} {
			t.Run(tt.call+", "+of.what, func(t *testing.T) { require.ErrorContains(t, tt.err(), tt.says) })
		}
	}
	for _, tt := range []struct {
		call string
		err  func() error
	}{
		{"create", func() error { _, err := keyring.Create(ctx, none, g.kek, &g.opts); return err }},
		{"open", func() error { _, err := keyring.Open(ctx, none, g.kek, &g.opts); return err }},
		{"relocate", func() error { _, err := keyring.Relocate(ctx, none, g.kek, &g.opts); return err }},
	} {
		require.EqualError(t, tt.err(), "keyring: "+tt.call+": a storage is required")
	}
	require.Equal(t, before, g.storage.saves)
	require.Equal(t, calls, r.VaultCalls())
	require.Equal(t, keyring.Available, r.State().Status)
	require.NoError(t, r.ChangeKEK(ctx, kek.New(g.vault, vault.KeyID{Name: "customer"})), "the keyring is as it was")
}
