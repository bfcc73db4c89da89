package local_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// The operations of a store on a vault that nobody changes: each asks the file system
// once, whether the vault's file is still the one that was read.

func BenchmarkGetKey(b *testing.B) {
	r := newRig(b)
	id := r.create("kek").Versionless()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.GetKey(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrapKey(b *testing.B) {
	r := newRig(b)
	id := r.create("kek").Versionless()
	secret := make([]byte, 32)
	b.SetBytes(int64(len(secret)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.WrapKey(b.Context(), id, secret); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnwrapKey(b *testing.B) {
	for name, as := range map[string]func(*rig) vault.Vault{
		"owner": func(r *rig) vault.Vault { return r.Vault },
		"identity": func(r *rig) vault.Vault {
			require.NoError(b, r.Grant(b.Context(), "ingest", local.DataPlane()...))
			return r.As("ingest")
		},
	} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b)
			v := as(r)
			w, secret := r.wrap(r, r.create("kek"))
			b.SetBytes(int64(len(secret)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.UnwrapKey(b.Context(), w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The first unwrap with a version opens and parses its private key.
func BenchmarkUnwrapKeyFirst(b *testing.B) {
	r := newRig(b)
	w, _ := r.wrap(r, r.create("kek"))
	b.ReportAllocs()
	for b.Loop() {
		local.Forget(r.Vault)
		if _, err := r.UnwrapKey(b.Context(), w); err != nil {
			b.Fatal(err)
		}
	}
}

// A change, synced to the disk, of a vault with 10 keys.
func BenchmarkUpdateKey(b *testing.B) {
	r := newRig(b)
	for i := range 10 {
		r.create(string(rune('a' + i)))
	}
	yes := true
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.UpdateKey(b.Context(), vault.KeyID{Name: "a"}, local.Update{Enabled: &yes}); err != nil {
			b.Fatal(err)
		}
	}
}
