package block

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/keyring"
)

// The golden directory stores-3 has three stores, of a name each that shows something, and a receipt
// of one that was dropped; golden-3.json has what is in it. export-3 is an export of one of them.

const goldenExport = "export-3"

// goldenTenants are the stores of the golden directory, by the numbers of their partitions. Number 1
// was a store that was dropped.
func goldenTenants() map[uint32]string {
	return map[uint32]string{0: "one", 2: "café", 3: "cafe\u0301"}
}

type goldenDB struct {
	goldenStore
	Stores []goldenTenant `json:"stores"`
}

type goldenTenant struct {
	Name        string        `json:"name"`
	Number      uint32        `json:"number"`
	ID          hexBytes      `json:"id"`
	Fingerprint string        `json:"fingerprint"`
	StoreSecret hexBytes      `json:"store_secret"`
	Blocks      []goldenBlock `json:"blocks"`
}

func goldenDBOptions(fs vfs.FS) *DBOptions {
	o := goldenOptions(fs)
	return &DBOptions{Pebble: o.Pebble, Clock: o.Keyring.Clock, RecordCache: 1 << 16}
}

func readGoldenDB(t testing.TB) (g goldenDB) {
	b, err := os.ReadFile(filepath.Join(goldenDir, "golden-3.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &g))
	require.Len(t, g.Stores, 3)
	return g
}

func writeGoldenDB(t *testing.T) {
	ctx := t.Context()
	g := goldenDB{goldenStore: goldenStore{Dir: "stores-3"}}
	o, k := goldenOptions(vfs.NewMem()), goldenKEK(t)
	open := func() *DB {
		d, err := OpenDB(ctx, g.Dir, goldenDBOptions(o.Pebble.FS))
		require.NoError(t, err)
		return d
	}
	d := open()
	for _, name := range []string{"one", "dropped", "café", "cafe\u0301"} {
		o.Keyring.Wrapping = keyring.ByKeyring
		if name == "café" {
			o.Keyring.Wrapping = keyring.ByKEK
		}
		s, err := d.Create(ctx, name, k, o)
		require.NoError(t, err)
		for _, id := range []string{"block 1", "block 2"} {
			require.NoError(t, s.Put(ctx, []byte(id), []byte(name+"'s "+id)))
		}
	}
	_, err := d.Drop(ctx, "dropped")
	require.NoError(t, err)
	require.NoError(t, d.Close())
	d = open() // moves what is in the log into tables; two of them are open when it is closed
	for number, name := range goldenTenants() {
		s, err := d.Open(ctx, name, k, o)
		require.NoError(t, err)
		id, secret := s.StoreID(), goldenSecret(t, s)
		in := goldenTenant{Name: name, Number: number, ID: id[:], Fingerprint: s.Fingerprint(), StoreSecret: secret}
		for b, err := range s.Blocks(ctx, Range{}) {
			require.NoError(t, err)
			in.Blocks = append(in.Blocks, goldenBlock{ID: bytes.Clone(b.ID), Data: bytes.Clone(b.Data), DEK: goldenDEK(t, s, b.ID)})
		}
		g.Stores = append(g.Stores, in)
		if number == 0 {
			require.NoError(t, s.Close())
		}
	}
	slices.SortFunc(g.Stores, func(a, b goldenTenant) int { return int(a.Number) - int(b.Number) })
	require.NoError(t, d.Close())
	g.keep(t, o.Pebble.FS)
	g.Pairs = rawPairs(t, g.goldenStore)
	require.NoError(t, os.WriteFile(filepath.Join(goldenDir, goldenExport), g.export(t), 0o644))
	out, err := json.MarshalIndent(g, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(goldenDir, "golden-3.json"), append(out, '\n'), 0o644))
}

// export is an export of the golden directory's second store.
func (g goldenDB) export(t testing.TB) []byte {
	d, err := OpenDB(t.Context(), g.Dir, goldenDBOptions(copyGolden(t, g.goldenStore)))
	require.NoError(t, err)
	var out bytes.Buffer
	_, err = d.Export(t.Context(), "café", &out)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	return out.Bytes()
}

// value returns the value of a key of a partition.
func (g goldenDB) value(space byte, number uint32, id string) []byte {
	for _, p := range g.Pairs {
		if bytes.Equal(p.Key, appendKey(nil, space, number, []byte(id))) {
			return p.Value
		}
	}
	return nil
}

// The directory opens, each store under its name and with its blocks, and what it exports is the golden
// export, byte for byte, which another DB imports.
func TestGoldenDB(t *testing.T) {
	if *update {
		writeGoldenDB(t)
	}
	ctx, g := t.Context(), readGoldenDB(t)
	require.Equal(t, g.Pairs, rawPairs(t, g.goldenStore))
	want, err := os.ReadFile(filepath.Join(goldenDir, goldenExport))
	require.NoError(t, err)
	require.Equal(t, want, g.export(t))

	fs := copyGolden(t, g.goldenStore)
	elsewhere, err := OpenDB(ctx, "elsewhere", goldenDBOptions(fs))
	require.NoError(t, err)
	m, err := elsewhere.Import(ctx, bytes.NewReader(want))
	require.NoError(t, err)
	require.Equal(t, "café", m.Name)
	d, err := OpenDB(ctx, g.Dir, goldenDBOptions(fs))
	require.NoError(t, err)
	for _, in := range g.Stores {
		for _, db := range []*DB{d, elsewhere} {
			o := goldenOptions(fs)
			o.RequireAccess = false
			s, err := db.Open(ctx, in.Name, goldenKEK(t), o)
			if db == elsewhere && in.Name != m.Name {
				require.ErrorIs(t, err, ErrNoStore)
				continue
			}
			require.NoError(t, err)
			if db == elsewhere {
				require.NoError(t, s.Revalidate(ctx))
			}
			require.Equal(t, in.Fingerprint, s.Fingerprint())
			require.Equal(t, hex.EncodeToString(in.ID), s.StoreID().String())
			for _, b := range in.Blocks {
				got, err := s.Get(ctx, b.ID, nil)
				require.NoError(t, err)
				require.Equal(t, []byte(b.Data), got)
			}
			require.NoError(t, s.RotateEpoch(ctx, nil))
			rep, err := s.Verify(ctx, nil)
			require.NoError(t, err)
			require.EqualValues(t, len(in.Blocks), rep.Blocks)
		}
	}
	require.NoError(t, d.Close())
	require.NoError(t, elsewhere.Close())
}

// TestDBLayout reads the golden directory by docs/format.md, not by the codecs.
func TestDBLayout(t *testing.T) {
	g := readGoldenDB(t)
	tagBy := func(secret []byte, name, content string) string {
		key := hmac.New(sha256.New, secret)
		key.Write([]byte("blockseal tag v1 " + name))
		m := hmac.New(sha256.New, key.Sum(nil))
		m.Write([]byte(content))
		return string(m.Sum(nil))
	}
	// The identity file: two of the stores were open when the directory was closed.
	lines := strings.SplitAfter(g.Identity, "\n")
	require.Equal(t, []string{"state closed\n", "path \"stores-3\"\n", "stores 4\n"}, lines[2:5])
	listed, _, _ := strings.Cut(g.Identity, "tag ")
	want := listed + fmt.Sprintf("tag 2 %x\ntag 3 %x\n", tagBy(g.Stores[1].StoreSecret, "identity", listed), tagBy(g.Stores[2].StoreSecret, "identity", listed))
	require.Equal(t, want+fmt.Sprintf("sha256 %x\n", sha256.Sum256([]byte(want))), g.Identity)

	// The catalogue.
	rows := map[string]string{}
	for _, p := range g.Pairs {
		if bytes.HasPrefix(p.Key, []byte("\x01\xff\xff\xff\xff")) {
			rows[string(p.Key[5:])] = string(p.Value)
		}
	}
	require.Equal(t, "\x01\x00\x00\x00\x04", rows["next"])
	for number, name := range goldenTenants() {
		key := fmt.Sprintf("store/%x", sha256.Sum256([]byte(name)))
		require.Equal(t, "\x01\x02"+string(binary.BigEndian.AppendUint32(nil, number))+name, rows[key])
		e, err := catalogue.Decode([]byte(rows[key]))
		require.NoError(t, err)
		require.Equal(t, rows[key], string(e.Encode()))
		delete(rows, key)
	}
	require.Equal(t, "2026-01-02T03:04:05Z", rows["erased"])
	require.Contains(t, rows["receipt/00000001"], `,"epochs":[],"name":"dropped","dropped":true,"kept":0,`)
	require.Len(t, rows, 3, "and nothing else")

	// The stores: who they are, and that a block is bound to its store's id and to no number.
	directory, err := hex.DecodeString(strings.TrimSpace(strings.TrimPrefix(lines[1], "instance ")))
	require.NoError(t, err)
	for _, in := range g.Stores {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(append([]byte("blockseal instance\x00"), directory...), in.Number))
		require.Equal(t, "\x01"+string(sum[:16]), string(g.value(1, in.Number, "instance")))
		require.Equal(t, "\x02"+tagBy(in.StoreSecret, "name", in.Name)+in.Name, string(g.value(1, in.Number, "name")))
		require.Equal(t, "\x01"+string(in.ID), string(g.value(1, in.Number, "store")))
		require.Equal(t, string(in.ID), string(g.value(1, in.Number, "keyring")[14:30]))
		for _, b := range in.Blocks {
			value := g.value(3, in.Number, string(b.ID))
			aead, err := dek.NewAEAD(b.DEK)
			require.NoError(t, err)
			got, err := aead.Open(nil, value[1:], slices.Concat([]byte{1}, in.ID, b.ID))
			require.NoError(t, err)
			require.Equal(t, []byte(b.Data), got)
		}
	}

	// The export: what is in the partition, in order, in frames.
	var stream bytes.Buffer
	frame := func(kind byte, content ...[]byte) {
		all := slices.Concat(content...)
		stream.WriteByte(kind)
		stream.Write(binary.BigEndian.AppendUint32(nil, uint32(len(all))))
		stream.Write(all)
	}
	stream.WriteString("blockseal export\x01")
	in, counts := g.Stores[1], [2]uint64{}
	for _, p := range g.Pairs {
		if p.Key[0] == 1 && binary.BigEndian.Uint32(p.Key[1:]) == in.Number {
			frame('M', []byte{byte(len(p.Key) - 5)}, p.Key[5:], p.Value)
			counts[0]++
		}
	}
	for _, b := range in.Blocks {
		record := g.value(2, in.Number, string(b.ID))
		frame('R', binary.BigEndian.AppendUint16(nil, uint16(len(b.ID))), binary.BigEndian.AppendUint16(nil, uint16(len(record))), b.ID, record, g.value(3, in.Number, string(b.ID)))
		counts[1]++
	}
	sum := sha256.Sum256(stream.Bytes())
	frame('E', binary.BigEndian.AppendUint64(nil, counts[0]), binary.BigEndian.AppendUint64(nil, counts[1]), sum[:])
	golden, err := os.ReadFile(filepath.Join(goldenDir, goldenExport))
	require.NoError(t, err)
	require.Equal(t, golden, stream.Bytes())
}
