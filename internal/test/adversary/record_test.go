package adversary

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// spoil makes a store with one block for each of the ways to alter the value that key
// names, alters them all, and requires that none reads, that Verify finds all, and that
// nothing else suffers.
func spoil(t *testing.T, g *rig, key func(id string) string, size int, ways map[string]func(value string) string) {
	ids := []string{"intact/1", "intact/2"}
	for name := range ways {
		ids = append(ids, name)
	}
	g.fill(ids...)
	good := g.records()
	bad := map[string]string{}
	for name, alter := range ways {
		value := good[key(name)]
		require.Len(t, value, size)
		bad[key(name)] = alter(value)
		require.NotEqual(t, value, bad[key(name)])
	}
	// Open looks at samples of the records, and refuses a store most of which are bad.
	// One that comes back later opens, and refuses each.
	g.opts.Keyring.For(inner.Block{}).AwaitRevalidate = true
	g.set(bad)
	want := g.records()
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Revalidate(g.ctx))
	before := g.vault.Calls()
	for name := range ways {
		got, err := s.Get(g.ctx, []byte(name), nil)
		refuses(t, got, err, "%s", name)
	}
	asked := g.vault.Calls().Unwrap - before.Unwrap
	if key("") == dekKey("") {
		require.Zero(t, asked, "a vault is asked about authentic records alone")
	}
	for _, id := range []string{"intact/1", "intact/2"} {
		got, err := s.Get(g.ctx, []byte(id), nil)
		require.NoError(t, err)
		require.Equal(t, plain(id), got)
	}
	rep, err := s.Verify(g.ctx, nil)
	require.ErrorIs(t, err, block.ErrCorrupt)
	require.EqualValues(t, len(ways), rep.Damaged)
	require.EqualValues(t, 2, rep.Blocks)
	require.NoError(t, s.Close())
	require.Equal(t, want, g.records(), "reading what is damaged changes nothing")
	t.Logf("%d altered values refused", len(ways))
}

// everyWay is every byte flipped, every length that is less, and bytes too many.
func everyWay(size int) map[string]func(string) string {
	ways := map[string]func(string) string{
		"trailing/zero":   func(v string) string { return v + "\x00" },
		"trailing/byte":   func(v string) string { return v + "\xff" },
		"trailing/double": func(v string) string { return v + v },
		"version/0":       func(v string) string { return "\x00" + v[1:] },
		"version/3":       func(v string) string { return "\x03" + v[1:] },
		"version/255":     func(v string) string { return "\xff" + v[1:] },
	}
	for i := range size {
		ways[numbered("flipped", i)] = func(v string) string { return alter(v, i) }
		ways[numbered("truncated", i)] = func(v string) string { return v[:i] }
	}
	return ways
}

func TestEveryWayToAlterADEKRecord(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		size := map[keyring.Wrapping]int{keyring.ByKeyring: keyring.RecordSize, keyring.ByKEK: keyring.RecordSizeByKEK}[g.opts.Keyring.Wrapping]
		ways := everyWay(size)
		if g.opts.Keyring.Wrapping == keyring.ByKeyring {
			ways["type/by KEK"] = func(v string) string { return "\x02" + v[1:] }
		} else {
			ways["type/by keyring"] = func(v string) string { return "\x01" + v[1:] }
		}
		spoil(t, g, dekKey, size, ways)
	})
}

func TestEveryWayToAlterASealedBlock(t *testing.T) {
	// Blocks of one size, with ids of one size.
	ways := map[string]func(string) string{}
	size := 1 + 12 + len(plain("way/00000")) + 16
	n := 0
	for _, f := range everyWay(size) {
		ways[numbered("way", n)] = f
		n++
	}
	g := newRig(t)
	spoil(t, g, dataKey, size, ways)
}

// One of a record and its block without the other is damage, not absence.
func TestHalfABlockIsDamage(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		ids := many()
		g.fill(ids...)
		good := g.records()
		g.remove(dekKey("a"), dataKey("b"))
		s := g.open()
		for _, id := range []string{"a", "b"} {
			got, err := s.Get(g.ctx, []byte(id), nil)
			refuses(t, got, err, "half of %s", id)
		}
		rep, err := s.Verify(g.ctx, nil)
		require.ErrorIs(t, err, block.ErrCorrupt)
		require.EqualValues(t, 2, rep.Damaged)
		require.NoError(t, s.Close())
		g.set(map[string]string{dekKey("a"): good[dekKey("a")], dataKey("b"): good[dataKey("b")]})
		g.intact(ids...)
	})
}

// A store opens with a damaged record, whichever it is, and serves the others.
func TestOneDamagedRecordKeepsNoStoreShut(t *testing.T) {
	forEachWrapping(t, func(t *testing.T, g *rig) {
		var ids []string
		for i := range 24 {
			ids = append(ids, numbered("page", i))
		}
		g.fill(ids...)
		good := g.records()
		for i, id := range ids {
			g.set(map[string]string{dekKey(id): alter(good[dekKey(id)], 20+i)})
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err, id)
			require.NoError(t, s.Put(g.ctx, []byte("more"), plain("more")))
			got, err := s.Get(g.ctx, []byte(id), nil)
			refuses(t, got, err, "%s", id)
			require.NoError(t, s.Put(g.ctx, []byte(id), plain(id)), "what is damaged can be put again")
			require.NoError(t, s.Close())
		}
		g.intact(append(ids, "more")...)
	})
}

// Rotating and rekeying do not make damage look whole: they stop, or leave it as it is.
func TestRewritingDoesNotHideDamage(t *testing.T) {
	for _, kind := range []func(string) string{dekKey, dataKey} {
		forEachWrapping(t, func(t *testing.T, g *rig) {
			ids := many()
			g.fill(ids...)
			bad := alter(g.records()[kind("d")], 40)
			g.set(map[string]string{kind("d"): bad})
			s := g.open()
			for what, rewrite := range map[string]func() error{
				"Rekey":       func() error { return s.Rekey(g.ctx, block.Range{}, nil) },
				"RotateEpoch": func() error { return s.RotateEpoch(g.ctx, nil) },
				"Erase":       func() error { return second(s.Erase(g.ctx, nil)) },
				"RewrapDEKs":  func() error { return s.RewrapDEKs(g.ctx, nil) },
			} {
				if err := rewrite(); err != nil {
					require.ErrorIs(t, err, block.ErrCorrupt, what)
					require.NotContains(t, err.Error(), canary)
				}
				got, err := s.Get(g.ctx, []byte("d"), nil)
				refuses(t, got, err, "after %s", what)
				for _, id := range []string{"a", "b", "c", "e", "f", "~/00007"} {
					got, err := s.Get(g.ctx, []byte(id), nil)
					require.NoError(t, err, what)
					require.Equal(t, plain(id), got)
				}
			}
		})
	}
}
