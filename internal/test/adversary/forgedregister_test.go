package adversary

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// A register is as authentic as the keyring document, which anybody can make who has the KEK's
// public key. With both of the disk writer's own, which open nothing, a store that comes to
// access later moves nothing all the same: neither by itself, nor when it is told to, nor when
// it is relocated.
func TestRegisterOfAForgedKeyringMovesNothing(t *testing.T) {
	for name, move := range map[string]func(g *rig, s *block.Store) error{
		"ChangeKEK": func(g *rig, s *block.Store) error { return s.ChangeKEK(g.ctx, g.newKEK("customer-2")) },
		"RotateKEK": func(g *rig, s *block.Store) error { g.vault.Rotate("customer"); return s.RotateKEK(g.ctx) },
		"Relocate": func(g *rig, s *block.Store) error {
			require.NoError(g.t, s.Close())
			_, err := block.Relocate(g.ctx, g.dir, g.kek, &g.opts)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			const directory = "aabbccddeeff00112233445566778899"
			planted := storeInstance(directory, 0)
			g := newRig(t)
			g.fill(many()...)
			g.copyFiles(g.dir, "stolen")
			in, err := block.Inspect(g.ctx, g.dir, &g.opts)
			require.NoError(t, err)
			instance, err := hex.DecodeString(in.Instance)
			require.NoError(t, err)
			good := g.records()
			of := sha256.Sum256([]byte(good[documentKey]))
			g.at("stolen").pretend(directory)

			secret := repeat(7, 32)
			forged := g.document(headerOf(good[documentKey]), g.wrap(sha256.New(), secret), secret)
			record := "\x01" + string(instance) + forged[30:38] + "\x00\x00\x00\x00\x01" + copyValue(t, planted, 1, of[:], g.key, "stolen")
			tag := mac(mac(repeat(8, 32), "blockseal tag v1 register"), record)
			g.set(map[string]string{documentKey: forged, registerKey: "\x02" + string(tag) + record, nameKey: forgedName()})

			g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = true
			heard := g.listen()
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.Revalidate(g.ctx))
			copies, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Len(t, copies, 1)
			require.Empty(t, copies[0].Doubt, "by its own keyring it is authentic")
			_, err = s.KeyUsage(g.ctx)
			require.ErrorIs(t, err, block.ErrIncomplete)
			require.ErrorIs(t, err, block.ErrCorrupt)
			require.ErrorIs(t, move(g, s), block.ErrCorrupt)
			require.NoError(t, s.Close())
			require.Equal(t, g.key, g.at("stolen").documentKEK(), "it was not touched")
			require.Equal(t, forged, g.records()[documentKey], "nor is the forged document written anew")
			heard.await(t, 1)
			require.Empty(t, heard.of(keyring.CopyDue))
			require.Empty(t, heard.of(keyring.CopyKEKChanged))
		})
	}
}

// forgedName is the name of the rig's store, tagged with the store secret of a document that the
// forger made.
func forgedName() string {
	return "\x02" + string(mac(mac(repeat(8, 32), "blockseal tag v1 name"), block.DefaultName)) + block.DefaultName
}

// mac is HMAC-SHA-256.
func mac(key []byte, data string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(data))
	return m.Sum(nil)
}
