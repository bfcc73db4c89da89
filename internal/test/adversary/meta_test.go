package adversary

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// metaStore makes a store with a meta record of every kind that docs/format.md,
// section 5, lists. The markers are forged: they say that a rotation and a rekeying were
// cut off half way.
func (g *rig) metaStore(ids []string) (records, before map[string]string) {
	g.fill(ids...)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	require.NoError(g.t, s.Checkpoint(g.ctx, "copy"))
	_, err = s.Erase(g.ctx, nil)
	require.NoError(g.t, err)
	require.Equal(g.t, uint32(2), s.State().Epoch)
	require.NoError(g.t, s.Close())
	marker := func(epoch byte) string {
		next := ids[len(ids)/2]
		return "\x01\x00\x00\x00" + string(rune(epoch)) + strings.Repeat("\x00", 16) + "\x00\x00\x00\x00" + "\xff\xff\xff\xff" + "\x00\x00\x00" + string(rune(len(next))) + next
	}
	g.set(map[string]string{metaKey("rotate-epoch"): marker(2), metaKey("rekey"): marker(0)})
	return g.records(), files(g.t, g.opts.Pebble.FS, g.dir)
}

// Altering a meta record may make a store refuse to open, or an operation fail; it never
// makes a block read as anything but what was put, and nothing panics. An altered register
// is not believed: no receipt and no answer about KEK versions is whole then.
func TestEveryWayToAlterAMetaRecord(t *testing.T) {
	g := newRig(t)
	var ids []string
	for i := range 24 {
		ids = append(ids, numbered("b", i))
	}
	records, before := g.metaStore(ids)
	var kinds []string
	for key := range records {
		if key[0] == 1 && key != documentKey {
			kinds = append(kinds, key)
		}
	}
	slices.Sort(kinds)
	n, refused := 0, 0
	for _, key := range kinds {
		value := records[key]
		ways := []string{"", value + "\x00", value + "\n", value + value, "\x02" + value[1:], "\xff" + value[1:]}
		for i := range value {
			ways = append(ways, alter(value, i), value[:i])
		}
		if most := 3 * *positions; *positions > 0 && len(ways) > most+10 { // of the longer ones, some
			ways = append(ways[:6], every(ways[6:], len(ways)/most)...)
		}
		for _, bad := range ways {
			if bad == value {
				continue
			}
			n++
			what := fmt.Sprintf("%q: %q", key, bad)
			r := *g
			r.opts.Pebble.FS = restore(t, before)
			r.set(map[string]string{key: bad})
			s, err := block.Open(r.ctx, r.dir, r.kek, &r.opts)
			if err != nil {
				// An entry of the catalogue that says that its store is being dropped is no entry.
				none := key == entryKey(block.DefaultName) && errors.Is(err, block.ErrNoStore)
				require.True(t, damaged(err) || none, "%s: %v", what, err)
				require.NotContains(t, err.Error(), canary)
				refused++
				continue
			}
			require.NotEqual(t, nameKey, key, "%s: a name that the store has not written is not believed", what)
			if st := s.State(); st.Status != keyring.Available { // it may be a copy
				require.Equal(t, instanceKey, key, what)
				require.NoError(t, s.Revalidate(r.ctx), what)
				copies, err := s.Copies(r.ctx)
				require.NoError(t, err)
				require.Len(t, copies, 1, "%s: the document and the register say whose copies they are", what)
				require.Empty(t, copies[0].Doubt, what)
			}
			if key == registerKey {
				_, err := s.KeyUsage(r.ctx)
				require.ErrorIs(t, err, block.ErrIncomplete, what)
			}
			for _, op := range []func() error{
				func() error { return second(s.Copies(r.ctx)) },
				func() error { return second(s.KeyUsage(r.ctx)) },
				func() error { return s.RotateEpoch(r.ctx, nil) },
				func() error { return s.Rekey(r.ctx, block.Range{}, nil) },
				func() error {
					receipt, err := s.Erase(r.ctx, nil)
					require.True(t, err != nil || receipt.Incomplete == (key == registerKey), what)
					return err
				},
			} {
				if err := op(); err != nil {
					require.NotContains(t, err.Error(), canary, what)
				}
			}
			// A marker that lies about the progress of RotateEpoch makes it skip records,
			// and destroys the epochs of what it skipped: no more than who writes the disk
			// can destroy anyway.
			marker := key == metaKey("rotate-epoch") || key == metaKey("rekey")
			for i := 0; i < len(ids); i += 3 {
				got, err := s.Get(r.ctx, []byte(ids[i]), nil)
				if err != nil && marker {
					refuses(t, got, err, "%s", what)
					continue
				}
				require.NoError(t, err, what)
				require.Equal(t, string(plain(ids[i])), string(got), what)
			}
			require.NoError(t, s.Close())
		}
	}
	names := slices.Collect(maps.Keys(records))
	require.Subset(t, names, []string{storeKey, documentKey, registerKey, nameKey, instanceKey, metaKey("rotate-epoch"), metaKey("rekey"), metaKey("erased"),
		catalogueKey("next"), entryKey(block.DefaultName)})
	t.Logf("%d altered meta records of %d kinds, %d of which kept the store from opening", n, len(kinds), refused)
}

// every returns each nth of list.
func every(list []string, n int) (out []string) {
	for i := 0; i < len(list); i += max(n, 1) {
		out = append(out, list[i])
	}
	return out
}
