package dek_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
)

var aad = []byte("format, store, partition, block id")

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 511, 512, 4095, 4096, 4097, 1 << 20} {
		k := dek.New()
		plaintext := make([]byte, n)
		rand.Read(plaintext)
		sealed := k.Seal(nil, plaintext, aad)
		require.Len(t, sealed, n+dek.Overhead)
		got, err := k.Open(nil, sealed, aad)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got), n)

		again, err := dek.FromBytes(bytes.Clone(k.Bytes()))
		require.NoError(t, err)
		got, err = again.Open(nil, sealed, aad)
		require.NoError(t, err, "the key's bytes are the key")
		require.True(t, bytes.Equal(plaintext, got), n)
	}
}

func TestSealAndOpenAppend(t *testing.T) {
	k := dek.New()
	sealed := k.Seal([]byte("head"), []byte("block"), aad)
	require.Equal(t, "head", string(sealed[:4]))
	got, err := k.Open([]byte("before "), sealed[4:], aad)
	require.NoError(t, err)
	require.Equal(t, "before block", string(got))

	room := make([]byte, 3, 64)
	got, err = k.Open(room, sealed[4:], aad)
	require.NoError(t, err)
	require.Same(t, &room[0], &got[0], "room that is there is used")
}

func TestSealTwiceDiffers(t *testing.T) {
	k := dek.New()
	a, b := k.Seal(nil, []byte("block"), aad), k.Seal(nil, []byte("block"), aad)
	require.NotEqual(t, a[:12], b[:12], "nonces")
	require.NotEqual(t, a, b)
}

func TestKeysDiffer(t *testing.T) {
	require.NotEqual(t, dek.New().Bytes(), dek.New().Bytes())
}

func TestOpenRefuses(t *testing.T) {
	k := dek.New()
	plaintext := []byte("a block of plaintext")
	sealed := k.Seal(nil, plaintext, aad)
	refuses := func(k *dek.Key, sealed, aad []byte, what string, args ...any) {
		t.Helper()
		room := make([]byte, 0, 128)
		got, err := k.Open(room, sealed, aad)
		require.ErrorIs(t, err, dek.ErrCorrupt, what, args)
		require.Nil(t, got, what, args)
		require.False(t, bytes.Contains(room[:cap(room)], plaintext[:8]), "nothing of the plaintext stays in the caller's buffer")
	}
	for i := range sealed {
		for bit := range 8 {
			sealed[i] ^= 1 << bit
			refuses(k, sealed, aad, "byte %d bit %d flipped", i, bit)
			sealed[i] ^= 1 << bit
		}
	}
	for n := range sealed {
		refuses(k, sealed[:n], aad, "truncated to %d", n)
		refuses(k, sealed[n+1:], aad, "first %d bytes missing", n+1)
	}
	refuses(k, nil, aad, "nothing")
	refuses(k, append(bytes.Clone(sealed), 0), aad, "extended")
	refuses(k, sealed, nil, "no AAD")
	refuses(k, sealed, aad[1:], "AAD shortened")
	refuses(k, sealed, append(bytes.Clone(aad), 0), "AAD extended")
	for i := range aad {
		other := bytes.Clone(aad)
		other[i] ^= 1
		refuses(k, sealed, other, "AAD byte %d flipped", i)
	}
	refuses(dek.New(), sealed, aad, "another key")
	got, err := k.Open(nil, sealed, aad)
	require.NoError(t, err)
	require.Equal(t, plaintext, got)
}

func TestFromBytesSize(t *testing.T) {
	for _, n := range []int{0, 16, 24, 31, 33, 64} {
		b := bytes.Repeat([]byte{0x5a}, n)
		k, err := dek.FromBytes(b)
		require.EqualError(t, err, fmt.Sprintf("dek: a key has 32 bytes, not %d", n))
		require.Nil(t, k)
	}
}

func TestFromBytesCopies(t *testing.T) {
	b := bytes.Repeat([]byte{1}, dek.Size)
	k, err := dek.FromBytes(b)
	require.NoError(t, err)
	sealed := k.Seal(nil, []byte("block"), aad)
	clear(b)
	got, err := k.Open(nil, sealed, aad)
	require.NoError(t, err)
	require.Equal(t, "block", string(got))
	require.Equal(t, bytes.Repeat([]byte{1}, dek.Size), k.Bytes())
}

func TestReuse(t *testing.T) {
	var k dek.Key
	k.Generate()
	first := bytes.Clone(k.Bytes())
	sealed := k.Seal(nil, []byte("first"), aad)
	k.Generate()
	require.NotEqual(t, first, k.Bytes())
	_, err := k.Open(nil, sealed, aad)
	require.ErrorIs(t, err, dek.ErrCorrupt, "the key before is gone")
	require.NoError(t, k.Set(first))
	got, err := k.Open(nil, sealed, aad)
	require.NoError(t, err)
	require.Equal(t, "first", string(got))

	require.Error(t, k.Set(first[:31]))
	got, err = k.Open(nil, sealed, aad)
	require.NoError(t, err, "a refused Set leaves the key as it was")
	require.Equal(t, "first", string(got))

	k.Destroy()
	require.NoError(t, k.Set(first))
	_, err = k.Open(nil, sealed, aad)
	require.NoError(t, err, "a destroyed Key can be filled again")
}

func TestDestroy(t *testing.T) {
	k := dek.New()
	sealed := k.Seal(nil, []byte("block"), aad)
	memory := k.Bytes()
	k.Destroy()
	require.Equal(t, make([]byte, dek.Size), memory)
	require.PanicsWithValue(t, "dek: use of a key that was destroyed", func() { k.Seal(nil, []byte("block"), aad) })
	require.PanicsWithValue(t, "dek: use of a key that was destroyed", func() { k.Open(nil, sealed, aad) })
	require.PanicsWithValue(t, "dek: use of a key that was destroyed", func() { k.Bytes() }, "zeros would be wrapped")
	k.Destroy() // again does nothing

	var zero dek.Key
	require.Panics(t, func() { zero.Seal(nil, nil, nil) }, "the zero Key is no key of zeros")
}

// forms are the ways in which the key of 32 bytes 0xab could show in text.
// They are long enough not to occur in the address of something else.
var forms = []string{
	"abababab", "ABABABAB", "171 171", "171,171", "253 253", "10101011 10101011", "0xab, 0xab", "0XAB, 0XAB", "U+00AB U+00AB",
	`\xab`, "q6urq6ur", "«", "\xab", "uint8=171",
}

func TestKeyDoesNotPrint(t *testing.T) {
	k, err := dek.FromBytes(bytes.Repeat([]byte{0xab}, dek.Size))
	require.NoError(t, err)
	type holder struct {
		Exported   *dek.Key
		unexported *dek.Key
	}
	values := map[string]any{
		"key":               k,
		"in a struct":       holder{k, k},
		"pointer to struct": &holder{k, k},
		"in a slice":        []*dek.Key{k},
		"in a map":          map[string]*dek.Key{"k": k},
		"in an interface":   []any{k},
	}
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%o", "%b", "%c", "%U", "%e", "%f", "%g", "%t", "%p", "%w", "%z"}
	for what, value := range values {
		for _, verb := range verbs {
			hides(t, fmt.Sprintf(verb, value), what+" "+verb)
		}
		hides(t, fmt.Sprint(value), what+" Sprint")
		hides(t, fmt.Sprintln(value), what+" Sprintln")
		out, err := json.Marshal(value)
		require.NoError(t, err)
		hides(t, string(out), what+" JSON")
		for _, handler := range []func(*bytes.Buffer) slog.Handler{
			func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var b bytes.Buffer
			slog.New(handler(&b)).Info("a key", "key", value, slog.Any("any", value), slog.Group("group", "key", value))
			hides(t, b.String(), what+" slog")
		}
	}
	require.Equal(t, "dek.Key(redacted)", k.String())
	require.Equal(t, "dek.Key(redacted)", fmt.Sprintf("%x", k))
}

func hides(t *testing.T, text, how string) {
	t.Helper()
	for _, form := range forms {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the key as %q", how, form)
		}
	}
}

// The forms above are what fmt makes of such bytes where nothing hides them.
func TestTheFormsWouldBeSeen(t *testing.T) {
	bare := struct{ raw [dek.Size]byte }{[dek.Size]byte(bytes.Repeat([]byte{0xab}, dek.Size))}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%e", "%t"} {
		text := fmt.Sprintf(verb, bare)
		seen := false
		for _, form := range forms {
			seen = seen || strings.Contains(text, form)
		}
		require.True(t, seen, "%s gives %q", verb, text)
	}
}

func BenchmarkSeal(b *testing.B) { benchmark(b, false) }
func BenchmarkOpen(b *testing.B) { benchmark(b, true) }

var sizes = []struct {
	name  string
	bytes int
}{{"512B", 512}, {"4KiB", 4 << 10}, {"16KiB", 16 << 10}, {"64KiB", 64 << 10}, {"256KiB", 256 << 10}, {"1MiB", 1 << 20}}

func benchmark(b *testing.B, open bool) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			k := dek.New()
			plaintext := make([]byte, size.bytes)
			sealed := k.Seal(nil, plaintext, aad)
			room := make([]byte, 0, size.bytes+dek.Overhead)
			b.SetBytes(int64(size.bytes))
			b.ReportAllocs()
			for b.Loop() {
				if !open {
					k.Seal(room, plaintext, aad)
				} else if _, err := k.Open(room, sealed, aad); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFreshKeySeal is what one block costs: a new key, and one Seal.
func BenchmarkFreshKeySeal(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			var k dek.Key
			plaintext := make([]byte, size.bytes)
			room := make([]byte, 0, size.bytes+dek.Overhead)
			b.SetBytes(int64(size.bytes))
			b.ReportAllocs()
			for b.Loop() {
				k.Generate()
				k.Seal(room, plaintext, aad)
				k.Destroy()
			}
		})
	}
}
