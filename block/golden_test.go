package block

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/rewrite"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The golden stores in testdata/golden are directories as a release wrote them,
// under an RSA key that is a test key, with what is in them in golden.json. They
// are made with -update and then stay: a test that fails here says that stored data
// can no longer be read, or that bytes moved which docs/format.md fixes. A new
// version of a format gets golden stores of its own.
var update = flag.Bool("update", false, "write the golden files anew; only ever right for a format that was not released")

const goldenDir = "testdata/golden"

// goldenCopy is the instance of a copy that the golden stores remember.
const goldenCopy = "0123456789abcdef0123456789abcdef"

func goldenID(version string) vault.KeyID {
	return vault.KeyID{Vault: "https://golden.vault.example", Name: "customer", Version: version}
}

// goldenEntry is a copy that the golden stores remember, with the KEK versions that it needs;
// the last wraps its document.
func goldenEntry(keks ...vault.KeyID) register.Entry {
	return register.Entry{Copy: register.Copy{Instance: goldenCopy, Path: "/backup/1", Made: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		KEK: keks[len(keks)-1], Generation: 2, KEKs: keks}, Vouched: true, Document: [32]byte{9}}
}

// hexBytes is bytes that are hexadecimal digits in JSON.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }
func (b *hexBytes) UnmarshalText(t []byte) (err error) {
	*b, err = hex.DecodeString(string(t))
	return err
}

// goldenPair is one key of the engine and its value.
type goldenPair struct {
	Key   hexBytes `json:"key"`
	Value hexBytes `json:"value"`
}

type goldenBlock struct {
	ID   hexBytes `json:"id"`
	DEK  hexBytes `json:"dek"`
	Data hexBytes `json:"data"`
}

type goldenStore struct {
	Dir      string        `json:"dir"`
	StoreID  hexBytes      `json:"store_id"`
	Identity string        `json:"identity"` // the file BLOCKSEAL
	Pairs    []goldenPair  `json:"pairs"`    // all there are, in order
	Blocks   []goldenBlock `json:"blocks"`
}

func readGolden(t testing.TB) []goldenStore {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldenDir, "golden.json"))
	require.NoError(t, err)
	var g []goldenStore
	require.NoError(t, json.Unmarshal(b, &g))
	require.Len(t, g, 2)
	return g
}

// meta returns the value of a meta record.
func (g goldenStore) meta(name string) []byte {
	for _, p := range g.Pairs {
		if bytes.Equal(p.Key, metaKey(name)) {
			return p.Value
		}
	}
	return nil
}

// value returns the value of a block's key in a space.
func (g goldenStore) value(space byte, id []byte) []byte {
	for _, p := range g.Pairs {
		if bytes.Equal(p.Key, appendKey(nil, space, 0, id)) {
			return p.Value
		}
	}
	return nil
}

// goldenVault holds the golden key.
type goldenVault struct {
	id      vault.KeyID
	private *rsa.PrivateKey
}

func goldenKEK(t testing.TB) *kek.KEK {
	b, err := os.ReadFile(filepath.Join(goldenDir, "kek.pem"))
	require.NoError(t, err)
	block, _ := pem.Decode(b)
	require.NotNil(t, block)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	id := vault.KeyID{Vault: "https://golden.vault.example", Name: "customer", Version: "1"}
	return kek.New(&goldenVault{id, private.(*rsa.PrivateKey)}, id.Versionless())
}

func (v *goldenVault) check(op vault.Operation, id vault.KeyID) error {
	if id == v.id || id == v.id.Versionless() {
		return nil
	}
	return &vault.Error{Op: op, Key: id, Kind: vault.ErrKeyNotFound}
}

func (v *goldenVault) GetKey(_ context.Context, id vault.KeyID) (vault.Key, error) {
	return vault.Key{ID: v.id, Public: &v.private.PublicKey, Enabled: true,
		Operations: []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}}, v.check(vault.OpGet, id)
}

func (v *goldenVault) WrapKey(_ context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	if err := v.check(vault.OpWrapKey, id); err != nil {
		return vault.Wrapped{}, err
	}
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &v.private.PublicKey, secret, nil)
	return vault.Wrapped{KeyID: v.id, Ciphertext: c}, err
}

func (v *goldenVault) UnwrapKey(_ context.Context, w vault.Wrapped) ([]byte, error) {
	if err := v.check(vault.OpUnwrapKey, w.KeyID); err != nil {
		return nil, err
	}
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, v.private, w.Ciphertext, nil)
	if err != nil {
		return nil, &vault.Error{Op: vault.OpUnwrapKey, Key: w.KeyID, Kind: vault.ErrBadCiphertext}
	}
	return secret, nil
}

func goldenOptions(fs vfs.FS) *Options {
	return &Options{Pebble: PebbleOptions{FS: fs, MemTable: 1 << 20}, RecordCache: 1 << 16, RequireAccess: true, ManualRewrap: true,
		Keyring: keyring.Options{Clock: vaulttest.NewClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}}
}

// copyGolden copies a golden store into memory, since opening a store writes.
func copyGolden(t testing.TB, g goldenStore) vfs.FS {
	mem := vfs.NewMem()
	ok, err := vfs.Clone(vfs.Default, mem, filepath.Join(goldenDir, g.Dir), g.Dir)
	require.NoError(t, err)
	require.True(t, ok)
	return mem
}

// openGolden opens a golden store.
func openGolden(t testing.TB, g goldenStore) *Store {
	s, err := Open(context.Background(), g.Dir, goldenKEK(t), goldenOptions(copyGolden(t, g)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// The engine's keys, as docs/format.md draws them.
const (
	spaceMeta, spaceDEK, spaceData = 1, 2, 3

	prefixSize = 5
)

func appendKey(dst []byte, space byte, partition uint32, id []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(dst, space), partition), id...)
}

func metaKey(name string) []byte { return appendKey(nil, spaceMeta, 0, []byte(name)) }

// pairs returns everything that the engine has.
func (s *Store) pairs(t testing.TB) (out []goldenPair) {
	it, err := s.raw().NewIter([]byte{0}, []byte{0xff, 0xff})
	require.NoError(t, err)
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		require.NoError(t, err)
		out = append(out, goldenPair{bytes.Clone(it.Key()), bytes.Clone(v)})
	}
	require.NoError(t, it.Err())
	return out
}

// keep writes a golden store that was made in memory, where its path is its name.
func (g *goldenStore) keep(t testing.TB, mem vfs.FS) {
	path := filepath.Join(goldenDir, g.Dir)
	require.NoError(t, os.RemoveAll(path))
	_, err := vfs.Clone(mem, vfs.Default, g.Dir, path)
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(path, "BLOCKSEAL"))
	require.NoError(t, err)
	g.Identity = string(text)
}

// writeGolden makes the golden stores with what this package does in production.
// The private key beside them was made by hand:
//
//	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048
func writeGolden(t *testing.T) {
	ctx := t.Context()
	long := bytes.Repeat([]byte("0123456789abcdef"), MaxID/16)
	data := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i * 7)
		}
		return b
	}
	blocks := map[string][]byte{"\x00": nil, "block 1": []byte("plaintext"), "block 2": data(2000), string(long): data(33), "\xff\xff": data(1)}
	var all []goldenStore
	for dir, w := range map[string]keyring.Wrapping{"by-keyring": keyring.ByKeyring, "by-kek": keyring.ByKEK} {
		g := goldenStore{Dir: dir}
		o := goldenOptions(vfs.NewMem())
		o.Keyring.Wrapping = w
		s, err := Open(ctx, dir, goldenKEK(t), o)
		require.NoError(t, err)
		require.NoError(t, s.Put(ctx, []byte("block 1"), []byte("overwritten")))
		require.NoError(t, s.RotateEpoch(ctx, nil))
		require.NoError(t, s.Put(ctx, []byte("deleted"), []byte("deleted")))
		require.NoError(t, s.Delete(ctx, []byte("deleted")))
		for id, b := range blocks {
			if w == keyring.ByKEK && len(b) == 2000 {
				continue
			}
			require.NoError(t, s.Put(ctx, []byte(id), b))
		}
		// Once more, which makes tables and blob files of the log.
		require.NoError(t, s.Close())
		s, err = Open(ctx, dir, goldenKEK(t), o)
		require.NoError(t, err)
		id := s.StoreID()
		g.StoreID = id[:]
		// The records of long operations, as they stand when one is cut off. The
		// epoch is none that the store has, so that the next one starts anew.
		marker := rewrite.Marker{Epoch: 99, Start: []byte("block"), End: []byte("block 9"), Next: []byte("block 2")}
		require.NoError(t, s.writeMeta(ctx, rewrite.MarkerRotateEpoch, marker.Encode()))
		marker.End, marker.Epoch, marker.Work = nil, 0, inner.WorkID([]byte("0123456789abcdef"))
		require.NoError(t, s.writeMeta(ctx, rewrite.MarkerRekey, marker.Encode()))
		require.NoError(t, s.saveCopies(ctx, func(r register.Register) []register.Entry { return r.With(goldenEntry(goldenID("1"))) }))
		require.NoError(t, s.Close())
		g.keep(t, o.Pebble.FS)
		s = openGolden(t, g)
		for b, err := range s.Blocks(ctx, Range{}) {
			require.NoError(t, err)
			g.Blocks = append(g.Blocks, goldenBlock{ID: bytes.Clone(b.ID), Data: bytes.Clone(b.Data)})
		}
		g.Pairs = rawPairs(t, g)
		for i := range g.Blocks {
			b := &g.Blocks[i]
			b.DEK = goldenDEK(t, s, b.ID)
		}
		all = append(all, g)
	}
	if all[0].Dir != "by-keyring" {
		all[0], all[1] = all[1], all[0]
	}
	out, err := json.MarshalIndent(all, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(goldenDir, "golden.json"), append(out, '\n'), 0o644))
}

// goldenDEK returns a block's DEK.
func goldenDEK(t testing.TB, s *Store, id []byte) []byte {
	var found engine.Row
	require.NoError(t, s.part.Get(t.Context(), id, engine.Record, &found))
	defer found.Release()
	h, err := s.keys.Acquire()
	require.NoError(t, err)
	defer h.Release()
	var key dek.Key
	defer key.Destroy()
	var bind keyring.Binding
	bind.Set(id)
	require.NoError(t, h.OpenDEK(t.Context(), &key, found.Record, &bind))
	return bytes.Clone(key.Bytes())
}

// goldenSecret returns a store's secret, which its document has.
func goldenSecret(t testing.TB, s *Store) []byte {
	document, err := engine.ReadMeta(t.Context(), s.part, register.DocumentName)
	require.NoError(t, err)
	header := document[:binary.BigEndian.Uint32(document[10:])]
	secret, err := goldenKEK(t).Vault().UnwrapKey(t.Context(), vault.Wrapped{KeyID: goldenID("1"), Ciphertext: header[len(header)-256:]})
	require.NoError(t, err)
	aead, err := dek.NewAEAD(secret)
	require.NoError(t, err)
	body, err := aead.Open(nil, document[len(header):], header)
	require.NoError(t, err)
	return body[:32]
}

// rawPairs reads a golden store's pairs without opening it as a store, which may
// write.
func rawPairs(t testing.TB, g goldenStore) []goldenPair {
	mem := copyGolden(t, g)
	lock, err := pebble.LockDir(g.Dir, mem, false)
	require.NoError(t, err)
	defer lock.Close()
	db, err := pebble.Open(g.Dir, lock, pebble.Options{FS: mem})
	require.NoError(t, err)
	defer db.Close()
	return (&Store{cold: &cold{db: &DB{engine: db}}}).pairs(t)
}
