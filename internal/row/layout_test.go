package row

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// What a block is bound to, by the offsets of docs/format.md.
func TestWhatABlockIsBoundTo(t *testing.T) {
	table, keys := newTable(t, Config{Number: 7})
	sc := table.borrow([]byte("id"))
	defer table.giveBack(sc)
	store := keys.StoreID()
	require.Equal(t, bytes.Join([][]byte{{1}, store[:], []byte("id")}, nil), sc.aad)
	var want keyring.Binding
	want.Set([]byte("id"))
	require.Equal(t, want, sc.binding)
}

// A sealed block of another version is told from one that is damaged.
func TestSealedBlocksThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		value []byte
		want  error
	}{
		"empty":               {nil, keyring.ErrCorrupt},
		"of a later version":  {make29(2), keyring.ErrVersion},
		"of no version":       {make29(0), keyring.ErrVersion},
		"cut off":             {make29(1)[:28], keyring.ErrCorrupt},
		"of a block of bytes": {make29(1), nil},
	} {
		rest, err := checkSealed(c.value)
		require.ErrorIs(t, err, c.want, name)
		if err == nil {
			require.Equal(t, c.value[1:], rest)
		}
	}
}

// make29 is as long as a sealed block of no bytes.
func make29(version byte) []byte { return append([]byte{version}, make([]byte, 28)...) }

// A record that is replaced is the one that the cache has from then on, if it had one.
func TestReplaceKeepsTheRecordCacheRight(t *testing.T) {
	table, keys := newTable(t, Config{Common: NewCommon(Engine{}, 1<<20, 0)})
	ctx := t.Context()
	for _, id := range []string{"cached", "not cached"} {
		table.put(t, ctx, id, nil)
	}
	table.common.records.drop(table.salt, []byte("not cached"))
	require.NoError(t, keys.BeginEpoch(ctx))
	held(t, keys, func(h *keyring.Hold) {
		b := table.Part.NewBatch()
		var was []engine.Was
		again := map[string][]byte{}
		for _, id := range []string{"cached", "not cached"} {
			var r engine.Row
			require.NoError(t, table.Part.Get(ctx, []byte(id), engine.Record, &r))
			var bind keyring.Binding
			bind.Set([]byte(id))
			record, err := h.For(inner.Block{}).Rewrap(ctx, nil, r.Record, &bind)
			require.NoError(t, err)
			require.NotEqual(t, r.Record, record)
			was = append(was, engine.Was{ID: []byte(id), Record: r.Record})
			require.NoError(t, b.PutRecord([]byte(id), record))
			again[id] = record
		}
		lost, err := table.Replace(ctx, b, was)
		require.NoError(t, err)
		require.Zero(t, lost)
		record, ok := table.common.records.get(table.salt, nil, []byte("cached"))
		require.True(t, ok)
		require.Equal(t, again["cached"], record)
		_, ok = table.common.records.get(table.salt, nil, []byte("not cached"))
		require.False(t, ok)
		lost, err = table.Replace(ctx, b, was) // what was read is not there any more
		require.NoError(t, err)
		require.Equal(t, 2, lost)
	})
}
