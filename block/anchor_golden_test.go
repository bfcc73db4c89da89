package block

import (
	"bytes"
	"crypto/hmac"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tagged"
)

// The record of the sequence number, as it is in docs/format.md: in the golden store
// by-keyring, whose secret makes its tag. The store takes it for its number.
func TestGoldenSequence(t *testing.T) {
	const number = 1<<40 + 7
	path := filepath.Join(goldenDir, "sequence.bin")
	s := openGolden(t, readGolden(t)[0])
	h, err := s.keys.Acquire()
	require.NoError(t, err)
	record := binary.BigEndian.AppendUint64([]byte{1}, number)
	tag, err := h.For(inner.Block{}).Tag("sequence", record)
	want := append(append([]byte{2}, tag[:]...), record...)
	ours, errTag := tagged.Record(&h, metaSequence, record)
	h.Release()
	require.NoError(t, err)
	require.NoError(t, errTag)
	require.Equal(t, want, ours)
	if *update {
		require.NoError(t, os.WriteFile(path, want, 0o644))
	}
	golden, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, golden, want)
	require.Len(t, golden, 42)

	n, got, _, ok := decodeSequence(golden)
	require.True(t, ok)
	require.EqualValues(t, number, n)
	require.True(t, hmac.Equal(tag[:], got))
	open := func(b []byte) uint64 {
		g := readGolden(t)[0]
		fs := copyGolden(t, g)
		o := goldenOptions(fs)
		s, err := Open(t.Context(), g.Dir, goldenKEK(t), o)
		require.NoError(t, err)
		require.NoError(t, engine.SetMeta(t.Context(), s.part, metaSequence, b))
		require.NoError(t, s.Close()) // nothing was changed that is counted: the record stays
		s, err = Open(t.Context(), g.Dir, goldenKEK(t), goldenOptions(fs))
		require.NoError(t, err)
		defer s.Close()
		return s.Sequence()
	}
	require.EqualValues(t, number, open(golden))
	// Altered anywhere, cut off or longer, it counts as none.
	for i := range golden {
		b := bytes.Clone(golden)
		b[i] ^= 0x80
		require.Zero(t, open(b), "byte %d", i)
	}
	require.Zero(t, open(golden[:41]))
	require.Zero(t, open(append(bytes.Clone(golden), 0)))
}
