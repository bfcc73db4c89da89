package tagged_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// hold returns a hold of a new keyring.
func hold(t *testing.T) *keyring.Hold {
	t.Helper()
	v := vaulttest.New(nil)
	r, err := keyring.Create(t.Context(), &keyring.MemStorage{}, kek.New(v, v.CreateKey("customer").Versionless()), nil)
	require.NoError(t, err)
	h, err := r.Acquire()
	require.NoError(t, err)
	t.Cleanup(func() { h.Release(); require.NoError(t, r.Close()) })
	return &h
}

// A tagged record is read by the keyring that made it, under its own name, as it was made;
// whatever else is there counts as none.
func TestRead(t *testing.T) {
	ctx, h := t.Context(), hold(t)
	part := memory.New().Partition(0)
	genuine, err := tagged.Record(h, "name", []byte("record"))
	require.NoError(t, err)
	require.Len(t, genuine, 1+inner.TagSize+len("record"))
	read := func(h *keyring.Hold, name string, b []byte) (record []byte, found bool) {
		require.NoError(t, engine.SetMeta(ctx, part, name, b))
		record, found, err := tagged.Read(ctx, part, h, name)
		require.NoError(t, err)
		return record, found
	}
	record, found := read(h, "name", genuine)
	require.True(t, found)
	require.Equal(t, "record", string(record))

	none := func(why string, h *keyring.Hold, name string, b []byte) {
		_, found := read(h, name, b)
		require.False(t, found, why)
	}
	none("there is none", h, "name", nil)
	none("of another name", h, "other", genuine)
	none("of another keyring", hold(t), "name", genuine)
	none("longer", h, "name", append(bytes.Clone(genuine), 0))
	for i := range genuine {
		none("cut off", h, "name", genuine[:i])
		for bit := range 8 {
			bad := bytes.Clone(genuine)
			bad[i] ^= 1 << bit
			none("altered", h, "name", bad)
		}
	}
}

// What an engine answers is not taken for a record that is not there.
func TestReadOfAnEngineThatFails(t *testing.T) {
	h, e := hold(t), memory.New()
	part := e.Partition(0)
	require.NoError(t, e.Close())
	_, found, err := tagged.Read(t.Context(), part, h, "name")
	require.ErrorIs(t, err, engine.ErrClosed)
	require.False(t, found)
}

// FuzzSplit holds that what is taken apart goes together again as it was.
func FuzzSplit(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{tagged.Version})
	f.Add(make([]byte, 1+inner.TagSize))
	f.Add(append([]byte{tagged.Version}, make([]byte, inner.TagSize)...))
	f.Add(append([]byte{tagged.Version + 1}, make([]byte, inner.TagSize+9)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		tag, record, ok := tagged.Split(b)
		require.Equal(t, len(b) > inner.TagSize && b[0] == tagged.Version, ok)
		if ok {
			require.Equal(t, b, tagged.Join([inner.TagSize]byte(tag), record))
		}
	})
}

// What needs the keys has none once its hold was let go.
func TestHoldThatWasLetGo(t *testing.T) {
	v := vaulttest.New(nil)
	r, err := keyring.Create(t.Context(), &keyring.MemStorage{}, kek.New(v, v.CreateKey("customer").Versionless()), nil)
	require.NoError(t, err)
	h, err := r.Acquire()
	require.NoError(t, err)
	part := memory.New().Partition(0)
	b, err := tagged.Record(&h, "name", []byte("record"))
	require.NoError(t, err)
	require.NoError(t, engine.SetMeta(t.Context(), part, "name", b))
	h.Release()
	require.NoError(t, r.Close())
	_, err = tagged.Record(&h, "name", []byte("record"))
	require.ErrorContains(t, err, "the record name")
	_, found, err := tagged.Read(t.Context(), part, &h, "name")
	require.Error(t, err)
	require.False(t, found)
}
