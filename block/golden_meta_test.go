package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// The golden store meta-2 has a receipt, and a register with everything that there can be in
// one; golden-2.json has what is in it.

// goldenOther is the instance of a copy that the store does not vouch for.
const goldenOther = "fedcba9876543210fedcba9876543210"

// goldenPublic is the golden key.
func goldenPublic(t testing.TB) register.PublicKey {
	key, err := goldenKEK(t).Vault().GetKey(t.Context(), goldenID("1"))
	require.NoError(t, err)
	public, err := kek.Fingerprint(key.Public)
	require.NoError(t, err)
	return public
}

// goldenCopies are the copies of the golden receipt.
func goldenCopies() []Copy {
	vouched, other := Copy(goldenEntry(goldenID("0"), goldenID("1")).Copy), Copy(goldenEntry(goldenID("1")).Copy)
	other.Instance, other.Path, other.Doubt = goldenOther, "/backup/2", register.DoubtForeign
	return []Copy{vouched, other}
}

func writeGoldenMeta(t *testing.T) {
	g := goldenStore{Dir: "meta-2"}
	o := goldenOptions(vfs.NewMem())
	o.Keyring.Wrapping = keyring.ByKEK
	s, err := Open(t.Context(), g.Dir, goldenKEK(t), o)
	require.NoError(t, err)
	require.NoError(t, s.Put(t.Context(), []byte("block 1"), []byte("plaintext")))
	// A version before, which the vault does not have any more; and a copy that an earlier
	// process announced, which nobody vouches for.
	tagger, err := s.taggerFor(register.Name)
	require.NoError(t, err)
	defer tagger.Destroy()
	require.NoError(t, s.Close())
	atRest(t, s, func(part engine.Partition) {
		b, err := engine.ReadMeta(t.Context(), part, register.Name)
		require.NoError(t, err)
		_, record, _ := tagged.Split(b)
		r, err := register.Decode(record)
		require.NoError(t, err)
		r.Past = register.PastKEKs{KEKs: []register.PastKEK{{ID: goldenID("0"), Public: register.PublicKey{7}}, {ID: goldenID("1"), Public: goldenPublic(t)}}, Incomplete: true}
		require.NoError(t, engine.SetMeta(t.Context(), part, register.Name, tagged.Join(tagger.Tag(r.Encode()), r.Encode())))
	})
	s, err = Open(t.Context(), g.Dir, goldenKEK(t), o)
	require.NoError(t, err)
	other := goldenEntry(goldenID("1"))
	other.Instance, other.Path, other.Vouched = goldenOther, "/backup/2", false
	require.NoError(t, s.saveCopies(t.Context(), func(r register.Register) []register.Entry {
		r.Copies = r.With(goldenEntry(goldenID("0"), goldenID("1")))
		return r.With(other)
	}))
	_, err = s.Erase(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	other.Instance = strings.Repeat("7", 32)
	atRest(t, s, func(part engine.Partition) { // after the last document, which would take it over
		require.NoError(t, engine.SetMeta(t.Context(), part, "copy/"+s.Instance()+"/"+other.Instance, other.Append(nil)))
	})
	id := s.StoreID()
	g.StoreID = id[:]
	g.keep(t, o.Pebble.FS)
	g.Pairs = rawPairs(t, g)
	out, err := json.MarshalIndent(g, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(goldenDir, "golden-2.json"), append(out, '\n'), 0o644))
}

// atRest changes what is in the engine of a store that was closed.
func atRest(t *testing.T, s *Store, change func(engine.Partition)) {
	require.NoError(t, s.db.place.Lock())
	db, err := s.db.place.OpenEngine(pebble.Options{})
	require.NoError(t, err)
	change(db.Partition(s.number))
	require.NoError(t, errors.Join(db.Close(), s.db.place.Enter(pebble.Opened), s.db.place.Leave(1, nil), s.db.place.Unlock()))
}

func readGoldenMeta(t testing.TB) (g goldenStore) {
	b, err := os.ReadFile(filepath.Join(goldenDir, "golden-2.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &g))
	return g
}

// The records are, by the offsets of docs/format.md, what they were written
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
	// missing | number | gone since | public key | key | gone since | public key | key
	keks := "\x01" + "\x00\x02" + "\x00\x00\x00\x00\x69\x57\x35\xa5" + "\x07" + strings.Repeat("\x00", 31) + "\x00\x2c" + before +
		"\x00\x00\x00\x00\x00\x00\x00\x00" + string(public[:]) + "\x00\x2c" + now
	// instance | vouched for | made | generation | document | KEK | number | KEK | path
	vouched := strings.Repeat("\x01\x23\x45\x67\x89\xab\xcd\xef", 2) + "\x01" + "\x00\x00\x00\x00\x69\x57\x35\xa5" + "\x00\x00\x00\x00\x00\x00\x00\x02" +
		"\x09" + strings.Repeat("\x00", 31) + "\x00\x2c" + now + "\x00\x01" + "\x00\x2c" + before + "\x00\x00\x00\x09/backup/1"
	other := func(instance string) string {
		return strings.Repeat(instance, 2) + "\x00" + "\x00\x00\x00\x00\x69\x57\x35\xa5" + "\x00\x00\x00\x00\x00\x00\x00\x02" +
			"\x09" + strings.Repeat("\x00", 31) + "\x00\x2c" + now + "\x00\x00" + "\x00\x00\x00\x09/backup/2"
	}
	meta := map[string][]byte{"register": g.meta("register"), "keyring": g.meta("keyring")}
	requireRegister(t, meta, s.Instance(), keks+"\x00\x02"+vouched+other("\xfe\xdc\xba\x98\x76\x54\x32\x10"))
	require.Equal(t, other("\x77\x77\x77\x77\x77\x77\x77\x77"), string(g.meta("copy/"+s.Instance()+"/"+strings.Repeat("7", 32))))
	_, record, _ := tagged.Split(g.meta(register.Name))
	reg, err := register.Decode(record)
	require.NoError(t, err)
	require.Equal(t, []register.PastKEK{{ID: goldenID("0"), Gone: s.keys.For(inner.Block{}).Now().Unix(), Public: register.PublicKey{7}}, {ID: goldenID("1"), Public: public}}, reg.Past.KEKs)
	require.True(t, reg.Past.Incomplete)
	require.Equal(t, record, reg.Encode())
	copies, err := s.Copies(t.Context())
	require.NoError(t, err)
	require.Len(t, copies, 3, "with the one that was announced")
	require.Equal(t, register.DoubtForeign, copies[1].Doubt)
	require.Equal(t, goldenCopies(), []Copy{copies[0], copies[2]})

	r, found, err := s.LastReceipt(t.Context())
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, Receipt{Version: 3, Store: s.StoreID(), Instance: s.Instance(), Time: s.keys.For(inner.Block{}).Now().UTC(), Generation: r.Generation,
		Epochs: []uint32{1}, Kept: 1, Keys: []ReceiptKey{
			{Key: goldenID("0"), State: KeyNotFound, PublicKey: register.PublicKey{7}.String()}, {Key: goldenID("1"), State: KeyExists, PublicKey: public.String()}}, Incomplete: true,
		Copies: goldenCopies(), Hash: r.Hash}, r)
	checkReceipt(t, g.meta(metaReceipt), r)
	text := string(g.meta(metaReceipt))
	require.Contains(t, text, `{"version":3,"store":"`+s.StoreID().String()+`","instance":"`)
	require.Contains(t, text, `"keys":[{"key":"https://golden.vault.example/keys/customer/0","state":"notFound","publicKey":"07`+strings.Repeat("00", 31)+`"},{`)
	require.Contains(t, text, `"key":"https://golden.vault.example/keys/customer/1","state":"exists","publicKey":"`+public.String()+`"}],"incomplete":true,"copies":[{"instance":"`)
	require.Contains(t, text, `"generation":2,"keks":["https://golden.vault.example/keys/customer/0","https://golden.vault.example/keys/customer/1"]`)
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

// A receipt that another release wrote, and one that was altered, are no receipts.
func TestReceiptThatIsNone(t *testing.T) {
	g := readGoldenMeta(t)
	text := string(g.meta(metaReceipt))
	s := openGolden(t, g)
	for bad, want := range map[string]error{
		strings.Replace(text, `{"version":3,`, `{"version":4,`, 1): ErrVersion,
		strings.Replace(text, `{"version":3,`, `{`, 1):             ErrVersion,
		strings.Replace(text, `"kept":1`, `"kept":4`, 1):           ErrCorrupt,
		"{": ErrCorrupt,
	} {
		require.NotEqual(t, text, bad)
		require.NoError(t, s.writeMeta(t.Context(), metaReceipt, []byte(bad)))
		_, _, err := s.LastReceipt(t.Context())
		require.ErrorIs(t, err, want, bad)
	}
}
