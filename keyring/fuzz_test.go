package keyring

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
)

// damage is what every decoder says of bytes that it cannot read.
func damage(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) }

// FuzzRecord holds that the clear part of a record re-encodes to itself, and that
// no record opens but a genuine one, for its own context.
func FuzzRecord(f *testing.F) {
	g := readGolden(f)
	customer, _ := goldenKEKs(f)
	const document = "grown.bin"
	r, err := openGolden(f, customer, readDocument(f, document))
	require.NoError(f, err)
	type sealed struct{ record, context string }
	genuine := map[sealed]hexBytes{}
	for _, rec := range g.Records {
		f.Add([]byte(rec.Record), []byte(rec.Context))
		f.Add([]byte(rec.Record), append([]byte{0}, rec.Context...))
		f.Add([]byte(rec.Record[:len(rec.Record)-1]), []byte(rec.Context))
		if rec.Document == document {
			genuine[sealed{string(rec.Record), string(rec.Context)}] = rec.DEK
		}
	}
	f.Add([]byte{}, []byte{})
	f.Add(make([]byte, RecordSize), []byte{})
	f.Add(append([]byte{typeByKEK, 0, 0, 0, 3, 0, 0, 0, 9}, make([]byte, RecordSizeByKEK-headByKEK)...), []byte{})
	f.Fuzz(func(t *testing.T, record, context []byte) {
		in, err := ParseRecord(record)
		if err != nil {
			require.True(t, damage(err), "%v", err)
		} else {
			head := make([]byte, in.headSize())
			in.putHead(head)
			require.Equal(t, record[:len(head)], head)
			require.Len(t, record, map[Wrapping]int{ByKeyring: RecordSize, ByKEK: RecordSizeByKEK}[in.Wrapping])
		}

		before := r.VaultCalls()
		key, err := r.OpenDEK(t.Context(), record, context)
		want, ok := genuine[sealed{string(record), string(context)}]
		if ok {
			require.NoError(t, err)
			require.Equal(t, []byte(want), key.Bytes())
			key.Destroy()
			return
		}
		require.True(t, damage(err), "%v", err)
		require.Nil(t, key)
		require.Equal(t, before, r.VaultCalls(), "the vault is asked about genuine records alone")

		h, err := r.Acquire()
		require.NoError(t, err)
		defer h.Release()
		var b Binding
		b.Set(context)
		require.True(t, damage(h.For(inner.Block{}).CheckRecord(t.Context(), record, &b)))
	})
}

// FuzzDocument holds that a document that can be split comes out of the encoder
// byte for byte, and that no document opens but those that a keyring has saved.
func FuzzDocument(f *testing.F) {
	g := readGolden(f)
	customer, _ := goldenKEKs(f)
	genuine := map[string]bool{}
	for _, d := range g.Documents {
		doc := readDocument(f, d.File)
		genuine[string(doc)] = true
		f.Add(doc)
		f.Add(doc[:len(doc)-1])
		f.Add(append(bytes.Clone(doc), 0))
		f.Add(doc[:fixedHeader])
		size := binary.BigEndian.Uint32(doc[10:])
		f.Add(append(bytes.Clone(doc[:size]), make([]byte, dek.Overhead+fixedBody+epochEntry)...))
		newer := bytes.Clone(doc)
		newer[9]++
		f.Add(newer)
	}
	f.Add([]byte{})
	f.Add([]byte(documentMagic))
	f.Fuzz(func(t *testing.T, doc []byte) {
		h, aad, sealed, err := splitDocument(doc)
		in, inspectErr := Inspect(doc)
		if err != nil {
			require.True(t, damage(err), "%v", err)
			require.True(t, damage(inspectErr))
			_, err := openGolden(t, customer, doc)
			require.True(t, damage(err), "%v", err)
			return
		}
		require.NoError(t, inspectErr)
		require.Equal(t, aad, h.encode())
		require.Equal(t, doc, append(h.encode(), sealed...))
		require.Equal(t, h.current().key, in.KEK)
		require.Equal(t, len(h.keks), len(in.KEKs))
		require.Equal(t, len(doc), in.Size)

		// What the vault would unwrap is d.Secret, whatever the document says.
		for _, d := range g.Documents {
			if b, err := openBody(sealed, (*[secretSize]byte)(d.Secret), aad); err == nil {
				require.True(t, genuine[string(doc)], "a document that nobody sealed has opened")
				b.destroy()
			} else {
				require.True(t, damage(err), "%v", err)
			}
		}
	})
}

// FuzzBody holds that what decodes as a body re-encodes to the same bytes: there is
// one encoding of every keyring.
func FuzzBody(f *testing.F) {
	for _, d := range readGolden(f).Documents {
		_, aad, sealed, err := splitDocument(readDocument(f, d.File))
		require.NoError(f, err)
		b, err := openBody(sealed, (*[secretSize]byte)(d.Secret), aad)
		require.NoError(f, err)
		p := b.encode()
		f.Add(p)
		f.Add(p[:fixedBody])
		f.Add(append(p, 0))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := decodeBody(p)
		if err != nil {
			require.True(t, damage(err), "%v", err)
			return
		}
		require.Equal(t, p, b.encode())
		require.Positive(t, b.policy.maxDEKs)
		for i, e := range b.epochs {
			require.Less(t, e.id, b.nextEpoch)
			require.True(t, i == 0 || b.epochs[i-1].id < e.id)
		}
		require.Equal(t, b.epochs[len(b.epochs)-1].id, b.current().id)
		b.destroy()
	})
}
