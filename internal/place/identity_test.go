package place

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// damaged is what a decoder says of bytes that it cannot read.
func damaged(err error) bool {
	return errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, keyring.ErrVersion)
}

// golden returns the identity files of the golden stores of package block.
func golden(t testing.TB) (out []string) {
	files, err := filepath.Glob("../../block/testdata/golden/*/" + identityName)
	require.NoError(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		out = append(out, string(b))
	}
	require.Len(t, out, 4)
	return out
}

// TestGoldenReencodes: the identity of a store that a release wrote comes out of the encoder
// byte for byte.
func TestGoldenReencodes(t *testing.T) {
	for _, text := range golden(t) {
		id, err := decodeIdentity([]byte(text))
		require.NoError(t, err)
		require.Equal(t, pebble.Closed, id.engine.Phase)
		require.NotEmpty(t, id.engine.Files)
		require.Equal(t, text, string(id.encode()))
	}
}

// TestIdentityText: the identity file of each state, byte for byte.
func TestIdentityText(t *testing.T) {
	const one = "01000000000000000000000000000000"
	e := pebble.Expected{Phase: pebble.Closed, Log: 12, Manifest: 9, Files: []pebble.File{{Name: "000012.log", Size: 7, Sum: [32]byte{1}}}}
	for want, id := range map[string]identity{
		"instance " + one + "\nstate creating\npath \"/a\"\nstores 0\n":                         {engine: pebble.Expected{Phase: pebble.Creating}, path: "/a"},
		"instance " + one + "\nstate opening\npath \"\\\"\\n\"\nstores 0\nlog 12\nmanifest 9\n": {engine: pebble.Expected{Phase: pebble.Opening, Log: 12, Manifest: 9}, path: "\"\n"},
		"instance " + one + "\nstate open\npath \"\"\nstores 7\nlog 12\nmanifest 9\n":           {engine: pebble.Expected{Phase: pebble.Opened, Log: 12, Manifest: 9}, stores: 7},
		"instance " + one + "\nstate closed\npath \"/a\"\nstores 4294967295\nlog 12\nmanifest 9\n" +
			"file 7 01" + strings.Repeat("0", 62) + " 000012.log\ntag 0 " + strings.Repeat("ab", 32) + "\ntag 4294967294 " + strings.Repeat("cd", 32) + "\n": {
			engine: e, path: "/a", stores: 1<<32 - 1, tags: map[uint32]Tag{0: Tag(bytes.Repeat([]byte{0xab}, 32)), 1<<32 - 2: Tag(bytes.Repeat([]byte{0xcd}, 32))}},
	} {
		id.instance = inner.InstanceID{1}
		want = "blockseal store 3\n" + want
		want += fmt.Sprintf("sha256 %x\n", sha256.Sum256([]byte(want)))
		require.Equal(t, want, string(id.encode()))
		back, err := decodeIdentity([]byte(want))
		require.NoError(t, err)
		require.Equal(t, id, back)
		for i := range want { // no bit of it can be turned over
			bad := []byte(want)
			bad[i] ^= 1
			_, err := decodeIdentity(bad)
			require.True(t, damaged(err), "%d: %v", i, err)
		}
	}
}

// FuzzIdentity holds that an identity file that decodes re-encodes to itself.
func FuzzIdentity(f *testing.F) {
	for _, text := range golden(f) {
		f.Add([]byte(text))
		f.Add([]byte(text + "tag 1 " + strings.Repeat("ab", 32) + "\n"))
		f.Add([]byte(text + "\n"))
		f.Add(bytes.ToUpper([]byte(text)))
	}
	f.Add([]byte("blockseal store 3\n"))
	f.Add([]byte("blockseal store 01\ninstance 00000000000000000000000000000000\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err != nil {
			require.True(t, damaged(err), "%v", err)
			return
		}
		require.Equal(t, string(b), string(id.encode()))
		require.NotEqual(t, inner.InstanceID{}, id.instance)
	})
}
