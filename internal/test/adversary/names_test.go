package adversary

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// alike are groups of names that look alike, or are taken for one another by something: each name is
// another store's.
func alike() [][]string {
	return [][]string{
		{"café", "cafe\u0301", "cafe"},                       // NFC, NFD, without
		{"\u212bngstrom", "\u00c5ngstrom", "A\u030angstrom"}, // one letter in three ways
		{"paypal", "pаypal", "ρaypal", "paypaI", "paypal\u200b", "\ufeffpaypal", "PAYPAL", "Paypal"},
		{"ﬁrm", "firm"}, {"Straße", "Strasse", "STRASSE"}, {"ıstanbul", "istanbul", "İstanbul"},
		{"a", "a ", " a", "a\x00", "a\x00b", "\x00a", "a\n", "a\r\n", "a\t"},
		{"a/b", "a//b", "/a/b", "a/b/", "a/./b", "a/../a/b", "a\\b", "..", ".", "/", "../../etc/passwd"},
		{"store/", "next", "unfinished/", "receipt/00000000", "keyring", "name", "default", "BLOCKSEAL", "LOCK"},
		{"\u202egnp.exe", "exe.png"}, {"%s%n%d", "%00", "%2e%2e"}, {"\x1b[2J\x1b[H", "\u009b2J"},
		{strings.Repeat("x", 254), strings.Repeat("x", 255), strings.Repeat("é", 127), strings.Repeat("é", 127) + "x"},
	}
}

// notNames have no bytes, too many, or bytes that are no UTF-8.
func notNames() []string {
	return []string{"", strings.Repeat("x", 256), strings.Repeat("é", 128), strings.Repeat("x", 1<<20), "\xff", "a\xc3", "\xc3\x28", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc0\x80", "a\x00\xff"}
}

// Names are bytes. What looks alike is distinct, has its own blocks, and is found as what it was made
// as: open, closed, after a restart, in a list, and moved.
func TestNamesThatLookAlike(t *testing.T) {
	n := newTenants(t)
	names := map[string]bool{}
	for _, group := range alike() {
		for _, name := range group {
			require.False(t, names[name], "%q", name)
			names[name] = true
		}
	}
	n.do(func(db *block.DB) {
		for name := range names {
			s, err := db.Create(n.ctx, name, n.keks["ada"], &n.opts)
			require.NoError(t, err, "%q", name)
			require.NoError(t, s.Put(n.ctx, []byte("a"), has(name, "a")))
			require.NoError(t, s.Close())
		}
	})
	n.do(func(db *block.DB) {
		listed := map[string]bool{}
		for in, err := range db.Stores(n.ctx) {
			require.NoError(t, err)
			require.False(t, listed[in.Name])
			listed[in.Name] = true
		}
		require.Len(t, listed, len(names)+3)
		for name := range names {
			require.True(t, listed[name], "%q", name)
			_, err := db.Create(n.ctx, name, n.keks["ada"], &n.opts)
			require.ErrorIs(t, err, block.ErrExists, "%q", name)
			s, err := db.Open(n.ctx, name, n.keks["ada"], &n.opts)
			require.NoError(t, err, "%q", name)
			got, err := s.Get(n.ctx, []byte("a"), nil)
			require.NoError(t, err)
			require.Equal(t, string(has(name, "a")), string(got))
			require.NoError(t, s.Close())
		}
		// One of each group is moved away and back again. The others stay what they are.
		for _, group := range alike() {
			var stream bytes.Buffer
			_, err := db.Export(n.ctx, group[0], &stream)
			require.NoError(t, err)
			r, err := db.Drop(n.ctx, group[0])
			require.NoError(t, err)
			require.Equal(t, group[0], r.Name)
			for _, name := range group[1:] {
				require.NoError(t, second(n.openAda(db, name)), "%q", name)
			}
			_, err = db.Open(n.ctx, group[0], n.keks["ada"], &n.opts)
			require.ErrorIs(t, err, block.ErrNoStore)
			m, err := db.Import(n.ctx, &stream)
			require.NoError(t, err)
			require.Equal(t, group[0], m.Name)
		}
	})
}

// openAda opens a store under ada's KEK, and closes it again.
func (n *tenants) openAda(db *block.DB, name string) (*block.Store, error) {
	s, err := db.Open(n.ctx, name, n.keks["ada"], &n.opts)
	if err == nil {
		err = s.Close()
	}
	return s, err
}

// What is no name is refused by every entrance, and nothing changes.
func TestWhatIsNoName(t *testing.T) {
	n := newTenants(t)
	before := n.records()
	n.do(func(db *block.DB) {
		for _, name := range notNames() {
			s, release, err := db.Acquire(n.ctx, name)
			require.Nil(t, s)
			require.Nil(t, release)
			for what, err := range map[string]error{
				"Acquire": err, "Create": second(db.Create(n.ctx, name, n.keks["ada"], &n.opts)), "Open": second(n.openAda(db, name)),
				"Drop": second(db.Drop(n.ctx, name)), "Export": second(db.Export(n.ctx, name, new(bytes.Buffer))),
			} {
				require.ErrorIs(t, err, block.ErrName, "%s %.20q", what, name)
				require.Less(t, len(err.Error()), 2000, "%s: an error is no place for a name of a megabyte", what)
				require.False(t, strings.ContainsAny(err.Error(), "\x00\n\r\x1b") || !utf8.ValidString(err.Error()), "%s: %q", what, err.Error())
			}
		}
	})
	require.Equal(t, before, n.records())
	// A directory of one store has a name too.
	for _, name := range notNames()[1:] {
		g := newRig(t)
		g.opts.Name = name
		require.ErrorIs(t, g.tryOpen(), block.ErrName, "%.20q", name)
		require.Empty(t, files(t, g.opts.Pebble.FS, "."), "%.20q", name)
	}
}

// What errors say of a name is quoted: no line breaks, no escapes for a terminal.
func TestErrorsQuoteNames(t *testing.T) {
	n := newTenants(t)
	n.do(func(db *block.DB) {
		for _, group := range alike() {
			for _, name := range group {
				_, _, err := db.Acquire(n.ctx, name)
				for _, err := range []error{err, second(n.openAda(db, name)), second(db.Drop(n.ctx, name)), second(db.Export(n.ctx, name, new(bytes.Buffer)))} {
					require.ErrorIs(t, err, block.ErrNoStore)
					for _, r := range err.Error() {
						require.False(t, r < ' ' || r == '\x7f' || r >= 0x80 && r < 0xa0 || r == '\u202e' || r == '\u200b' || r == '\ufeff', "%q", err.Error())
					}
					require.Less(t, len(err.Error()), 2000)
				}
			}
		}
	})
}

// A store that says that it is called something else, though it has its keys' tag: its owner wrote
// that, and opens it under that name alone.
func TestNameWrittenByTheStoresOwner(t *testing.T) {
	n := newTenants(t)
	good := n.records()
	of := number(good, "bob")
	bobs := n.secretsOf("bob")
	name := "ada's"
	n.set(map[string]string{engineKey(1, of, "name"): "\x02" + string(mac(mac(bobs.store, "blockseal tag v1 name"), name)) + name})
	n.do(func(db *block.DB) {
		_, err := n.open(db, "bob")
		require.ErrorIs(t, err, block.ErrForeign)
		require.ErrorContains(t, err, fmt.Sprintf("what is found as store %q is store %q", "bob", name))
		n.whole(db, "ada", "bea")
	})
	n.set(map[string]string{entryKey(name): entry(2, of, name)})
	n.remove(entryKey("bob"))
	n.do(func(db *block.DB) {
		s, err := db.Open(n.ctx, name, n.keks["bob"], &n.opts)
		require.NoError(t, err)
		require.NoError(t, n.reads(s, "bob"))
		require.NoError(t, s.Close())
		_, err = n.openAda(db, name)
		require.Error(t, err)
	})
}
