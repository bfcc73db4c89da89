package reader_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// tenant is a store of the directory that the reader reads.
type tenant struct {
	name, key   string // the key's name in the vault, and its file
	wrapping    keyring.Wrapping
	partition   uint32
	id          string
	fingerprint string
	export      []byte
}

func (w tenant) data(id string) []byte { return []byte("plaintext of " + w.name + "'s " + id) }

// A directory with three stores, of two KEKs, from which a fourth was dropped: the reader finds who is
// where, opens the blocks of each with its own KEK and with no other, checks what each says of itself,
// and reads what was exported.
func TestThreeStores(t *testing.T) {
	backends(t)
	ctx, work := t.Context(), t.TempDir()
	v, pem := importing(t, work, map[string]string{"first": "kek-a1.pem", "second": "kek-a2.pem"})
	tenants := []tenant{
		{name: "ada", key: "first", wrapping: keyring.ByKeyring, partition: 0},
		{name: "café", key: "second", wrapping: keyring.ByKEK, partition: 2},
		{name: "cafe\u0301", key: "second", wrapping: keyring.ByKeyring, partition: 3},
	}
	ids := []string{"\x00", "block 1", "block 2"}
	dir := filepath.Join(work, "db")
	db, err := block.OpenDB(ctx, dir, nil)
	require.NoError(t, err)
	make := func(w *tenant) {
		s, err := db.Create(ctx, w.name, kek.New(v, vault.KeyID{Name: w.key}), &block.Options{ManualRewrap: true, Keyring: keyring.Options{Wrapping: w.wrapping}})
		require.NoError(t, err)
		for _, id := range ids {
			require.NoError(t, s.Put(ctx, []byte(id), w.data(id)))
		}
		w.id, w.fingerprint = s.StoreID().String(), s.Fingerprint()
	}
	make(&tenants[0])
	make(&tenant{name: "dropped", key: "first", wrapping: keyring.ByKeyring})
	make(&tenants[1])
	make(&tenants[2])
	_, err = db.Drop(ctx, "dropped")
	require.NoError(t, err)
	for i := range tenants {
		var out bytes.Buffer
		_, err := db.Export(ctx, tenants[i].name, &out)
		require.NoError(t, err)
		tenants[i].export = out.Bytes()
	}
	require.NoError(t, db.Close()) // with all three open: each tags the list of files

	// The catalogue.
	rows := catalogueRows(t, dir)
	args := []string{"catalogue", write(t, work, "next", rows["next"])}
	for name, value := range rows {
		if strings.HasPrefix(name, "store/") {
			args = append(args, write(t, work, strings.ReplaceAll(name, "/", "-"), value))
		}
	}
	require.Len(t, args, 2+len(tenants))
	var catalogue struct {
		Next   uint32
		Stores []struct {
			Name, State, Record string
			Partition           uint32
		}
	}
	require.NoError(t, json.Unmarshal(read(t, args...), &catalogue))
	require.EqualValues(t, 4, catalogue.Next)
	where := map[string]uint32{}
	for _, s := range catalogue.Stores {
		require.Equal(t, "present", s.State)
		require.Equal(t, fmt.Sprintf("store/%x", sha256.Sum256([]byte(s.Name))), s.Record)
		where[s.Name] = s.Partition
	}
	require.Equal(t, map[string]uint32{"ada": 0, "café": 2, "cafe\u0301": 3}, where)
	refused(t, "which was not given, or to another store", append(args, args[2])...)
	refused(t, "an entry is damaged", "catalogue", args[1], args[1])
	refused(t, "the number that is given next is damaged", "catalogue", args[2])

	identity := filepath.Join(dir, "BLOCKSEAL")
	text, err := os.ReadFile(identity)
	require.NoError(t, err)
	for i, w := range tenants {
		t.Run(fmt.Sprintf("%+q", w.name), func(t *testing.T) {
			parts := t.TempDir()
			document, records, sealed := export(t, dir, w.partition)
			doc := write(t, parts, "document", document)
			with := func(command string, more ...string) []string {
				return append(append([]string{command}, more...), "--kek", pem[w.key])
			}

			// What the directory says, and what the store in the partition says of that.
			var in struct {
				Instance  string
				Stores    uint32
				State     string
				Instances map[uint32]string
				Files     []struct{ Name string }
			}
			number := []string{"--partition", fmt.Sprint(w.partition)}
			require.NoError(t, json.Unmarshal(read(t, append(with("identity", identity, doc), number...)...), &in))
			require.EqualValues(t, 4, in.Stores)
			require.Equal(t, "closed", in.State)
			require.NotEmpty(t, in.Files)
			var ring struct {
				Store       string `json:"store"`
				Instance    string `json:"instance"`
				Fingerprint string `json:"store_fingerprint"`
			}
			require.NoError(t, json.Unmarshal(read(t, with("keyring", doc)...), &ring))
			require.Equal(t, w.id, ring.Store)
			require.Equal(t, w.fingerprint, ring.Fingerprint)
			require.Equal(t, ring.Instance, in.Instances[w.partition])
			require.Len(t, in.Instances, 3)
			other := tenants[(i+1)%len(tenants)].partition
			refused(t, "was not made by the store in partition", append(with("identity", identity, doc), "--partition", fmt.Sprint(other))...)
			// Its blocks, as they are in the engine.
			require.Len(t, records, len(ids))
			for _, id := range ids {
				open := with("block", doc, "--id", hex.EncodeToString([]byte(id)), "--record", write(t, parts, "record", records[id]), "--sealed", write(t, parts, "sealed", sealed[id]))
				require.Equal(t, w.data(id), read(t, open...))
			}
			// Another store's, in the place of its own.
			_, theirs, blocks := export(t, dir, other)
			require.NotEqual(t, records["block 1"], theirs["block 1"])
			refused(t, "does not authenticate", with("block", doc, "--id", hex.EncodeToString([]byte("block 2")),
				"--record", write(t, parts, "record", records["block 2"]), "--sealed", write(t, parts, "sealed", blocks["block 2"]))...)

			// Its export, from end to end.
			stream := write(t, parts, "stream", w.export)
			var arrived struct {
				Name, Store string
				Fingerprint string `json:"store_fingerprint"`
				Blocks      map[string]int
			}
			require.NoError(t, json.Unmarshal(read(t, with("export", stream)...), &arrived))
			require.Equal(t, w.name, arrived.Name)
			require.Equal(t, w.id, arrived.Store)
			require.Equal(t, w.fingerprint, arrived.Fingerprint)
			require.Len(t, arrived.Blocks, len(ids))
			for _, id := range ids {
				require.Equal(t, len(w.data(id)), arrived.Blocks[hex.EncodeToString([]byte(id))])
			}
			require.Equal(t, w.data("block 1"), read(t, with("export", stream, "--id", hex.EncodeToString([]byte("block 1")))...))
			if i > 0 {
				return // what is refused is refused of one store
			}
			refused(t, "has no block of that id", with("export", stream, "--id", "ff")...)
			refused(t, "has made no tag", append(with("identity", identity, doc), "--partition", "1")...)
			refused(t, "cut off or damaged", "identity", write(t, parts, "cut", text[:len(text)-2]))
			refused(t, "is cut off", with("export", write(t, parts, "cut", w.export[:len(w.export)-1]))...)
			refused(t, "goes on after its end", with("export", write(t, parts, "more", append(bytes.Clone(w.export), 0)))...)
			altered := bytes.Clone(w.export)
			altered[len(altered)-100] ^= 1
			refused(t, "the export is damaged", with("export", write(t, parts, "altered", altered))...)
			for key := range pem {
				if key != w.key {
					refused(t, "whose private key was not given", "export", stream, "--kek", pem[key])
				}
			}
		})
	}
}

// catalogueRows returns the meta records of the catalogue's partition.
func catalogueRows(t *testing.T, dir string) map[string][]byte {
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, Logger: quiet{t}})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	it, err := db.NewIter(nil)
	require.NoError(t, err)
	defer it.Close()
	out := map[string][]byte{}
	for ok := it.First(); ok; ok = it.Next() {
		if key := it.Key(); key[0] == 1 && binary.BigEndian.Uint32(key[1:]) == 0xffffffff {
			out[string(key[5:])] = bytes.Clone(it.Value())
		}
	}
	require.NoError(t, it.Error())
	return out
}

// The golden directory's export, which no release of the library need be there to read.
func TestGoldenExport(t *testing.T) {
	golden := filepath.Join("..", "..", "block", "testdata", "golden")
	backends(t)
	with := []string{"export", filepath.Join(golden, "export-3"), "--kek", filepath.Join(golden, "kek.pem")}
	require.Equal(t, "café's block 1", string(read(t, append(with, "--id", hex.EncodeToString([]byte("block 1")))...)))
	require.Contains(t, string(read(t, with...)), `"name": "caf\u00e9"`)
}

// importing returns a vault with the private keys of golden files, by name, and where each of them is as PEM.
func importing(t *testing.T, work string, files map[string]string) (v *local.Vault, pem map[string]string) {
	v, err := local.Create(filepath.Join(work, "vault"), []byte("passphrase"), &local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 10}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	pem = map[string]string{}
	for name, file := range files {
		_, err := v.ImportKey(t.Context(), name, testKey(t, file), nil)
		require.NoError(t, err)
		pem[name] = filepath.Join("..", "..", "keyring", "testdata", "golden", file)
	}
	return v, pem
}
