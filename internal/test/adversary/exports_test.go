package adversary

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// frame is a frame of an export, as docs/format.md has it, section 15.
type frame struct {
	kind    byte
	content []byte
}

const exportHead = "blockseal export\x01"

// frames takes an export apart, without its end.
func frames(t testing.TB, stream []byte) (out []frame) {
	t.Helper()
	rest, ok := bytes.CutPrefix(stream, []byte(exportHead))
	require.True(t, ok)
	for len(rest) > 0 {
		n := 5 + binary.BigEndian.Uint32(rest[1:])
		if rest[0] != 'E' {
			out = append(out, frame{rest[0], bytes.Clone(rest[5:n])})
		}
		rest = rest[n:]
	}
	return out
}

// join makes an export of frames, with a sum that is right, as anybody can.
func join(in []frame) []byte {
	out := []byte(exportHead)
	counts := map[byte]uint64{}
	for _, f := range in {
		out = append(binary.BigEndian.AppendUint32(append(out, f.kind), uint32(len(f.content))), f.content...)
		counts[f.kind]++
	}
	sum := sha256.Sum256(out)
	out = binary.BigEndian.AppendUint32(append(out, 'E'), 48)
	out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(out, counts['M']), counts['R'])
	return append(out, sum[:]...)
}

// metaFrame is the frame of a meta record.
func metaFrame(name, value string) frame {
	return frame{'M', []byte(string(rune(len(name))) + name + value)}
}

// withMeta returns frames in which a meta record has another value.
func withMeta(in []frame, name, value string) []frame {
	out := slices.Clone(in)
	for i, f := range out {
		if f.kind == 'M' && string(f.content[1:1+f.content[0]]) == name {
			out[i] = metaFrame(name, value)
		}
	}
	return out
}

// meta returns the value of a meta record.
func meta(t testing.TB, in []frame, name string) string {
	t.Helper()
	for _, f := range in {
		if f.kind == 'M' && string(f.content[1:1+f.content[0]]) == name {
			return string(f.content[1+f.content[0]:])
		}
	}
	t.Fatal("no meta record ", name)
	return ""
}

// export returns an export of a tenant's store.
func (n *tenants) export(name string) []byte {
	n.t.Helper()
	var out bytes.Buffer
	n.do(func(db *block.DB) { require.NoError(n.t, second(db.Export(n.ctx, name, &out))) })
	return out.Bytes()
}

// elsewhere is another DB, with the same vault and without stores.
func (n *tenants) elsewhere() *tenants {
	o := *n
	o.rig = new(rig)
	*o.rig = *n.rig
	o.opts.Pebble.FS = vfs.NewMem()
	o.dbOpts.Pebble.FS = o.opts.Pebble.FS
	return &o
}

// few are tenants with few blocks: each byte of what they have is tried.
func few(t testing.TB) *tenants {
	n := newTenants(t)
	n.do(func(db *block.DB) {
		for _, name := range n.names() {
			require.NoError(t, second(db.Drop(n.ctx, name)))
		}
		n.ids = []string{"a", "b", "c"}
		for _, name := range n.names() {
			n.create(db, name)
		}
	})
	return n
}

// stores returns the names of a DB's stores.
func (n *tenants) stores(db *block.DB) (names []string) {
	n.t.Helper()
	for in, err := range db.Stores(n.ctx) {
		require.NoError(n.t, err)
		names = append(names, in.Name)
	}
	slices.Sort(names)
	return names
}

// What was altered on the way, cut off, or joined to another export, is no store, and leaves nothing.
func TestExportsAltered(t *testing.T) {
	n := few(t)
	whole, other := n.export("ada"), n.export("bob")
	require.Equal(t, whole, join(frames(t, whole)), "the test makes what Export makes")
	bad := map[string][]byte{
		"nothing": nil, "two joined": append(bytes.Clone(whole), other...), "twice": append(bytes.Clone(whole), whole...),
		"a byte more": append(bytes.Clone(whole), 0), "the second without its head": append(bytes.Clone(whole), other[len(exportHead):]...),
		"both within one":             join(append(frames(t, whole), frames(t, other)...)),
		"its frames twice":            join(append(frames(t, whole), frames(t, whole)...)),
		"its frames in another order": join(reversed(frames(t, whole))),
		"no frames":                   join(nil),
		"rows alone":                  join(slices.DeleteFunc(frames(t, whole), func(f frame) bool { return f.kind == 'M' })),
	}
	step := 1
	if *positions > 0 {
		step = max(1, len(whole)/(40**positions))
	}
	for i := 0; i < len(whole); i += step {
		bad[numbered("altered", i)], bad[numbered("cut", i)] = []byte(alter(string(whole), i)), whole[:i]
	}
	to := n.elsewhere()
	to.do(func(db *block.DB) {
		to.create(db, "bea")
		for what, stream := range bad {
			_, err := db.Import(n.ctx, bytes.NewReader(stream))
			require.True(t, damaged(err), "%s: %v", what, err)
			require.NotContains(t, err.Error(), canary)
			require.Equal(t, []string{"bea"}, to.stores(db), what)
		}
		to.whole(db, "bea")
		_, err := db.Import(n.ctx, bytes.NewReader(whole))
		require.NoError(t, err)
	})
	records := to.records()
	for key := range records { // nothing of the others is left anywhere
		switch of := binary.BigEndian.Uint32([]byte(key[1:5])); of {
		case 0xffffffff, number(records, "ada"), number(records, "bea"):
		default:
			t.Fatalf("%q", key)
		}
	}
	t.Logf("%d exports refused", len(bad))
}

func reversed(in []frame) []frame {
	slices.Reverse(in)
	return in
}

// Whoever alters an export and makes its sum right has altered a store's records on its disk: the
// import may succeed, and nothing reads as anything but what was put.
func TestExportsAlteredWithASumThatIsRight(t *testing.T) {
	n := few(t)
	whole := frames(t, n.export("ada"))
	to := n.elsewhere()
	imported, served, tried := 0, 0, 0
	to.do(func(db *block.DB) {
		for f := range whole {
			step := 1
			if *positions > 0 {
				step = max(1, len(whole[f].content) / *positions)
			}
			for i := 0; i < len(whole[f].content); i += step {
				what := fmt.Sprintf("frame %d, byte %d", f, i)
				bad := slices.Clone(whole)
				bad[f].content = []byte(alter(string(bad[f].content), i))
				tried++
				m, err := db.Import(n.ctx, bytes.NewReader(join(bad)))
				if err != nil {
					require.True(t, damaged(err), "%s: %v", what, err)
					require.Empty(t, to.stores(db), what)
					continue
				}
				imported++
				s, err := db.Open(n.ctx, m.Name, n.keks["ada"], &n.opts)
				if err == nil {
					require.Equal(t, keyring.Inaccessible, s.State().Status, "%s: it waits", what)
					err = s.Revalidate(n.ctx)
					if err == nil {
						require.Equal(t, "ada", m.Name, what)
						served++
						if err := n.reads(s, "ada"); err != nil {
							require.ErrorIs(t, err, block.ErrCorrupt, what)
						}
					}
					require.NoError(t, s.Close())
				}
				if err != nil {
					require.NotContains(t, err.Error(), canary, what)
				}
				require.NoError(t, second(db.Drop(n.ctx, m.Name)), what)
			}
		}
	})
	require.Positive(t, imported)
	require.Positive(t, served)
	t.Logf("%d altered exports, of which %d were imported, and %d served what was not altered", tried, imported, served)
}

// A store is in a DB once, whatever it is called, and arrives as often as it was dropped.
func TestExportImportedTwice(t *testing.T) {
	n := newTenants(t)
	stream := n.export("ada")
	renamed := frames(t, stream)
	renamed = withMeta(renamed, "name", meta(t, renamed, "name")[:33]+"eve")
	n.do(func(db *block.DB) {
		for what, in := range map[string][]byte{"as it is": stream, "under another name": join(renamed)} {
			_, err := db.Import(n.ctx, bytes.NewReader(in))
			require.ErrorIs(t, err, block.ErrExists, what)
		}
		n.whole(db, n.names()...)
		require.NoError(t, second(db.Drop(n.ctx, "ada")))
		for range 2 { // into the DB that it came from
			m, err := db.Import(n.ctx, bytes.NewReader(stream))
			require.NoError(t, err)
			require.Equal(t, "ada", m.Name)
			_, err = db.Import(n.ctx, bytes.NewReader(stream))
			require.ErrorIs(t, err, block.ErrExists)
			s, err := n.open(db, "ada")
			require.NoError(t, err)
			require.Error(t, n.reads(s, "ada"), "it waits")
			require.NoError(t, s.Revalidate(n.ctx))
			require.NoError(t, n.reads(s, "ada"))
			require.NoError(t, s.Close())
			require.NoError(t, second(db.Drop(n.ctx, "ada")))
		}
		n.whole(db, "bob", "bea")
		// A name that is taken, by another store.
		n.create(db, "ada")
		_, err := db.Import(n.ctx, bytes.NewReader(stream))
		require.ErrorIs(t, err, block.ErrExists)
		n.whole(db, n.names()...)
	})
}

// Under another name than its own a store arrives, and does not open: it has not written that name.
// Nor does a store that another tenant calls by ada's name, which he can tag, open with her KEK.
func TestExportUnderAnotherName(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		adas, bobs := frames(t, n.export("ada")), frames(t, n.export("bob"))
		secret := n.secretsOf("bob").store
		for what, c := range map[string]struct {
			stream []frame
			name   string
			kek    *kek.KEK
			want   error
		}{
			"hers, renamed":                 {withMeta(adas, "name", meta(t, adas, "name")[:33]+"eve"), "eve", n.keks["ada"], block.ErrCorrupt},
			"hers, with the tag of his":     {withMeta(adas, "name", meta(t, bobs, "name")), "bob", n.keks["ada"], block.ErrCorrupt},
			"his, renamed":                  {withMeta(bobs, "name", meta(t, bobs, "name")[:33]+"ada"), "ada", n.keks["bob"], block.ErrCorrupt},
			"his, renamed by him":           {withMeta(bobs, "name", "\x02"+string(mac(mac(secret, "blockseal tag v1 name"), "ada"))+"ada"), "ada", n.keks["ada"], keyring.ErrWrongKEK},
			"his document among her rows":   {withMeta(adas, "keyring", meta(t, bobs, "keyring")), "ada", n.keks["ada"], block.ErrForeign},
			"his document and id, her rows": {withMeta(withMeta(adas, "keyring", meta(t, bobs, "keyring")), "store", meta(t, bobs, "store")), "ada", n.keks["ada"], keyring.ErrWrongKEK},
		} {
			to := n.elsewhere()
			to.do(func(db *block.DB) {
				m, err := db.Import(n.ctx, bytes.NewReader(join(c.stream)))
				require.NoError(t, err, what)
				require.Equal(t, c.name, m.Name, what)
				s, err := db.Open(n.ctx, m.Name, c.kek, &n.opts)
				if err == nil {
					err = s.Revalidate(n.ctx)
					require.ErrorIs(t, n.reads(s, "ada"), block.ErrInaccessible, what)
					require.NoError(t, s.Close())
				}
				require.ErrorIs(t, err, c.want, what)
			})
		}
	})
}

// Her meta records with his rows, and his with hers: each row is refused, and nothing is written.
func TestExportsMixed(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		of := map[string][]frame{}
		for _, name := range n.names() {
			of[name] = frames(t, n.export(name))
		}
		is := func(kind byte) func(frame) bool { return func(f frame) bool { return f.kind != kind } }
		for _, pair := range pairs() {
			metas, rows := slices.DeleteFunc(slices.Clone(of[pair[0]]), is('M')), slices.DeleteFunc(slices.Clone(of[pair[1]]), is('R'))
			to := n.elsewhere()
			to.do(func(db *block.DB) {
				require.NoError(t, second(db.Import(n.ctx, bytes.NewReader(join(append(metas, rows...))))))
				s, err := n.open(db, pair[0])
				require.NoError(t, err)
				err = s.Revalidate(n.ctx)
				require.True(t, err == nil || damaged(err), "%v", err)
				for _, id := range n.ids {
					got, err := s.Get(n.ctx, []byte(id), nil)
					require.Error(t, err)
					require.Nil(t, got)
				}
				require.Error(t, s.Put(n.ctx, []byte("new"), nil), "the keyring opens none of what is there")
				require.NoError(t, s.Close())
			})
		}
	})
}

// An export says of itself that it is no copy, of the directory that it is imported into and of the
// number that it will have there: it waits all the same.
func TestExportThatSaysThatItIsNoCopy(t *testing.T) {
	n := newTenants(t)
	to := n.elsewhere()
	to.do(func(db *block.DB) { to.create(db, "bea") })
	in := frames(t, n.export("ada"))
	own := storeInstance(to.directory(), 1)
	var record strings.Builder
	record.WriteByte(1)
	for i := range 16 {
		record.WriteByte(unhex(own[2*i])<<4 | unhex(own[2*i+1]))
	}
	to.do(func(db *block.DB) {
		require.NoError(t, second(db.Import(n.ctx, bytes.NewReader(join(withMeta(in, "instance", record.String()))))))
		s, err := to.open(db, "ada")
		require.NoError(t, err)
		require.Equal(t, own, s.Instance(), "the test knows which it will be")
		require.ErrorContains(t, s.State().Cause, "a copy of a store stays locked until Revalidate succeeds")
		require.NoError(t, s.Revalidate(n.ctx))
		require.NoError(t, to.reads(s, "ada"))
		require.NoError(t, s.Close())
		to.whole(db, "ada", "bea")
	})
}

// A stream that never ends takes neither memory nor disk for long: what has come is given up.
func TestExportWithoutAnEnd(t *testing.T) {
	n := newTenants(t)
	whole := n.export("ada")
	cut := whole[:len(whole)-53]
	to := n.elsewhere()
	to.do(func(db *block.DB) {
		for what, more := range map[string]io.Reader{"zeros": zeros{}, "the same again": &again{b: cut[len(exportHead):]}} {
			_, err := db.Import(n.ctx, io.MultiReader(bytes.NewReader(cut), more))
			require.ErrorIs(t, err, block.ErrCorrupt, what)
			require.Empty(t, to.stores(db))
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// again reads the same bytes for ever.
type again struct {
	b  []byte
	at int
}

func (a *again) Read(p []byte) (int, error) {
	n := copy(p, a.b[a.at:])
	a.at = (a.at + n) % len(a.b)
	return n, nil
}
