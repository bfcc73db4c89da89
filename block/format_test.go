package block

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/rewrite"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// TestGoldenStoreOpens: a store that a release wrote opens, reads, and can be
// changed and rotated.
func TestGoldenStoreOpens(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	for _, g := range readGolden(t) {
		t.Run(g.Dir, func(t *testing.T) {
			ctx := t.Context()
			fs := copyGolden(t, g)
			check := func(s *Store) {
				i := 0
				for b, err := range s.Blocks(ctx, Range{}) {
					require.NoError(t, err)
					require.Equal(t, []byte(g.Blocks[i].ID), b.ID)
					require.True(t, bytes.Equal(g.Blocks[i].Data, b.Data))
					got, err := s.Get(ctx, b.ID, nil)
					require.NoError(t, err)
					require.True(t, bytes.Equal(g.Blocks[i].Data, got))
					i++
				}
				require.Len(t, g.Blocks, i)
				_, err := s.Verify(ctx, nil)
				require.NoError(t, err)
			}
			s, err := Open(ctx, g.Dir, goldenKEK(t), goldenOptions(fs))
			require.NoError(t, err)
			check(s)
			copies, err := s.Copies(ctx)
			require.NoError(t, err)
			require.Len(t, copies, 1)
			require.Equal(t, "/backup/1", copies[0].Path)
			require.NoError(t, s.RotateEpoch(ctx, nil))
			require.NoError(t, s.Rekey(ctx, Range{}, nil))
			require.NoError(t, s.keys.RotateKEK(ctx))
			check(s)
			require.NoError(t, s.Close())
			s, err = Open(ctx, g.Dir, goldenKEK(t), goldenOptions(fs))
			require.NoError(t, err)
			check(s)
			require.NoError(t, s.Close())
		})
	}
}

// TestStoreLayout reads the golden stores by the offsets of docs/format.md, not by
// this package's codecs.
func TestStoreLayout(t *testing.T) {
	for _, g := range readGolden(t) {
		t.Run(g.Dir, func(t *testing.T) {
			require.Equal(t, g.Pairs, rawPairs(t, g))
			body, last, _ := strings.Cut(g.Identity, "sha256 ")
			require.Equal(t, fmt.Sprintf("%x\n", sha256.Sum256([]byte(body))), last)
			lines := strings.Split(body, "\n")
			require.Equal(t, "blockseal store 3", lines[0])
			require.Regexp(t, "^instance [0-9a-f]{32}$", lines[1])
			require.Equal(t, []string{"state closed", fmt.Sprintf("path %q", g.Dir), "stores 1"}, lines[2:5])
			require.Regexp(t, "^log [1-9][0-9]*$", lines[5])
			require.Regexp(t, "^manifest [1-9][0-9]*$", lines[6])
			there, err := os.ReadDir(filepath.Join(goldenDir, g.Dir)) // by ascending names
			require.NoError(t, err)
			rest := lines[7:]
			for _, f := range there {
				if f.Name() == "LOCK" || f.Name() == "BLOCKSEAL" || strings.HasSuffix(f.Name(), ".sst") || strings.HasSuffix(f.Name(), ".blob") {
					continue
				}
				content, err := os.ReadFile(filepath.Join(goldenDir, g.Dir, f.Name()))
				require.NoError(t, err)
				require.Equal(t, fmt.Sprintf("file %d %x %s", len(content), sha256.Sum256(content), f.Name()), rest[0])
				rest = rest[1:]
			}
			require.Regexp(t, "^tag 0 [0-9a-f]{64}$", rest[0])
			require.Equal(t, []string{""}, rest[1:])
			directory, err := hex.DecodeString(lines[1][len("instance "):])
			require.NoError(t, err)
			sum := sha256.Sum256(append(append([]byte("blockseal instance\x00"), directory...), 0, 0, 0, 0))
			instance := hex.EncodeToString(sum[:16]) // of the store in partition 0

			record, sealed := map[string][]byte{}, map[string][]byte{}
			meta, listed := map[string][]byte{}, map[string]string{}
			for _, p := range g.Pairs {
				if bytes.HasPrefix(p.Key, []byte{1, 0xff, 0xff, 0xff, 0xff}) {
					listed[string(p.Key[5:])] = string(p.Value)
					continue
				}
				switch p.Key[0] {
				case 1:
					require.Equal(t, []byte{0, 0, 0, 0}, []byte(p.Key[1:5]))
					meta[string(p.Key[5:])] = p.Value
				case 2:
					require.Equal(t, []byte{0, 0, 0, 0}, []byte(p.Key[1:5]))
					record[string(p.Key[5:])] = p.Value
				case 3:
					require.Equal(t, []byte{0, 0, 0, 0}, []byte(p.Key[1:5]))
					sealed[string(p.Key[5:])] = p.Value
				default:
					t.Fatalf("a key in space %d", p.Key[0])
				}
			}
			require.Equal(t, append([]byte{1}, g.StoreID...), meta["store"])
			require.Equal(t, "BSKEYRNG", string(meta["keyring"][:8]))
			require.Equal(t, []byte(g.StoreID), meta["keyring"][14:30])
			name := sha256.Sum256([]byte("default"))
			require.Equal(t, map[string]string{"next": "\x01\x00\x00\x00\x01", "store/" + hex.EncodeToString(name[:]): "\x01\x02\x00\x00\x00\x00default"}, listed)
			require.Equal(t, "\x01"+string(sum[:16]), string(meta["instance"]))
			require.Equal(t, "default", string(meta["name"][33:]))

			// version | epoch | work | start | end | next
			require.Equal(t, "\x01\x00\x00\x00\x63"+strings.Repeat("\x00", 16)+"\x00\x00\x00\x05block"+"\x00\x00\x00\x07block 9"+"\x00\x00\x00\x07block 2", string(meta["rotate-epoch"]))
			require.Equal(t, "\x01\x00\x00\x00\x00"+"0123456789abcdef"+"\x00\x00\x00\x05block"+"\xff\xff\xff\xff"+"\x00\x00\x00\x07block 2", string(meta["rekey"]))
			requireRegister(t, meta, instance, "\x00"+ // nothing is missing
				"\x00\x01"+"\x00\x00\x00\x00\x00\x00\x00\x00"+string(goldenPublicBytes(t))+"\x00\x2chttps://golden.vault.example/keys/customer/1"+
				"\x00\x01"+"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"+"\x01"+"\x00\x00\x00\x00\x69\x57\x35\xa5"+
				"\x00\x00\x00\x00\x00\x00\x00\x02"+"\x09"+strings.Repeat("\x00", 31)+"\x00\x2chttps://golden.vault.example/keys/customer/1"+
				"\x00\x00"+"\x00\x00\x00\x09/backup/1")

			require.Len(t, record, len(g.Blocks))
			require.Len(t, sealed, len(g.Blocks))
			for _, b := range g.Blocks {
				value := sealed[string(b.ID)]
				require.Len(t, value, 1+12+len(b.Data)+16)
				require.EqualValues(t, 1, value[0])
				aad := bytes.Join([][]byte{{1}, g.StoreID, b.ID}, nil)
				aead, err := dek.NewAEAD(b.DEK)
				require.NoError(t, err)
				got, err := aead.Open(nil, value[1:], aad)
				require.NoError(t, err)
				require.True(t, bytes.Equal(b.Data, got))
				require.Contains(t, []int{65, 325}, len(record[string(b.ID)]))
				require.EqualValues(t, 2, binary.BigEndian.Uint32(record[string(b.ID)][1:]), "the epoch")
			}
		})
	}
}

// requireRegister requires that the register is of the instance and the keyring document,
// and goes on as given.
func requireRegister(t *testing.T, meta map[string][]byte, instance, rest string) {
	t.Helper()
	got := string(meta["register"])
	require.Equal(t, "\x02", got[:1])
	got = got[1+32:] // what was tagged
	require.Equal(t, "\x01", got[:1])
	require.Equal(t, instance, hex.EncodeToString([]byte(got[1:17])))
	require.Equal(t, string(meta["keyring"][30:38]), got[17:25], "the document's generation")
	require.Equal(t, rest, got[25:])
}

func goldenPublicBytes(t *testing.T) []byte {
	public := goldenPublic(t)
	return public[:]
}

// TestGoldenReencodes: what is not random comes out of the encoders byte for byte.
func TestGoldenReencodes(t *testing.T) {
	for _, g := range readGolden(t) {
		for _, p := range g.Pairs {
			require.Equal(t, []byte(p.Key), appendKey(nil, p.Key[0], binary.BigEndian.Uint32(p.Key[1:]), p.Key[prefixSize:]))
		}
		block, end, next := []byte("block"), []byte("block 9"), []byte("block 2")
		for name, want := range map[string]rewrite.Marker{
			rewrite.MarkerRotateEpoch: {Epoch: 99, Start: block, End: end, Next: next},
			rewrite.MarkerRekey:       {Work: inner.WorkID([]byte("0123456789abcdef")), Start: block, Next: next},
		} {
			m, err := rewrite.DecodeMarker(g.meta(name))
			require.NoError(t, err)
			require.Equal(t, want, m)
			require.Equal(t, g.meta(name), want.Encode())
		}
		s := openGolden(t, g)
		_, record, ok := tagged.Split(g.meta(register.Name))
		require.True(t, ok)
		r, err := register.Decode(record)
		require.NoError(t, err)
		require.Equal(t, register.Register{Instance: s.storage.Own, Generation: r.Generation,
			Past: register.PastKEKs{KEKs: []register.PastKEK{{ID: goldenID("1"), Public: goldenPublic(t)}}}, Copies: []register.Entry{goldenEntry(goldenID("1"))}}, r)
		require.Equal(t, record, r.Encode())
	}
}

// TestEveryBitOfABlock: no bit of a sealed block or of its record can be turned
// over, and neither can stand in for another's.
func TestEveryBitOfABlock(t *testing.T) {
	stores := readGolden(t)
	for n, g := range stores {
		s := openGolden(t, g)
		refused := func(id, record, value []byte) {
			_, err := s.opens(t, id, record, value)
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion), "%q: %v", id, err)
		}
		for i, b := range g.Blocks {
			record, value := g.value(spaceDEK, b.ID), g.value(spaceData, b.ID)
			got, err := s.opens(t, b.ID, record, value)
			require.NoError(t, err)
			require.True(t, bytes.Equal(b.Data, got))
			for _, bad := range [][]byte{record, value} {
				for at := range bad {
					for bit := range 8 {
						if len(bad) > 300 && bit != at%8 {
							continue // one bit of each byte of the large ones
						}
						bad[at] ^= 1 << bit
						refused(b.ID, record, value)
						bad[at] ^= 1 << bit
					}
				}
			}
			for cut := range min(len(value), 40) {
				refused(b.ID, record, value[:cut])
			}
			other := g.Blocks[(i+1)%len(g.Blocks)]
			refused(other.ID, record, value)
			refused(b.ID, g.value(spaceDEK, other.ID), value)
			refused(b.ID, record, g.value(spaceData, other.ID))
			foreign := stores[1-n]
			if r := foreign.value(spaceDEK, b.ID); r != nil {
				refused(b.ID, r, foreign.value(spaceData, b.ID))
				refused(b.ID, record, foreign.value(spaceData, b.ID))
			}
		}
	}
}

// opens opens a sealed block with a record as Get does once it has found them.
func (s *Store) opens(t testing.TB, id, record, value []byte) ([]byte, error) {
	h, err := s.keys.Acquire()
	require.NoError(t, err)
	defer func() { h.Release() }()
	return s.table.Open(t.Context(), &h, row.Pair{ID: id, Record: record, Value: value}, nil)
}

// A golden record is found by the cache as it is in the engine.
func TestRecordSizes(t *testing.T) {
	for _, g := range readGolden(t) {
		want := map[string]int{"by-keyring": keyring.RecordSize, "by-kek": keyring.RecordSizeByKEK}[g.Dir]
		for _, b := range g.Blocks {
			require.Len(t, g.value(spaceDEK, b.ID), want)
		}
	}
}
