package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/vault"
)

// TestGoldenOpens: what a release wrote opens, to the values that it was made of.
func TestGoldenOpens(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	g := readGolden(t)
	customer, _ := goldenKEKs(t)
	for _, d := range g.Documents {
		t.Run(d.File, func(t *testing.T) {
			document := readDocument(t, d.File)
			in, err := Inspect(document)
			require.NoError(t, err)
			require.Equal(t, hex.EncodeToString(d.StoreID), in.StoreID.String())
			require.Equal(t, d.Generation, in.Generation)
			require.Len(t, in.KEKs, len(d.KEKs))
			for _, k := range d.KEKs {
				require.Equal(t, k.Key, in.KEKs[k.ID].String())
			}
			require.Equal(t, in.KEKs[d.Active], in.KEK)

			r, err := openGolden(t, customer, document)
			require.NoError(t, err)
			require.Equal(t, d.Fingerprint, r.Fingerprint())
			require.Equal(t, Wrapping(d.Wrapping), r.Wrapping())
			for _, rec := range g.Records {
				if rec.Document != d.File {
					continue
				}
				key, err := r.OpenDEK(t.Context(), rec.Record, rec.Context)
				require.NoError(t, err, rec.Name)
				require.Equal(t, []byte(rec.DEK), key.Bytes(), rec.Name)
				key.Destroy()
			}
		})
	}
}

// TestDocumentLayout reads the golden documents by the offsets of docs/format.md,
// not by this package's decoder.
func TestDocumentLayout(t *testing.T) {
	for _, d := range readGolden(t).Documents {
		t.Run(d.File, func(t *testing.T) {
			doc := readDocument(t, d.File)
			u16 := func(at int) int { return int(binary.BigEndian.Uint16(doc[at:])) }
			u32 := func(at int) uint32 { return binary.BigEndian.Uint32(doc[at:]) }
			require.Equal(t, "BSKEYRNG", string(doc[0:8]))
			require.Equal(t, 1, u16(8))
			h := int(u32(10))
			require.Equal(t, []byte(d.StoreID), doc[14:30])
			require.Equal(t, d.Generation, binary.BigEndian.Uint64(doc[30:]))
			require.Equal(t, d.Active, u32(38))
			require.Equal(t, len(d.KEKs), u16(42))
			at := 44
			for _, k := range d.KEKs {
				require.Equal(t, k.ID, u32(at))
				require.Equal(t, k.Records, doc[at+4])
				require.Equal(t, []byte(k.Fingerprint), doc[at+5:at+37])
				n := u16(at + 37)
				require.Equal(t, k.Key, string(doc[at+39:at+39+n]))
				at += 39 + n
			}
			require.Equal(t, 256, u16(at))
			require.Equal(t, at+2+256, h, "the sealed body starts after the wrapped secret")
			require.Len(t, doc, h+12+103+52*len(d.Epochs)+16)

			aead, err := dek.NewAEAD(d.Secret)
			require.NoError(t, err)
			body, err := aead.Open(nil, doc[h:], doc[:h])
			require.NoError(t, err, "the AAD is everything before H")
			require.Equal(t, []byte(d.StoreSecret), body[0:32])
			require.Equal(t, d.Wrapping, body[32])
			require.Equal(t, d.EpochMaxDEKs, binary.BigEndian.Uint64(body[33:]))
			require.Equal(t, d.EpochMaxAge, binary.BigEndian.Uint64(body[41:]))
			require.Equal(t, d.RekeyAfter, binary.BigEndian.Uint64(body[49:]))
			require.Equal(t, d.NextEpoch, binary.BigEndian.Uint32(body[57:]))
			require.EqualValues(t, len(d.Epochs), binary.BigEndian.Uint16(body[101:]))
			require.Equal(t, d.NextKEK, binary.BigEndian.Uint32(body[97:]))
			require.Equal(t, []byte(d.Work), body[61:77])
			require.Equal(t, []byte(d.Instance), body[77:93])
			require.Equal(t, d.Shared, binary.BigEndian.Uint32(body[93:]))
			for i, e := range d.Epochs {
				q := body[103+52*i:]
				require.Equal(t, e.ID, binary.BigEndian.Uint32(q))
				require.EqualValues(t, e.Created, binary.BigEndian.Uint64(q[4:]))
				require.Equal(t, e.DEKs, binary.BigEndian.Uint64(q[12:]))
				require.Equal(t, []byte(e.Key), q[20:52])
			}

			sum := sha256.Sum256(append([]byte("blockseal fingerprint v1"), d.StoreSecret...))
			require.Equal(t, d.Fingerprint, hex.EncodeToString(sum[:]))
		})
	}
}

// TestRecordLayout reads the golden DEK records by the offsets of docs/format.md.
func TestRecordLayout(t *testing.T) {
	g := readGolden(t)
	types := map[uint8]int{}
	for _, rec := range g.Records {
		t.Run(rec.Name, func(t *testing.T) {
			types[rec.Type]++
			d := g.document(rec.Document)
			require.Equal(t, rec.Type, rec.Record[0])
			require.Equal(t, rec.Epoch, binary.BigEndian.Uint32(rec.Record[1:]))
			head := 5
			if rec.Type == 2 {
				head = 9
				require.Equal(t, rec.KEK, binary.BigEndian.Uint32(rec.Record[5:]))
				require.Len(t, rec.Record, 325)
			} else {
				require.Len(t, rec.Record, 65)
			}
			aad := bytes.Join([][]byte{rec.Record[:head], d.StoreID, rec.Context}, nil)
			require.Equal(t, []byte(rec.AAD), aad)

			var key []byte
			for _, e := range d.Epochs {
				if e.ID == rec.Epoch {
					key = e.Key
				}
			}
			aead, err := dek.NewAEAD(key)
			require.NoError(t, err)
			plain, err := aead.Open(nil, rec.Record[head:], aad)
			require.NoError(t, err)
			if rec.Type == 1 {
				require.Equal(t, []byte(rec.DEK), plain)
				return
			}
			require.Len(t, plain, 256+32)
			sum := sha256.Sum256(append([]byte("blockseal DEK commitment v1"), rec.DEK...))
			require.Equal(t, sum[:], plain[256:])
			customer, _ := goldenKEKs(t)
			for _, k := range d.KEKs {
				if k.ID != rec.KEK {
					continue
				}
				id, err := vault.ParseKeyID(k.Key)
				require.NoError(t, err)
				got, err := customer.Unwrap(t.Context(), vault.Wrapped{KeyID: id, Ciphertext: plain[:256]})
				require.NoError(t, err)
				require.Equal(t, []byte(rec.DEK), got)
			}
		})
	}
	require.Greater(t, types[1], 1)
	require.Greater(t, types[2], 1)
}

// TestGoldenReencodes: everything about the golden files that is not random comes
// out of the encoders byte for byte, and out of the decoders value for value.
func TestGoldenReencodes(t *testing.T) {
	g := readGolden(t)
	for _, d := range g.Documents {
		doc := readDocument(t, d.File)
		h, aad, sealed, err := splitDocument(doc)
		require.NoError(t, err)
		want := header{storeID: [storeIDSize]byte(d.StoreID), generation: d.Generation, active: d.Active, wrapped: aad[len(aad)-256:]}
		for _, k := range d.KEKs {
			id, err := vault.ParseKeyID(k.Key)
			require.NoError(t, err)
			want.keks = append(want.keks, kekEntry{id: k.ID, records: k.Records == 1, key: id, fingerprint: [32]byte(k.Fingerprint)})
		}
		require.Equal(t, want, h)
		require.Equal(t, aad, want.encode())
		require.Equal(t, doc, append(want.encode(), sealed...))

		b, err := openBody(sealed, (*[secretSize]byte)(d.Secret), aad)
		require.NoError(t, err)
		aead, err := dek.NewAEAD(d.Secret)
		require.NoError(t, err)
		plain, err := aead.Open(nil, sealed, aad)
		require.NoError(t, err)
		content := &body{
			storeSecret: [storeSecretSize]byte(d.StoreSecret),
			policy: policy{wrapping: Wrapping(d.Wrapping), maxDEKs: d.EpochMaxDEKs,
				maxAge: time.Duration(d.EpochMaxAge) * time.Second, rekeyAfter: time.Duration(d.RekeyAfter) * time.Second},
			nextEpoch: d.NextEpoch, work: inner.WorkID(d.Work), instance: inner.InstanceID(d.Instance), shared: d.Shared, nextKEK: d.NextKEK,
		}
		for _, e := range d.Epochs {
			content.epochs = append(content.epochs, epochKey{id: e.ID, created: time.Unix(e.Created, 0).UTC(), reserved: e.DEKs, key: [dek.Size]byte(e.Key)})
		}
		require.Equal(t, content, b)
		require.Equal(t, plain, content.encode())
		require.Equal(t, d.Fingerprint, b.fingerprint())
	}
	for _, rec := range g.Records {
		in, err := ParseRecord(rec.Record)
		require.NoError(t, err)
		require.Equal(t, RecordInfo{Wrapping: Wrapping(rec.Type), Epoch: rec.Epoch, KEK: rec.KEK}, in)
		var b Binding
		b.Set(rec.Context)
		got := b.aad(in, (*[storeIDSize]byte)(g.document(rec.Document).StoreID))
		require.Equal(t, []byte(rec.AAD), got)
		head := make([]byte, in.headSize())
		in.putHead(head)
		require.Equal(t, []byte(rec.Record[:len(head)]), head)
	}
}

var everyBit = flag.Bool("everybit", false, "open a keyring with every bit of its document flipped, and not only a sample of them")

// TestEveryBit: no single bit of a document or a record can be turned over.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	g := readGolden(t)
	customer, _ := goldenKEKs(t)
	flipped := func(b []byte, f func(b []byte, at, bit int)) {
		b = bytes.Clone(b)
		for at := range b {
			for bit := range 8 {
				b[at] ^= 1 << bit
				f(b, at, bit)
				b[at] ^= 1 << bit
			}
		}
	}
	for _, d := range g.Documents {
		flipped(readDocument(t, d.File), func(doc []byte, at, bit int) {
			_, aad, sealed, err := splitDocument(doc)
			if err == nil {
				_, err = openBody(sealed, (*[secretSize]byte)(d.Secret), aad)
			}
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion), "%s, byte %d, bit %d: %v", d.File, at, bit, err)
			// A sample, since the vault is slow; all the more with another wrap, of which it says each time
			// the same.
			wrap := at >= len(doc)-len(sealed)-vault.WrappedSize && at < len(doc)-len(sealed)
			if *everyBit || bit == at%8 && (!wrap || at%3 == 0) {
				r, err := openGolden(t, customer, doc)
				require.Error(t, err)
				require.Nil(t, r)
			}
		})
	}
	for _, rec := range g.Records {
		r, err := openGolden(t, customer, readDocument(t, rec.Document))
		require.NoError(t, err)
		refused := func(record, context []byte) {
			_, err := r.OpenDEK(t.Context(), record, context)
			require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion), "%s: %v", rec.Name, err)
		}
		calls := r.VaultCalls()
		flipped(rec.Record, func(b []byte, _, _ int) { refused(b, rec.Context) })
		flipped(rec.Context, func(b []byte, _, _ int) { refused(rec.Record, b) })
		require.Equal(t, calls, r.VaultCalls(), "the vault is asked about genuine records alone")
	}
}
