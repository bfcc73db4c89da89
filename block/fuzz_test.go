package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/rewrite"
	"github.com/blockseal/blockseal/internal/tagged"
)

// damaged is what every decoder says of bytes that it cannot read.
func damaged(err error) bool { return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) }

// FuzzSealedBlock holds that no sealed block opens but a genuine one, with its own
// DEK record, under its own id.
func FuzzSealedBlock(f *testing.F) {
	g := readGolden(f)[0]
	require.Equal(f, "by-keyring", g.Dir)
	s := openGolden(f, g)
	type sealed struct{ id, record, value string }
	genuine := map[sealed][]byte{}
	for i, b := range g.Blocks {
		record, value := g.value(spaceDEK, b.ID), g.value(spaceData, b.ID)
		genuine[sealed{string(b.ID), string(record), string(value)}] = b.Data
		f.Add([]byte(b.ID), record, value)
		f.Add([]byte(b.ID), record, value[:len(value)-1])
		f.Add([]byte(b.ID), record, g.value(spaceData, g.Blocks[(i+1)%len(g.Blocks)].ID))
		f.Add(append([]byte{0}, b.ID...), record, value)
	}
	f.Add([]byte("id"), []byte{}, []byte{})
	f.Add([]byte("id"), []byte{2}, []byte{1})
	f.Fuzz(func(t *testing.T, id, record, value []byte) {
		got, err := s.opens(t, id, record, value)
		if want, ok := genuine[sealed{string(id), string(record), string(value)}]; ok {
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
			return
		}
		require.True(t, damaged(err), "%v", err)
		require.Nil(t, got)
	})
}

// FuzzMeta holds that a record of the meta space that decodes re-encodes to itself: markers
// of long operations, and the sequence number. The register has FuzzRegister.
func FuzzMeta(f *testing.F) {
	for _, g := range append(readGolden(f), readGoldenMeta(f)) {
		for _, p := range g.Pairs {
			if p.Key[0] == spaceMeta {
				f.Add([]byte(p.Value))
				f.Add([]byte(p.Value[:len(p.Value)-1]))
				if _, record, ok := tagged.Split(p.Value); ok {
					f.Add(record)
					f.Add(record[:len(record)-1])
				}
			}
		}
	}
	f.Add([]byte{1})
	f.Add(append([]byte{2}, make([]byte, 41)...))
	f.Add([]byte{2, 0, 0, 0, 0})
	f.Add(append([]byte{1, 0, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 12)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := rewrite.DecodeMarker(b); err == nil {
			require.Equal(t, b, m.Encode())
		} else {
			require.True(t, damaged(err), "%v", err)
		}
		if n, tag, record, ok := decodeSequence(b); ok {
			require.Equal(t, b, append(append([]byte{2}, tag...), record...))
			require.Equal(t, n, binary.BigEndian.Uint64(record[1:]))
		}
	})
}
