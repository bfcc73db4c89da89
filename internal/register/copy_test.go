package register

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

func version(v string) vault.KeyID {
	return vault.KeyID{Vault: "https://copies.vault.example", Name: "customer", Version: v}
}

// A copy needs only a version if that wraps its document and every record of it: for each other one,
// whatever else holds, it needs more.
func TestNeedsOnly(t *testing.T) {
	a, b := version("a"), version("b")
	for _, c := range []struct {
		name string
		copy Copy
		want bool
	}{
		{"that version alone", Copy{KEK: a, KEKs: []vault.KeyID{a}}, true},
		{"another one alone", Copy{KEK: b, KEKs: []vault.KeyID{b}}, false},
		{"records of two", Copy{KEK: a, KEKs: []vault.KeyID{a, b}}, false},
		{"a document of another one", Copy{KEK: b, KEKs: []vault.KeyID{a}}, false},
		{"a record of another one", Copy{KEK: a, KEKs: []vault.KeyID{b}}, false},
		{"nothing that is known", Copy{KEK: a}, false},
	} {
		require.Equal(t, c.want, c.copy.NeedsOnly(a), c.name)
	}
}

// What a copy needs is what its document says, and nothing that it said before: the version
// that wraps the document too, each once, in the order of their identifiers.
func TestNeed(t *testing.T) {
	c := Copy{KEK: version("old"), KEKs: []vault.KeyID{version("old"), version("older")}, Generation: 1}
	c.Update(keyring.Info{KEK: version("m"), Generation: 7, KEKs: map[uint32]vault.KeyID{1: version("z"), 2: version("a"), 3: version("m")}})
	require.Equal(t, Copy{KEK: version("m"), Generation: 7, KEKs: []vault.KeyID{version("a"), version("m"), version("z")}}, c)
	before := c.KEKs
	c.Need(version("b"), version("z"), version("b"))
	require.Equal(t, []vault.KeyID{version("a"), version("b"), version("m"), version("z")}, c.KEKs)
	require.Equal(t, []vault.KeyID{version("a"), version("m"), version("z")}, before, "nobody else's list is changed")
}

// An entry is read as it was written, and one that was cut off anywhere, or has another byte where only some are
// possible, is not read.
func TestEntry(t *testing.T) {
	full := Entry{Copy: Copy{Instance: strings.Repeat("0a", 16), Path: "/backup/monday", Made: time.Unix(1_900_000_000, 0).UTC(),
		KEK: version("m"), Generation: 1 << 40, KEKs: []vault.KeyID{version("a"), version("m"), version("z")}}, Vouched: true, Document: sha256.Sum256([]byte("document"))}
	plain := Entry{Copy: Copy{Instance: strings.Repeat("0", 31) + "1", Made: time.Unix(0, 0).UTC(), KEK: version("m"), KEKs: []vault.KeyID{version("m")}}}
	for _, e := range []Entry{full, plain} {
		b := e.Append(nil)
		got, rest, err := cutEntry(append(slices.Clone(b), "rest"...))
		require.NoError(t, err)
		require.Equal(t, e, got)
		require.Equal(t, "rest", string(rest))
		for n := range b {
			_, _, err := cutEntry(b[:n])
			require.Error(t, err, "%d of %d bytes", n, len(b))
		}
	}
	require.True(t, full.Whole())
	require.False(t, plain.Whole())

	b := full.Append(nil)
	for _, c := range []struct {
		why   string
		alter func(b []byte)
	}{
		{"it is damaged at its start", func(b []byte) { clear(b[:16]) }},
		{"it is damaged at its start", func(b []byte) { b[16] = 2 }},
	} {
		altered := slices.Clone(b)
		c.alter(altered)
		_, _, err := cutEntry(altered)
		require.ErrorContains(t, err, c.why)
	}
	for _, others := range [][]string{{"z", "a"}, {"a", "a"}, {"m"}} {
		out := full
		out.KEKs = nil
		b := out.Append(nil)
		at := len(b) - 4 - len(out.Path) - 2 // of the number of other versions
		altered := append(slices.Clone(b[:at]), 0, byte(len(others)))
		for _, v := range others {
			altered = appendKeyID(altered, version(v))
		}
		_, _, err := cutEntry(append(altered, b[at+2:]...))
		require.ErrorContains(t, err, "its key identifiers are out of order", others)
	}
	for _, wrong := range []string{"", "0a", strings.Repeat("0a", 15) + "0g", strings.Repeat("0a", 15)} {
		full.Instance = wrong
		require.Panics(t, func() { full.Append(nil) }, wrong)
	}
}
