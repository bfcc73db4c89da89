package dek_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
)

func newAEAD(t testing.TB, b byte) *dek.AEAD {
	t.Helper()
	a, err := dek.NewAEAD(bytes.Repeat([]byte{b}, dek.Size))
	require.NoError(t, err)
	return &a
}

func TestWrapped(t *testing.T) {
	under := newAEAD(t, 1)
	var k, again dek.Key
	head := []byte("head")
	wrapped := k.GenerateWrapped(head, under, aad)[len(head):]
	require.Len(t, wrapped, dek.WrappedSize)
	require.NoError(t, again.Unwrap(wrapped, under, aad))
	require.Equal(t, k.Bytes(), again.Bytes())
	sealed := k.Seal(nil, []byte("block"), aad)
	got, err := again.Open(nil, sealed, aad)
	require.NoError(t, err)
	require.Equal(t, "block", string(got))

	refuses := func(wrapped []byte, under *dek.AEAD, aad []byte, what string) {
		t.Helper()
		var k dek.Key
		k.Generate()
		memory := k.Bytes()
		require.ErrorIs(t, k.Unwrap(wrapped, under, aad), dek.ErrCorrupt, what)
		require.Equal(t, make([]byte, dek.Size), memory, what)
		require.Panics(t, func() { k.Seal(nil, nil, nil) }, what)
	}
	for i := range wrapped {
		wrapped[i] ^= 1
		refuses(wrapped, under, aad, fmt.Sprint("byte ", i))
		wrapped[i] ^= 1
		refuses(wrapped[:i], under, aad, fmt.Sprint("cut to ", i))
	}
	refuses(append(bytes.Clone(wrapped), 0), under, aad, "longer")
	refuses(wrapped, newAEAD(t, 2), aad, "another key")
	refuses(wrapped, under, aad[1:], "another aad")
	require.NoError(t, again.Unwrap(wrapped, under, aad))
}

// However a key is used, no two seals under it share a nonce: not two wraps under an
// epoch key, not a DEK's first seal with a later one, not one of several that run at
// once, and not two lives of one Key, though they are two keys.
func TestNoncesAreNeverShared(t *testing.T) {
	under := newAEAD(t, 1)
	var k dek.Key
	var mu sync.Mutex
	seen, wraps := map[string]bool{}, map[string]bool{}
	once := func(in map[string]bool, sealed []byte) {
		mu.Lock()
		defer mu.Unlock()
		nonce := string(sealed[:12])
		require.False(t, in[nonce])
		in[nonce] = true
	}
	note := func(sealed []byte) { once(seen, sealed) }
	const lives, goroutines, each = 50, 8, 10
	for range lives {
		once(wraps, k.GenerateWrapped(nil, under, aad))
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range each {
					note(k.Seal(nil, []byte("block"), aad))
				}
			})
		}
		wg.Wait()
		require.NoError(t, k.Set(bytes.Clone(k.Bytes())))
		note(k.Seal(nil, []byte("block"), aad))
	}
	require.Len(t, wraps, lives)
	require.Len(t, seen, lives*(1+goroutines*each))
}

func TestAEAD(t *testing.T) {
	a := newAEAD(t, 0xab)
	room := make([]byte, 2, 100)
	sealed := a.Seal(room, []byte("block"), aad)
	require.Same(t, &room[0], &sealed[0], "room that is there is used")
	require.Len(t, sealed, 2+5+dek.Overhead)
	got, err := a.Open([]byte("head "), sealed[2:], aad)
	require.NoError(t, err)
	require.Equal(t, "head block", string(got))
	for n := range len(sealed) - 2 {
		got, err := a.Open(nil, sealed[2:2+n], aad)
		require.Error(t, err)
		require.Nil(t, got)
	}
	_, err = dek.NewAEAD(make([]byte, 31))
	require.Error(t, err)

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		hides(t, fmt.Sprintf(verb, a), verb)
		require.Equal(t, "dek.AEAD(redacted)", fmt.Sprintf(verb, *a))
	}
	out, err := json.Marshal(a)
	require.NoError(t, err)
	require.Equal(t, `"dek.AEAD(redacted)"`, string(out))

	a.Destroy()
	a.Destroy()
	const says = "dek: use of an AEAD that was destroyed"
	require.PanicsWithValue(t, says, func() { a.Seal(nil, nil, nil) })
	require.PanicsWithValue(t, says, func() { a.Open(nil, sealed, nil) })
	var k dek.Key
	require.PanicsWithValue(t, says, func() { k.GenerateWrapped(nil, a, nil) })
	require.NoError(t, k.Set(make([]byte, dek.Size)))
}

func BenchmarkGenerateWrapped(b *testing.B) {
	under := newAEAD(b, 1)
	var k dek.Key
	wrapped := make([]byte, 0, dek.WrappedSize)
	rand.Read(wrapped[:cap(wrapped)])
	b.ReportAllocs()
	for b.Loop() {
		wrapped = k.GenerateWrapped(wrapped[:0], under, aad)
		k.Destroy()
	}
}
