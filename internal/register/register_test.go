package register

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// The table of past KEKs is bounded, and says what it does not know.
func TestPastKEKsAreBounded(t *testing.T) {
	var p PastKEKs
	named := func(version string) vault.KeyID {
		return vault.KeyID{Vault: "https://past.vault.example", Name: "customer", Version: version}
	}
	version := func(i int) vault.KeyID { return named(fmt.Sprint("v", i)) }
	for i := range maxPast {
		p = p.With(version(i), PublicKey{byte(i), 1})
	}
	require.Len(t, p.KEKs, maxPast)
	require.False(t, p.Incomplete)
	require.Equal(t, p, p.With(version(0), PublicKey{0, 1}), "it is there")
	full := p
	p = p.With(named("one-more"), PublicKey{})
	require.Len(t, p.KEKs, maxPast)
	require.True(t, p.Incomplete)
	require.Equal(t, version(1), p.KEKs[0].ID, "the oldest went")
	require.Equal(t, version(0), full.KEKs[0].ID, "nothing of the table before was changed")
	record := Register{Past: p}.Encode()
	again, err := Decode(record)
	require.NoError(t, err)
	require.Equal(t, p, again.Past)
	binary.BigEndian.PutUint16(record[26:], maxPast+1)
	_, err = Decode(record)
	require.ErrorIs(t, err, keyring.ErrCorrupt)
}

// golden returns the meta records of the golden stores of package block.
func golden(t testing.TB) (out [][]byte) {
	type store struct {
		Pairs []struct{ Key, Value string }
	}
	var stores []store
	for _, name := range []string{"golden.json", "golden-2.json"} {
		b, err := os.ReadFile(filepath.Join("../../block/testdata/golden", name))
		require.NoError(t, err)
		if name == "golden.json" {
			require.NoError(t, json.Unmarshal(b, &stores))
			continue
		}
		var one store
		require.NoError(t, json.Unmarshal(b, &one))
		stores = append(stores, one)
	}
	for _, s := range stores {
		for _, p := range s.Pairs {
			if strings.HasPrefix(p.Key, "01") { // the space of meta records
				value, err := hex.DecodeString(p.Value)
				require.NoError(t, err)
				out = append(out, value)
			}
		}
	}
	require.NotEmpty(t, out)
	return out
}

// FuzzRegister holds that a register, and a copy of one, that decodes re-encodes to itself.
func FuzzRegister(f *testing.F) {
	for _, value := range golden(f) {
		f.Add(value)
		f.Add(value[:len(value)-1])
		if _, record, ok := tagged.Split(value); ok {
			f.Add(record)
			f.Add(record[:len(record)-1])
		}
	}
	f.Add([]byte{1})
	f.Add(append([]byte{2}, make([]byte, 41)...))
	f.Add([]byte{2, 0, 0, 0, 0})
	f.Add(append([]byte{1, 0, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 12)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, rest, err := cutEntry(b); err == nil {
			require.Equal(t, b, append(c.Append(nil), rest...))
		}
		if r, err := Decode(b); err == nil {
			require.Equal(t, b, r.Encode())
		} else {
			require.True(t, errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, keyring.ErrVersion), "%v", err)
		}
	})
}
