package place

import (
	"context"
	"encoding/hex"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// All who open an engine that is in no directory have one instance, also those who come at once.
func TestElsewhereIsOneInstance(t *testing.T) {
	e := memory.New()
	meta := e.Partition(1)
	ctx := context.Background()
	_, err := Elsewhere(ctx, meta, "there", true)
	require.ErrorIs(t, err, ErrNotStore)
	var all sync.WaitGroup
	got := make([]inner.InstanceID, 8)
	for i := range got {
		all.Go(func() {
			p, err := Elsewhere(ctx, meta, "there", false)
			if err == nil {
				got[i] = p.Instance()
			}
		})
	}
	all.Wait()
	require.NotZero(t, got[0])
	for _, id := range got {
		require.Equal(t, got[0], id)
	}
	p, err := Elsewhere(ctx, meta, "there", true)
	require.NoError(t, err)
	require.Equal(t, got[0], p.Instance())
	require.Equal(t, "there", p.Dir())
	require.NoError(t, p.SetStores(3), "nothing is written down")
	require.Zero(t, p.Stores())
	require.NoError(t, p.CheckTag(1, nil))
	require.NoError(t, p.Leave(3, nil))
	require.NoError(t, p.Unlock())
	b, err := engine.ReadMeta(ctx, meta, "elsewhere")
	require.NoError(t, err)
	require.Equal(t, "01"+got[0].String(), hex.EncodeToString(b), "the bytes of docs/format.md")
}

func TestElsewhereRefusesWhatIsNone(t *testing.T) {
	for name, tt := range map[string]struct {
		record []byte
		is     error
	}{
		"empty":         {[]byte{}, keyring.ErrCorrupt},
		"cut off":       {make([]byte, 16), keyring.ErrVersion},
		"short":         {append([]byte{1}, make([]byte, 15)...), keyring.ErrCorrupt},
		"long":          {append([]byte{1}, make([]byte, 17)...), keyring.ErrCorrupt},
		"later version": {append([]byte{2}, make([]byte, 16)...), keyring.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			meta := memory.New().Partition(1)
			require.NoError(t, engine.SetMeta(context.Background(), meta, elsewhereName, tt.record))
			_, err := Elsewhere(context.Background(), meta, "there", false)
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, "there")
		})
	}
}

func FuzzDecodeElsewhere(f *testing.F) {
	f.Add(encodeElsewhere(inner.InstanceID{1}))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := DecodeElsewhere(b)
		if err == nil {
			require.Equal(t, b, encodeElsewhere(id))
		}
	})
}
