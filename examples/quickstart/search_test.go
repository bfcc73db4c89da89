package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// A text is found wherever it lies, also across the pieces that are read.
func TestNeedlesAreFound(t *testing.T) {
	const piece, size = 64, 300
	long, short := []byte("thirty-two bytes of one snippet."), []byte("id#1")
	for at := 0; at+len(long) <= size; at++ {
		hay := bytes.Repeat([]byte("t"), size) // as the text begins
		copy(hay[at:], long)
		for _, r := range []io.Reader{bytes.NewReader(hay), iotest.OneByteReader(bytes.NewReader(hay))} {
			n := newNeedles([][]byte{short, long})
			read, err := n.read(t.Context(), r, piece)
			require.NoError(t, err)
			require.EqualValues(t, size, read)
			require.Equal(t, []bool{false, true}, n.found, "at %d", at)
		}
	}
}

func TestNeedlesNotThere(t *testing.T) {
	hay := make([]byte, 1<<20)
	rand.Read(hay)
	n := newNeedles([][]byte{[]byte("thirty-two bytes of one snippet."), []byte("thirty-two bytes of another one.")})
	copy(hay, n.texts[0][:31]) // all but the last byte
	copy(hay[len(hay)-31:], n.texts[1])
	_, err := n.read(t.Context(), bytes.NewReader(hay), 1<<16)
	require.NoError(t, err)
	require.Zero(t, n.count())
}

func TestDistinctive(t *testing.T) {
	require.Nil(t, distinctive(nil))
	require.Nil(t, distinctive(bytes.Repeat([]byte("abc"), 1000)))
	require.Nil(t, distinctive([]byte("thirty-one bytes of one snippet")))
	text := []byte("thirty-two bytes of one snippet.")
	require.Equal(t, text, distinctive(text))
	got := distinctive(append(make([]byte, 100), text...))
	require.Len(t, got, snippetSize)
	require.GreaterOrEqual(t, different(got), snippetBytes)
}

// putTree returns a tree and the digests of its blocks.
func putTree(t *testing.T) (*tree, digests) {
	tr, err := findTree(t.Context(), writeTree(t))
	require.NoError(t, err)
	put := digests{sums: map[string][sha256.Size]byte{}}
	require.NoError(t, tr.blocks(func(id string, data []byte) error {
		put.sums[id] = sha256.Sum256(data)
		put.bytes += int64(len(data))
		return nil
	}))
	return tr, put
}

func TestSearchDisk(t *testing.T) {
	tr, put := putTree(t)
	root := t.TempDir()
	file := func(name string) string { return filepath.Join(root, name) }
	search := func() (string, error) {
		var out bytes.Buffer
		err := searchDisk(t.Context(), root, tr, put, newTable(&out).step("search"))
		return out.String(), err
	}
	sealed := make([]byte, put.bytes)
	rand.Read(sealed)
	require.NoError(t, os.WriteFile(file("sealed"), sealed, 0o600))
	require.NoError(t, os.WriteFile(file("ids"), []byte("one byte#00000000"), 0o600))
	out, err := search()
	require.NoError(t, err)
	require.Contains(t, out, "none of ")
	require.Contains(t, out, "block ids are not hidden: 1 of 11 are there to read")

	known, err := pickSnippets(tr, put)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(file("sub"), 0o700))
	require.NoError(t, os.WriteFile(file("sub/leak"), append([]byte("before it"), known[len(known)-1]...), 0o600))
	_, err = search()
	require.ErrorContains(t, err, "plaintext on the disk: "+file("sub/leak")+" has ")

	// Less than what was put cannot be all of it.
	require.NoError(t, os.Remove(file("sub/leak")))
	require.NoError(t, os.Truncate(file("sealed"), put.bytes/2))
	_, err = search()
	require.ErrorContains(t, err, "ciphertext is not smaller")
}

// What stands in an id is on the disk in clear, and is no snippet.
func TestSnippetsAreNotIDs(t *testing.T) {
	dir := t.TempDir()
	name := "import crypto-internal-fips140 (subtle)"
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	tr, err := findTree(t.Context(), dir)
	require.NoError(t, err)
	_, err = pickSnippets(tr, digests{sums: map[string][sha256.Size]byte{blockID(name, 0): {}}})
	require.ErrorContains(t, err, "nothing to search the disk for")
}

func TestCompare(t *testing.T) {
	_, put := putTree(t)
	require.NoError(t, put.compare("one byte#00000000", []byte("T")))
	require.ErrorIs(t, put.compare("one byte#00000000", []byte("t")), errDiffers)
	require.ErrorIs(t, put.compare("another", []byte("T")), errDiffers)
	require.True(t, strings.HasPrefix(blockID("f", 7), "f#0000000"))
}
