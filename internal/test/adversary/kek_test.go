package adversary

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// answerPublic makes a vault answer every GetKey with another's public key.
func (g *rig) answerPublic(key vault.Key) vaulttest.Fault {
	return vaulttest.Fault{Op: vault.OpGet, Times: 1 << 30, MutateKey: func(k *vault.Key) { k.Public = key.Public }}
}

// unacceptable is the public keys that are refused, by what is wrong with them.
func unacceptable(t *testing.T, good *rsa.PublicKey) map[string]*rsa.PublicKey {
	modulus := func(bits int) *big.Int {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
		return n.Add(n, big.NewInt(12345))
	}
	out := map[string]*rsa.PublicKey{
		"none":        nil,
		"no modulus":  {E: 65537},
		"e of 2^31-1": {N: modulus(3072), E: 1<<31 - 1},
	}
	for _, bits := range []int{1024, 2047, 2049, 3072, 4096} {
		out[fmt.Sprintf("modulus of %d bits", bits)] = &rsa.PublicKey{N: modulus(bits), E: 65537}
	}
	out["even modulus"] = &rsa.PublicKey{N: new(big.Int).Add(modulus(2048), big.NewInt(1)), E: 65537}
	for _, e := range []int{0, 1, 2, 3, 4, 5, 17, 257, 65535, 65536, 65538, -65537} {
		out[fmt.Sprintf("e of %d", e)] = &rsa.PublicKey{N: good.N, E: e}
	}
	for _, name := range []string{"rsa1024", "rsa2048-e3"} {
		raw, err := os.ReadFile("../../../vault/vaulttest/testdata/" + name + ".pem")
		require.NoError(t, err)
		b, _ := pem.Decode(raw)
		var key any
		if key, err = x509.ParsePKCS8PrivateKey(b.Bytes); err != nil {
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		}
		require.NoError(t, err)
		out["a real "+name] = &key.(*rsa.PrivateKey).PublicKey
	}
	return out
}

// A key that is not RSA-2048 with a sane exponent makes no store, opens none, comes
// back to none, and takes over none.
func TestUnacceptableKEKs(t *testing.T) {
	g := newRig(t)
	key, err := g.vault.GetKey(g.ctx, g.key)
	require.NoError(t, err)
	g.fill("a", "b", "c")
	before := g.records()
	bad := unacceptable(t, key.Public)
	for what, public := range bad {
		t.Run(what, func(t *testing.T) {
			g := *g
			g.t = t
			remove := g.vault.Inject(g.answerPublic(vault.Key{Public: public}))
			fresh := g.sibling()
			require.ErrorIs(t, fresh.tryOpen(), vault.ErrUnsupportedKey)
			require.Empty(t, files(t, fresh.opts.Pebble.FS, "."), "a store that cannot be made leaves nothing behind")
			g.locked(vault.ErrUnsupportedKey)
			remove()

			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			other := g.vault.CreateKey("other").Versionless()
			remove = g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, Key: "other", Times: 1 << 30,
				MutateKey: func(k *vault.Key) { k.Public = public }})
			require.ErrorIs(t, s.ChangeKEK(g.ctx, kek.New(g.vault, other)), vault.ErrUnsupportedKey)
			remove()
			g.vault.Purge("other")
			got, err := s.Get(g.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, plain("a"), got)
			require.NoError(t, s.Close())
			after := g.records()
			require.Equal(t, before, after, "nothing was changed")
		})
	}
	t.Logf("%d keys refused at four entrances each", len(bad))
}

// The same with keys that a vault really has, and can wrap and unwrap with.
func TestUnacceptableKEKsThatWork(t *testing.T) {
	for _, name := range []string{"rsa1024", "rsa2048-e3"} {
		raw, err := os.ReadFile("../../../vault/vaulttest/testdata/" + name + ".pem")
		require.NoError(t, err)
		b, _ := pem.Decode(raw)
		var key any
		if key, err = x509.ParsePKCS8PrivateKey(b.Bytes); err != nil {
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		}
		require.NoError(t, err)
		g := newRig(t)
		id := g.vault.ImportKey("weak", key.(*rsa.PrivateKey))
		weak := kek.New(g.vault, id.Versionless())
		require.ErrorIs(t, weak.Check(g.ctx), vault.ErrUnsupportedKey)
		g.fill("a")
		s := g.open()
		require.ErrorIs(t, s.ChangeKEK(g.ctx, weak), vault.ErrUnsupportedKey)
		g = newRig(t)
		g.vault.ImportKey("weak", key.(*rsa.PrivateKey))
		g.kek = kek.New(g.vault, vault.KeyID{Name: "weak"})
		require.ErrorIs(t, g.tryOpen(), vault.ErrUnsupportedKey)
		require.Empty(t, files(t, g.opts.Pebble.FS, "."))
		require.Zero(t, g.vault.Calls().Wrap, "nothing is wrapped by a key that was not admitted")
	}
}
