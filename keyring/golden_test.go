package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The golden files in testdata/golden are what a release wrote: keyring documents
// and DEK records under RSA keys that are test keys, with everything that is in
// them in golden.json. They are made with -update and then stay: a test that fails
// here says that stored data can no longer be read, or that bytes moved which
// docs/format.md fixes. A new version of a format gets golden files of its own.
var update = flag.Bool("update", false, "write the golden files anew; only ever right for a format that was not released")

const goldenDir = "testdata/golden"

// hexBytes is bytes that are hexadecimal digits in JSON.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }
func (b *hexBytes) UnmarshalText(t []byte) (err error) {
	*b, err = hex.DecodeString(string(t))
	return err
}

type goldenKEK struct {
	ID          uint32   `json:"id"`
	Records     uint8    `json:"records"` // 1: a ByKEK record may be wrapped by it
	Key         string   `json:"key"`
	Fingerprint hexBytes `json:"fingerprint"`
}

type goldenEpoch struct {
	ID      uint32   `json:"id"`
	Created int64    `json:"created"` // seconds since 1970
	DEKs    uint64   `json:"deks"`
	Key     hexBytes `json:"key"`
}

type goldenDocument struct {
	File         string        `json:"file"`
	StoreID      hexBytes      `json:"store_id"`
	Generation   uint64        `json:"generation"`
	Active       uint32        `json:"active"`
	KEKs         []goldenKEK   `json:"keks"`
	Secret       hexBytes      `json:"secret"`
	StoreSecret  hexBytes      `json:"store_secret"`
	Fingerprint  string        `json:"fingerprint"`
	Wrapping     uint8         `json:"wrapping"`
	EpochMaxDEKs uint64        `json:"epoch_max_deks"`
	EpochMaxAge  uint64        `json:"epoch_max_age"` // seconds
	RekeyAfter   uint64        `json:"rekey_after"`   // seconds
	NextEpoch    uint32        `json:"next_epoch"`
	Work         hexBytes      `json:"work"`
	Instance     hexBytes      `json:"instance"`
	Shared       uint32        `json:"shared"`
	NextKEK      uint32        `json:"next_kek"`
	Epochs       []goldenEpoch `json:"epochs"`
}

type goldenRecord struct {
	Name     string   `json:"name"`
	Document string   `json:"document"` // the file of the document it opens with
	Type     uint8    `json:"type"`
	Epoch    uint32   `json:"epoch"`
	KEK      uint32   `json:"kek,omitempty"`
	Context  hexBytes `json:"context"`
	AAD      hexBytes `json:"aad"`
	DEK      hexBytes `json:"dek"`
	Record   hexBytes `json:"record"`
}

type golden struct {
	Documents []goldenDocument `json:"documents"`
	Records   []goldenRecord   `json:"records"`
}

func readGolden(t testing.TB) golden {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldenDir, "golden.json"))
	require.NoError(t, err)
	var g golden
	require.NoError(t, json.Unmarshal(b, &g))
	require.NotEmpty(t, g.Documents)
	require.NotEmpty(t, g.Records)
	return g
}

func readDocument(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldenDir, name))
	require.NoError(t, err)
	return b
}

func (g golden) document(name string) goldenDocument {
	for _, d := range g.Documents {
		if d.File == name {
			return d
		}
	}
	return goldenDocument{}
}

// goldenVault holds the golden keys under fixed names. The newest version of a key
// is its last.
type goldenVault struct {
	name string
	keys []goldenKey

	mu        sync.Mutex
	unwrapped map[string][]byte
}

type goldenKey struct {
	id      vault.KeyID
	private *rsa.PrivateKey
}

func newGoldenVault(t testing.TB, name, key string, versions ...string) *goldenVault {
	v := &goldenVault{name: name, unwrapped: map[string][]byte{}}
	for _, version := range versions {
		b, err := os.ReadFile(filepath.Join(goldenDir, "kek-"+version+".pem"))
		require.NoError(t, err)
		block, _ := pem.Decode(b)
		require.NotNil(t, block)
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		require.NoError(t, err)
		v.keys = append(v.keys, goldenKey{vault.KeyID{Vault: name, Name: key, Version: version}, private.(*rsa.PrivateKey)})
	}
	return v
}

func (v *goldenVault) find(id vault.KeyID) (goldenKey, error) {
	for i := range v.keys {
		k := v.keys[len(v.keys)-1-i]
		if (id.Vault == "" || id.Vault == v.name) && k.id.Name == id.Name && (id.Version == "" || k.id.Version == id.Version) {
			return k, nil
		}
	}
	return goldenKey{}, &vault.Error{Op: vault.OpGet, Key: id, Kind: vault.ErrKeyNotFound}
}

func (v *goldenVault) GetKey(_ context.Context, id vault.KeyID) (vault.Key, error) {
	k, err := v.find(id)
	if err != nil {
		return vault.Key{}, err
	}
	return vault.Key{ID: k.id, Public: &k.private.PublicKey, Enabled: true,
		Operations: []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}}, nil
}

func (v *goldenVault) WrapKey(_ context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	k, err := v.find(id)
	if err != nil {
		return vault.Wrapped{}, err
	}
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.private.PublicKey, secret, nil)
	return vault.Wrapped{KeyID: k.id, Ciphertext: c}, err
}

func (v *goldenVault) UnwrapKey(_ context.Context, w vault.Wrapped) ([]byte, error) {
	k, err := v.find(w.KeyID)
	if err != nil {
		return nil, err
	}
	at := w.KeyID.String() + string(w.Ciphertext)
	v.mu.Lock()
	defer v.mu.Unlock()
	if secret, ok := v.unwrapped[at]; ok { // who flips each bit asks the same thing a thousand times
		return bytes.Clone(secret), nil
	}
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, k.private, w.Ciphertext, nil)
	if err != nil {
		return nil, &vault.Error{Op: vault.OpUnwrapKey, Key: w.KeyID, Kind: vault.ErrBadCiphertext}
	}
	v.unwrapped[at] = bytes.Clone(secret)
	return secret, nil
}

// goldenKEKs are the vaults that the golden documents were wrapped by: "customer"
// with the versions a1 and a2 in one vault, "other" with b1 in another.
func goldenKEKs(t testing.TB) (customer, other *kek.KEK) {
	return kek.New(newGoldenVault(t, "https://golden.vault.example", "customer", "a1", "a2"), vault.KeyID{Name: "customer"}),
		kek.New(newGoldenVault(t, "file:golden", "other", "b1"), vault.KeyID{Name: "other"})
}

// openGolden opens a golden document the way a program does.
func openGolden(t testing.TB, customer *kek.KEK, document []byte) (*Keyring, error) {
	s := &MemStorage{}
	require.NoError(t, Replace(context.Background(), s, document))
	r, err := Open(context.Background(), s, customer, &Options{Clock: vaulttest.NewClock(goldenStart), ReadOnly: true, RequireAccess: true})
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

var goldenStart = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// writeGolden makes the golden files with what this package does in production.
// The private keys beside them are made once, by hand:
//
//	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048
func writeGolden(t *testing.T) {
	ctx := t.Context()
	customer, other := goldenKEKs(t)
	v := customer.Vault().(*goldenVault)
	newest := v.keys
	v.keys = newest[:1] // a2 does not exist yet

	clock, s := vaulttest.NewClock(goldenStart), &MemStorage{}
	r, err := Create(ctx, s, customer, &Options{Clock: clock, block: inner.Options{Instance: inner.InstanceID{1, 2, 3}}, EpochMaxDEKs: 1 << 20, EpochMaxAge: 30 * 24 * time.Hour})
	require.NoError(t, err)
	defer r.Close()
	var g golden
	record := func(name, document string, byKEK bool, context []byte) {
		r.wrapsByKEK.Store(byKEK)
		key, wrapped, err := r.NewDEK(ctx, context)
		require.NoError(t, err)
		g.addRecord(t, r, name, document, context, key.Bytes(), wrapped)
		key.Destroy()
	}
	record("first epoch, empty context", "created.bin", false, nil)
	g.addDocument(t, r, "created.bin")

	clock.Advance(30 * time.Second) // less than a check
	require.NoError(t, r.BeginEpoch(ctx))
	record("second epoch", "grown.bin", false, []byte("block 7"))
	record("second epoch, first KEK", "grown.bin", true, append(make([]byte, 4), "block 8"...))
	v.keys = newest
	require.NoError(t, r.RotateKEK(ctx))
	record("second epoch, second KEK", "grown.bin", true, []byte{0})
	require.NoError(t, r.BeginEpoch(ctx))
	long := make([]byte, 4+4096)
	for i := range long {
		long[i] = byte(i)
	}
	record("third epoch, longest block id", "grown.bin", false, long)
	require.NoError(t, r.ChangeKEK(ctx, other))
	require.NoError(t, r.ChangeKEK(ctx, customer))
	old := g.Records[2]
	h, err := r.Acquire()
	require.NoError(t, err)
	var b Binding
	b.Set(old.Context)
	again, err := h.For(inner.Block{}).Rewrap(ctx, nil, old.Record, &b)
	h.Release()
	require.NoError(t, err)
	g.addRecord(t, r, "rewrapped by the third epoch, first KEK", "grown.bin", old.Context, old.DEK, again)
	_, err = r.For(inner.Block{}).DropEpochs(ctx, 2)
	require.NoError(t, err)
	r.For(inner.Block{}).Share()
	_, err = r.For(inner.Block{}).BeginWork(ctx)
	require.NoError(t, err)
	g.addDocument(t, r, "grown.bin")

	out, err := json.MarshalIndent(g, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(goldenDir, "golden.json"), append(out, '\n'), 0o644))
}

func (g *golden) addDocument(t *testing.T, r *Keyring, file string) {
	document, err := Document(t.Context(), r.storage)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(goldenDir, file), document, 0o644))
	d := goldenDocument{File: file, StoreID: bytes.Clone(r.storeID[:]), Generation: r.header.generation, Active: r.header.active}
	for _, k := range r.header.keks {
		e := goldenKEK{ID: k.id, Key: k.key.String(), Fingerprint: bytes.Clone(k.fingerprint[:])}
		if k.records {
			e.Records = 1
		}
		d.KEKs = append(d.KEKs, e)
	}
	s := r.session.Load()
	d.Secret = bytes.Clone(s.secret[:])
	b, err := openBody(r.sealed, &s.secret, r.aad)
	require.NoError(t, err)
	d.StoreSecret, d.Fingerprint = bytes.Clone(b.storeSecret[:]), b.fingerprint()
	d.Wrapping, d.EpochMaxDEKs = uint8(b.policy.wrapping), b.policy.maxDEKs
	d.EpochMaxAge, d.RekeyAfter = uint64(b.policy.maxAge/time.Second), uint64(b.policy.rekeyAfter/time.Second)
	d.NextEpoch, d.Work = b.nextEpoch, bytes.Clone(b.work[:])
	d.Instance, d.Shared, d.NextKEK = bytes.Clone(b.instance[:]), b.shared, b.nextKEK
	for _, e := range b.epochs {
		d.Epochs = append(d.Epochs, goldenEpoch{e.id, e.created.Unix(), e.reserved, bytes.Clone(e.key[:])})
	}
	g.Documents = append(g.Documents, d)
}

func (g *golden) addRecord(t *testing.T, r *Keyring, name, document string, context, key, record []byte) {
	in, err := ParseRecord(record)
	require.NoError(t, err)
	var b Binding
	b.Set(context)
	g.Records = append(g.Records, goldenRecord{Name: name, Document: document, Type: record[0], Epoch: in.Epoch, KEK: in.KEK,
		Context: context, AAD: bytes.Clone(b.aad(in, (*[storeIDSize]byte)(&r.storeID))), DEK: bytes.Clone(key), Record: record})
}
