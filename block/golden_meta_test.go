package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// The golden store meta-2 has the meta records of version 2, and golden-2.json what is
// in it; the other golden stores have those of version 1. receipt-1.json is a receipt of
// a release that did not ask the vault.

func goldenID(version string) vault.KeyID {
	return vault.KeyID{Vault: "https://golden.vault.example", Name: "customer", Version: version}
}

// goldenPublic is the golden key.
func goldenPublic(t testing.TB) publicKey {
	key, err := goldenKEK(t).Vault().GetKey(t.Context(), goldenID("1"))
	require.NoError(t, err)
	public, err := kek.Fingerprint(key.Public)
	require.NoError(t, err)
	return public
}

func goldenCopy2() Copy {
	return Copy{Instance: goldenCopy, Path: "/backup/1", Made: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), KEK: goldenID("1"), Generation: 2,
		KEKs: []vault.KeyID{goldenID("0"), goldenID("1")}}
}

func writeGoldenMeta(t *testing.T) {
	g := goldenStore{Dir: "meta-2"}
	o := goldenOptions(vfs.NewMem())
	o.Keyring.Wrapping = keyring.ByKEK
	s, err := Open(t.Context(), g.Dir, goldenKEK(t), o)
	require.NoError(t, err)
	require.NoError(t, s.Put(t.Context(), []byte("block 1"), []byte("plaintext")))
	c := goldenCopy2()
	require.NoError(t, s.writeMeta(s.copyRecord(goldenCopy), c.encode()))
	// A version before, which the vault does not have any more.
	s.storage.past = pastKEKs{keks: []pastKEK{{id: goldenID("0"), public: publicKey{7}}, {id: goldenID("1"), public: goldenPublic(t)}}, incomplete: true}
	_, err = s.Erase(t.Context(), nil)
	require.NoError(t, err)
	id := s.StoreID()
	g.StoreID = id[:]
	require.NoError(t, s.Close())
	g.keep(t, o.FS)
	g.Pairs = rawPairs(t, g)
	out, err := json.MarshalIndent(g, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(goldenDir, "golden-2.json"), append(out, '\n'), 0o644))
}

func readGoldenMeta(t testing.TB) (g goldenStore) {
	b, err := os.ReadFile(filepath.Join(goldenDir, "golden-2.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &g))
	return g
}

// The records of version 2 are, by the offsets of docs/format.md, what they were written
// as, come out of the encoders byte for byte, and say what they said.
func TestGoldenMetaRecords(t *testing.T) {
	if *update {
		writeGoldenMeta(t)
	}
	g := readGoldenMeta(t)
	require.Equal(t, g.Pairs, rawPairs(t, g))
	s := openGolden(t, g)

	const before, now = "https://golden.vault.example/keys/customer/0", "https://golden.vault.example/keys/customer/1"
	public := goldenPublic(t)
	// version | incomplete | gone since | public key | key | gone since | public key | key
	require.Equal(t, "\x02\x01"+"\x00\x00\x00\x00\x69\x57\x35\xa5"+"\x07"+strings.Repeat("\x00", 31)+"\x00\x2c"+before+
		"\x00\x00\x00\x00\x00\x00\x00\x00"+string(public[:])+"\x00\x2c"+now, string(g.meta("past-keks")))
	past, err := decodePast(g.meta(metaPast))
	require.NoError(t, err)
	require.Equal(t, pastKEKs{keks: []pastKEK{{id: goldenID("0"), gone: s.keys.Now().Unix(), public: publicKey{7}}, {id: goldenID("1"), public: public}}, incomplete: true}, past)
	require.Equal(t, g.meta(metaPast), past.encode())

	// version | made | generation | KEK | number | KEK | path
	require.Equal(t, "\x02\x00\x00\x00\x00\x69\x57\x35\xa5"+"\x00\x00\x00\x00\x00\x00\x00\x02"+"\x00\x00\x00\x2c"+now+
		"\x00\x01"+"\x00\x2c"+before+"/backup/1", string(g.meta(s.copyRecord(goldenCopy))))
	copies, err := s.Copies(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Copy{goldenCopy2()}, copies)
	require.Equal(t, g.meta(s.copyRecord(goldenCopy)), copies[0].encode())

	r, found, err := s.LastReceipt(t.Context())
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, Receipt{Version: 2, Store: s.StoreID(), Instance: s.Instance(), Time: s.keys.Now().UTC(), Generation: r.Generation,
		Epochs: []uint32{1}, Kept: 1, Keys: []ReceiptKey{
			{KeyID: goldenID("0"), State: KeyNotFound, PublicKey: publicKey{7}.String()}, {KeyID: goldenID("1"), State: KeyExists, PublicKey: public.String()}}, Incomplete: true,
		Copies: []Copy{goldenCopy2()}, Hash: r.Hash}, r)
	checkReceipt(t, g.meta(metaReceipt), r)
	text := string(g.meta(metaReceipt))
	require.Contains(t, text, `{"version":2,"store":[`)
	require.Contains(t, text, `"keys":[{"Vault":"https://golden.vault.example","Name":"customer","Version":"0","state":"notFound","publicKey":"07`+strings.Repeat("00", 31)+`"},{`)
	require.Contains(t, text, `"Version":"1","state":"exists","publicKey":"`+public.String()+`"}],"incomplete":true,"copies":[{"Instance":"`)
	require.Contains(t, text, `"Generation":2,"KEKs":[{"Vault":"https://golden.vault.example","Name":"customer","Version":"0"},{`)
}

// checkReceipt recomputes a receipt's hash from its text alone, and from what it says.
func checkReceipt(t *testing.T, text []byte, r Receipt) {
	t.Helper()
	require.True(t, bytes.HasSuffix(text, []byte(`"hash":"`+r.Hash+`"}`)))
	sum := sha256.Sum256([]byte(strings.Replace(string(text), r.Hash, "", 1)))
	require.Equal(t, r.Hash, hex.EncodeToString(sum[:]))
	again, err := json.Marshal(r)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
}

// A receipt of version 1 is read, and its hash is what it was.
func TestGoldenReceiptOfVersion1(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(goldenDir, "receipt-1.json"))
	require.NoError(t, err)
	s := openGolden(t, readGoldenMeta(t))
	require.NoError(t, s.writeMeta(metaReceipt, text))
	r, found, err := s.LastReceipt(t.Context())
	require.NoError(t, err)
	require.True(t, found)
	require.Zero(t, r.Version)
	require.Equal(t, []ReceiptKey{{KeyID: goldenID("0")}, {KeyID: goldenID("1")}}, r.Keys)
	require.Nil(t, r.Copies[0].KEKs)
	checkReceipt(t, text, r)

	require.NoError(t, s.writeMeta(metaReceipt, bytes.Replace(text, []byte("{"), []byte(`{"version":3,`), 1)))
	_, _, err = s.LastReceipt(t.Context())
	require.ErrorIs(t, err, ErrVersion)
	require.NoError(t, s.writeMeta(metaReceipt, bytes.Replace(text, []byte(`"kept":3`), []byte(`"kept":4`), 1)))
	_, _, err = s.LastReceipt(t.Context())
	require.ErrorIs(t, err, ErrCorrupt)
}

// What the version of before wrote is taken over, and is written as version 2 next.
func TestPastKEKsOfVersion1(t *testing.T) {
	record := func(s *Store) []byte {
		b, err := readMeta(s.db, metaPast)
		require.NoError(t, err)
		return b
	}
	for _, erased := range []bool{false, true} {
		g := readGolden(t)[0]
		fs := copyGolden(t, g)
		s, err := Open(t.Context(), g.Dir, goldenKEK(t), goldenOptions(fs))
		require.NoError(t, err)
		require.EqualValues(t, pastVersion1, record(s)[0])
		if erased { // by a release that forgot the others then
			require.NoError(t, s.writeMeta(metaErased, []byte("2026-01-01T00:00:00Z")))
			require.NoError(t, s.Close())
			s, err = Open(t.Context(), g.Dir, goldenKEK(t), goldenOptions(fs))
			require.NoError(t, err)
		}
		r, err := s.Erase(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, []ReceiptKey{{KeyID: goldenID("1"), State: KeyExists, PublicKey: goldenPublic(t).String()}}, r.Keys)
		require.Equal(t, erased, r.Incomplete)
		require.EqualValues(t, pastVersion, record(s)[0])
		require.NoError(t, s.Close())
	}
}

// The table of past KEKs is bounded, and says what it does not know.
func TestPastKEKsAreBounded(t *testing.T) {
	var p pastKEKs
	version := func(i int) vault.KeyID { return goldenID(fmt.Sprint("v", i)) }
	for i := range maxPast {
		p = p.with(version(i), publicKey{byte(i), 1})
	}
	require.Len(t, p.keks, maxPast)
	require.False(t, p.incomplete)
	require.Equal(t, p, p.with(version(0), publicKey{0, 1}), "it is there")
	full := p
	p = p.with(goldenID("one-more"), publicKey{})
	require.Len(t, p.keks, maxPast)
	require.True(t, p.incomplete)
	require.Equal(t, version(1), p.keks[0].id, "the oldest went")
	require.Equal(t, version(0), full.keks[0].id, "nothing of the table before was changed")
	again, err := decodePast(p.encode())
	require.NoError(t, err)
	require.Equal(t, p, again)
	_, err = decodePast(appendKeyID(append(p.encode(), make([]byte, 8+32)...), goldenID("too-many")))
	require.ErrorIs(t, err, ErrCorrupt)
}
