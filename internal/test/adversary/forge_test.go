package adversary

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// seal is AES-256-GCM with a random nonce, as docs/format.md, section 1, has it.
func seal(t testing.TB, key, plaintext, aad []byte) []byte {
	t.Helper()
	b, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCMWithRandomNonce(b)
	require.NoError(t, err)
	return aead.Seal(nil, nil, plaintext, aad)
}

// unseal is the inverse of seal.
func unseal(t testing.TB, key, sealed, aad []byte) []byte {
	t.Helper()
	b, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCMWithRandomNonce(b)
	require.NoError(t, err)
	plaintext, err := aead.Open(nil, nil, sealed, aad)
	require.NoError(t, err)
	return plaintext
}

// wrap is RSA-OAEP to the rig's KEK, which anyone can do who has the public key.
func (g *rig) wrap(h hash.Hash, secret []byte) []byte {
	g.t.Helper()
	key, err := g.vault.GetKey(g.ctx, g.key)
	require.NoError(g.t, err)
	out, err := rsa.EncryptOAEP(h, rand.Reader, key.Public, secret, nil)
	require.NoError(g.t, err)
	return out
}

// Records and blocks in the place of others, of the same store and of another one with
// the same KEK.
func TestRecordsAndBlocksMoved(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		ids := many()
		o := g.sibling()
		g.fill(ids...)
		o.fill(ids...)
		mine, theirs := g.records(), o.records()
		for what, values := range map[string]map[string]string{
			"records of two blocks swapped": {dekKey("a"): mine[dekKey("b")], dekKey("b"): mine[dekKey("a")]},
			"two blocks swapped":            {dataKey("a"): mine[dataKey("b")], dataKey("b"): mine[dataKey("a")]},
			"two blocks swapped, whole": {dekKey("a"): mine[dekKey("b")], dekKey("b"): mine[dekKey("a")],
				dataKey("a"): mine[dataKey("b")], dataKey("b"): mine[dataKey("a")]},
			"another store's record":            {dekKey("a"): theirs[dekKey("a")], dekKey("b"): theirs[dekKey("b")]},
			"another store's block":             {dataKey("a"): theirs[dataKey("a")], dataKey("b"): theirs[dataKey("b")]},
			"another store's block, whole":      {dekKey("a"): theirs[dekKey("a")], dataKey("a"): theirs[dataKey("a")], dekKey("b"): theirs[dekKey("b")], dataKey("b"): theirs[dataKey("b")]},
			"a block in the place of a record":  {dekKey("a"): mine[dataKey("a")], dekKey("b"): mine[dataKey("b")]},
			"a record in the place of a block":  {dataKey("a"): mine[dekKey("a")], dataKey("b"): mine[dekKey("b")]},
			"the document in place of a record": {dekKey("a"): mine[documentKey], dekKey("b"): mine[documentKey]},
		} {
			g.set(values)
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err, what)
			for _, id := range []string{"a", "b"} {
				got, err := s.Get(g.ctx, []byte(id), nil)
				refuses(t, got, err, "%s: %s", what, id)
			}
			rep, err := s.Verify(g.ctx, nil)
			require.ErrorIs(t, err, block.ErrCorrupt)
			require.EqualValues(t, 2, rep.Damaged, what)
			require.NoError(t, s.Close())
			g.set(mine)
		}
		g.intact(ids...)
	})
}

// Blocks put under another partition's key are not there for anyone.
func TestBlocksInAnotherPartition(t *testing.T) {
	g := newRig(t)
	g.fill("a", "b", "c")
	r := g.records()
	g.set(map[string]string{"\x02\x00\x00\x00\x01a": r[dekKey("a")], "\x03\x00\x00\x00\x01a": r[dataKey("a")]})
	g.intact("a", "b", "c")
}

// Whoever has the KEK's public key can wrap a DEK, and seal a block under it. None of
// the ways to write that down is accepted, and the vault is asked about none.
func TestDEKAndBlockForgedWithThePublicKey(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		ids := many()
		g.fill(ids...)
		good := g.records()
		document := good[documentKey]
		store, active := document[14:30], document[38:42]
		forgery := []byte("what the forger wants to be read")
		key := repeat(7, 32)
		wrapped := string(g.wrap(sha256.New(), key))
		epoch := good[dekKey("a")][1:5]
		const context = "a" // the block's id, wherever an engine keeps it
		data := "\x01" + string(seal(t, key, forgery, []byte("\x01"+store+context)))
		byKEK := "\x02" + epoch + active
		byKeyring := "\x01" + epoch
		for what, record := range map[string]string{
			"the wrap alone":                     wrapped,
			"the wrap as a record's seal":        byKEK + wrapped + string(make([]byte, 28)),
			"the wrap sealed under the DEK":      byKEK + string(seal(t, key, []byte(wrapped), []byte(byKEK+store+context))),
			"the wrap sealed under zeros":        byKEK + string(seal(t, make([]byte, 32), []byte(wrapped), []byte(byKEK+store+context))),
			"a record under the DEK itself":      byKeyring + string(seal(t, key, key, []byte(byKeyring+store+context))),
			"a record under zeros":               byKeyring + string(seal(t, make([]byte, 32), key, []byte(byKeyring+store+context))),
			"a record under the KEK's SHA-256":   byKeyring + string(seal(t, []byte(document[47:79]), key, []byte(byKeyring+store+context))),
			"the DEK in clear":                   byKeyring + string(make([]byte, 12)) + string(key) + string(make([]byte, 16)),
			"an epoch that is not there":         "\x01\xff\xff\xff\xff" + string(seal(t, key, key, []byte("\x01\xff\xff\xff\xff"+store+context))),
			"a KEK that is not there":            "\x02" + epoch + "\xff\xff\xff\xff" + string(seal(t, key, []byte(wrapped), nil)),
			"epoch 0":                            "\x01\x00\x00\x00\x00" + string(seal(t, make([]byte, 32), key, []byte("\x01\x00\x00\x00\x00"+store+context))),
			"a genuine record with another type": "\x02" + good[dekKey("a")][1:],
		} {
			if record == good[dekKey("a")] {
				continue // it is of that type already
			}
			g.set(map[string]string{dekKey("a"): record, dataKey("a"): data})
			if strings.Contains(what, "epoch") { // no accident: the store is not written to
				require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt, what)
			}
			o := g.opts
			o.ReadOnly = strings.Contains(what, "epoch")
			s, err := block.Open(g.ctx, g.dir, g.kek, &o)
			require.NoError(t, err, what)
			before := g.vault.Calls()
			got, err := s.Get(g.ctx, []byte("a"), nil)
			refuses(t, got, err, "%s", what)
			require.Equal(t, before, g.vault.Calls(), "%s: the vault is not asked", what)
			require.NoError(t, s.Close())
		}
		// The genuine record with a block under the forger's key.
		g.set(map[string]string{dekKey("a"): good[dekKey("a")], dataKey("a"): data})
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		got, err := s.Get(g.ctx, []byte("a"), nil)
		refuses(t, got, err, "a block under the forger's DEK")
		require.NoError(t, s.Close())
		g.set(good)
		g.intact(ids...)
	})
}

// document makes a keyring document as a forger would: another's header, with the wrap
// of a secret of their own, and a body with an epoch key of their own.
func (g *rig) document(header string, wrapped, secret []byte) string {
	g.t.Helper()
	h := []byte(header)
	copy(h[len(h)-256:], wrapped)
	body := append(repeat(8, 32), 1)
	for _, n := range []uint64{1 << 28, 0, 0} {
		body = binary.BigEndian.AppendUint64(body, n)
	}
	body = binary.BigEndian.AppendUint32(body, 2)
	body = append(body, make([]byte, 16)...)
	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	require.NoError(g.t, err)
	instance, err := hex.DecodeString(in.Instance)
	require.NoError(g.t, err)
	body = append(append(body, instance...), 0, 0, 0, 0, 0, 0, 0, 2)
	body = binary.BigEndian.AppendUint16(body, 1)
	body = binary.BigEndian.AppendUint32(body, 1)
	body = append(body, make([]byte, 16)...)
	body = append(body, repeat(9, 32)...)
	return string(h) + string(seal(g.t, secret, body, h))
}

func headerOf(document string) string {
	return document[:binary.BigEndian.Uint32([]byte(document[10:14]))]
}

// A document made with the public key opens no block, and nothing is written under it.
// With a fingerprint kept elsewhere it is not opened at all.
func TestKeyringForgedWithThePublicKey(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		g.fill("a", "b", "c")
		fingerprint := g.fingerprint()
		good := g.records()
		secret := repeat(7, 32)
		forged := g.document(headerOf(good[documentKey]), g.wrap(sha256.New(), secret), secret)
		// The name beside it is not of its maker, and is looked at first.
		g.set(map[string]string{documentKey: forged})
		require.ErrorContains(t, g.tryOpen(), "was not written by it")
		g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = true
		later, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		require.ErrorIs(t, later.Revalidate(g.ctx), block.ErrCorrupt)
		require.ErrorIs(t, later.Put(g.ctx, []byte("d"), nil), block.ErrInaccessible)
		require.NoError(t, later.Close())
		g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = false

		// Its maker can write the name, too. Then it is the blocks that do not open.
		g.set(map[string]string{nameKey: forgedName()})
		require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)

		// Nor does it get into an anchor that is empty yet, which would refuse the store's own.
		anchor := filepath.Join(t.TempDir(), "anchor")
		g.opts.Keyring.Anchor = keyring.FileAnchor(anchor)
		require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
		g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = true
		later, err = block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		require.NoError(t, later.Revalidate(g.ctx))
		require.ErrorIs(t, later.Put(g.ctx, []byte("d"), nil), block.ErrCorrupt)
		require.Error(t, later.Close())
		require.NoFileExists(t, anchor)
		g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = false

		g.opts.Keyring.Anchor = keyring.Expect{Fingerprint: fingerprint}
		require.ErrorIs(t, g.tryOpen(), keyring.ErrUnexpected)
		g.opts.Keyring.Anchor = nil

		// Also not by one that comes back only later.
		g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = true
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(t, err)
		require.NoError(t, s.Revalidate(g.ctx))
		require.ErrorIs(t, s.Put(g.ctx, []byte("d"), []byte("for the forger")), block.ErrCorrupt)
		require.ErrorIs(t, s.Rekey(g.ctx, block.Range{}, nil), block.ErrCorrupt)
		require.ErrorIs(t, s.RotateEpoch(g.ctx, nil), block.ErrCorrupt)
		got, err := s.Get(g.ctx, []byte("a"), nil)
		refuses(t, got, err, "under a forged keyring")
		require.NoError(t, s.Close())
		after := g.records()
		for key, value := range good {
			if hasPrefix(key, "\x02", "\x03") {
				require.Equal(t, value, after[key])
			}
		}
		g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = false
		g.set(good)
		g.intact("a", "b", "c")
	})
}

// A wrap by OAEP with SHA-1 is not what the vault unwraps, not even one of the store's own
// secret in front of the store's own body, which would open if it did.
func TestDocumentWrappedWithSHA1(t *testing.T) {
	g := newRig(t)
	if fipsOnly() {
		key, err := g.vault.GetKey(g.ctx, g.key)
		require.NoError(t, err)
		_, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, key.Public, repeat(7, 32), nil)
		require.Error(t, err, "in this mode it cannot even be made")
		return
	}
	g.fill("a", "b", "c")
	good := g.records()
	header := headerOf(good[documentKey])
	secret, err := g.vault.UnwrapKey(g.ctx, vault.Wrapped{KeyID: g.key, Ciphertext: []byte(header[len(header)-256:])})
	require.NoError(t, err)
	body := unseal(t, secret, []byte(good[documentKey][len(header):]), []byte(header))
	wrappedBy := func(h hash.Hash) string {
		head := header[:len(header)-256] + string(g.wrap(h, secret))
		return head + string(seal(t, secret, body, []byte(head)))
	}

	g.set(map[string]string{documentKey: wrappedBy(sha256.New())})
	g.intact("a", "b", "c") // so that it is the hash that the rest is about
	g.set(map[string]string{documentKey: wrappedBy(sha1.New())})
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.Equal(t, keyring.Inaccessible, s.State().Status)
	require.ErrorIs(t, s.State().Cause, vault.ErrBadCiphertext)
	got, err := s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.Empty(t, got)
	require.NoError(t, s.Close())
	g.set(good)
	g.intact("a", "b", "c")
}

func (g *rig) fingerprint() string {
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	defer s.Close()
	return s.Fingerprint()
}

// A document made with the public key, and a few dozen records planted with it where a
// look at ids by chance would find them before the others, among thousands: the store sees
// that most of its records are not that keyring's.
func TestFewPlantedRecords(t *testing.T) {
	g := newRig(t)
	var ids []string
	for i := range 3000 {
		ids = append(ids, numbered("page", i))
	}
	g.fill(ids...)
	good := g.records()
	secret := repeat(7, 32)
	put := map[string]string{nameKey: forgedName(), documentKey: g.document(headerOf(good[documentKey]), g.wrap(sha256.New(), secret), secret)}
	store, head := good[documentKey][14:30], "\x01\x00\x00\x00\x01"
	plant := func(id string) {
		put[dekKey(id)] = head + string(seal(t, repeat(9, 32), repeat(5, 32), []byte(head+store+id)))
	}
	plant("\x00")
	for i := range 17 {
		plant("page." + string(rune('a'+i)))
		plant("\xff" + string(rune('a'+i)))
	}
	g.set(put)
	for range 20 {
		require.ErrorIs(t, g.tryOpen(), block.ErrCorrupt)
	}
	for key := range put {
		if good[key] == "" {
			g.remove(key)
		}
	}
	g.set(map[string]string{documentKey: good[documentKey], nameKey: good[nameKey]})
	g.intact(ids...)
}
