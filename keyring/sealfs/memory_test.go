package sealfs

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// When a file of pages was closed its DEK is nowhere on the heap, also not as HMAC pads it, from which the
// keys of its runs are derived.
func TestNoKeyOnTheHeapAfterClose(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // what is not overwritten stays
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("operator")
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, id.Versionless()), &keyring.Options{Clock: clock})
	require.NoError(t, err)
	defer r.Close()
	fs, err := New(vfs.NewMem(), r, nil)
	require.NoError(t, err)
	p, err := fs.OpenFile("pages", nil)
	require.NoError(t, err)
	_, err = p.WriteAt([]byte("content"), 0)
	require.NoError(t, err)
	k := p.shared.key
	// What is looked for is kept xor another byte, so that it does not find itself.
	var masked [32]byte
	for i := range masked { // not over k.raw, which would copy it to the stack
		masked[i] = k.raw[i] ^ 0xa7
	}
	count := func() (n [3]int) {
		dump := heapDump(t)
		for at := range n {
			want := make([]byte, len(masked))
			for i, c := range masked {
				want[i] = c ^ 0xa7 ^ []byte{0, 0x36, 0x5c}[at]
			}
			n[at] = bytes.Count(dump, want)
			clear(want)
		}
		clear(dump) // which is on the heap itself
		return n
	}
	require.Positive(t, count()[0], "the test looks in the wrong place")
	require.NoError(t, p.Close())
	require.True(t, zero(k.raw[:]))
	require.Equal(t, [3]int{}, count(), "copies of the DEK, and of it as inner and as outer pad")
}

// What was read of a table is, when its handle is closed, in no memory that the FS keeps for the next read.
func TestNoContentIsKeptAfterClose(t *testing.T) {
	v := vaulttest.New(nil)
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, v.CreateKey("operator").Versionless()), nil)
	require.NoError(t, err)
	defer r.Close()
	fs, err := New(vfs.NewMem(), r, nil)
	require.NoError(t, err)
	var all []*scratch
	fs.scratch.New = func() any { all = append(all, new(scratch)); return all[len(all)-1] }
	w, err := fs.Create("000001.sst", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = w.Write(bytes.Repeat([]byte("content "), 40_000))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	for _, opts := range [][]vfs.OpenOption{nil, {vfs.SequentialReadsOption}} {
		f, err := fs.Open("000001.sst", opts...)
		require.NoError(t, err)
		b := make([]byte, 1000)
		for off := int64(0); off < 300_000; off += 9_000 {
			_, err = f.ReadAt(b, off)
			require.NoError(t, err)
		}
		once := f.(*onceReader)
		require.NotEmpty(t, once.kept)
		require.NoError(t, f.Close())
		require.Nil(t, once.kept)
	}
	had := 0
	for _, s := range all {
		had += cap(s.one) + cap(s.plain)
		require.True(t, zero(s.one[:cap(s.one)]))
		require.True(t, zero(s.plain[:cap(s.plain)]))
	}
	require.Positive(t, had)
}

// Nor is it anywhere else on the heap: not where a file of pages that was not synced looked for its end, and not
// where the frames of a log were opened.
func TestNoContentOnTheHeapAfterClose(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // what is not overwritten stays
	v := vaulttest.New(nil)
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, v.CreateKey("operator").Versionless()), nil)
	require.NoError(t, err)
	defer r.Close()
	fs, err := New(vfs.NewMem(), r, nil)
	require.NoError(t, err)
	const mask = 0xa7
	masked := []byte(rand.Text()) // it does not find itself
	content := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			b[i] = masked[i%len(masked)] ^ mask
		}
		return b
	}
	count := func() int {
		dump := heapDump(t)
		want := content(len(masked))
		n := bytes.Count(dump, want)
		clear(want)
		clear(dump) // which is on the heap itself
		return n
	}
	b := content(3 * DefaultPageSize)
	require.Positive(t, count(), "the test looks in the wrong place")

	p, err := fs.OpenFile("pages", nil)
	require.NoError(t, err)
	_, err = p.WriteAt(b[:2*DefaultPageSize+100], 0)
	require.NoError(t, err)
	require.NoError(t, p.Close())
	p, err = fs.OpenFile("pages", nil)
	require.NoError(t, err)
	require.NoError(t, p.Close())

	w, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	for _, n := range []int{100, len(b), 200} {
		_, err = w.Write(b[:n])
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	l, err := fs.Open("000001.log")
	require.NoError(t, err)
	_, err = l.ReadAt(b, 250)
	require.NoError(t, err)
	require.NoError(t, l.Close())

	clear(b)
	require.Zero(t, count())
}

func heapDump(t *testing.T) []byte {
	name := filepath.Join(t.TempDir(), "heap")
	out, err := os.Create(name)
	require.NoError(t, err)
	debug.WriteHeapDump(out.Fd())
	require.NoError(t, out.Close())
	dump, err := os.ReadFile(name)
	require.NoError(t, err)
	return dump
}
