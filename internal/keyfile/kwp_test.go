package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/wycheproof"
)

// kwpWrap is AES-KWP's other half, for tests. aiv, normally nil, replaces the
// initial value, so that tests can make what no wrapping makes.
func kwpWrap(b cipher.Block, plaintext, aiv []byte) []byte {
	n := (len(plaintext) + 7) / 8
	buf := make([]byte, 8+8*n)
	if aiv == nil {
		aiv = binary.BigEndian.AppendUint32([]byte{0xA6, 0x59, 0x59, 0xA6}, uint32(len(plaintext)))
	}
	copy(buf, aiv)
	copy(buf[8:], plaintext)
	return kwpWrapPadded(b, buf)
}

// kwpWrapPadded encrypts initial value | padded plaintext in place.
func kwpWrapPadded(b cipher.Block, buf []byte) []byte {
	n := len(buf)/8 - 1
	if n == 1 {
		b.Encrypt(buf, buf)
		return buf
	}
	block := make([]byte, 16)
	copy(block, buf[:8])
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(block[8:], buf[8*i:])
			b.Encrypt(block, block)
			copy(buf[8*i:], block[8:])
			binary.BigEndian.PutUint64(block, binary.BigEndian.Uint64(block)^uint64(n*j+i))
		}
	}
	copy(buf, block[:8])
	return buf
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func aesBlock(t testing.TB, key []byte) cipher.Block {
	t.Helper()
	b, err := aes.NewCipher(key)
	require.NoError(t, err)
	return b
}

// RFC 5649, section 6.
func TestKWPExamplesOfTheRFC(t *testing.T) {
	kek := aesBlock(t, unhex(t, "5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8"))
	for _, tt := range []struct{ key, wrapped string }{
		{"c37b7e6492584340bed12207808941155068f738", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{"466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
	} {
		got, ok := kwpUnwrap(kek, unhex(t, tt.wrapped))
		require.True(t, ok)
		require.Equal(t, tt.key, hex.EncodeToString(got))
	}
}

func TestKWPVectors(t *testing.T) {
	var doc struct {
		NumberOfTests int
		TestGroups    []struct {
			Tests []struct {
				TcID                          int
				Comment, Key, Msg, Ct, Result string
			}
		}
	}
	raw, err := wycheproof.Read("aes_kwp_test.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &doc))
	require.Equal(t, 254, doc.NumberOfTests)
	ran, valid := 0, 0
	for _, g := range doc.TestGroups {
		for _, tt := range g.Tests {
			ran++
			b := aesBlock(t, unhex(t, tt.Key))
			msg, ct := unhex(t, tt.Msg), unhex(t, tt.Ct)
			got, ok := kwpUnwrap(b, ct)
			switch tt.Result {
			case "valid":
				valid++
				require.True(t, ok, "%d: %s", tt.TcID, tt.Comment)
				require.Equal(t, msg, got, "%d: %s", tt.TcID, tt.Comment)
				require.Equal(t, ct, kwpWrap(b, msg, nil), "%d: the tests' own wrapping", tt.TcID)
			case "invalid":
				require.False(t, ok, "%d: %s", tt.TcID, tt.Comment)
				require.Nil(t, got)
			default:
				t.Fatalf("%d: result %q", tt.TcID, tt.Result)
			}
		}
	}
	require.Equal(t, 254, ran)
	require.Equal(t, 77, valid)
}

func TestKWPTakesEveryLength(t *testing.T) {
	b := aesBlock(t, bytes.Repeat([]byte{7}, 32))
	for size := 1; size <= 64; size++ {
		want := bytes.Repeat([]byte{0}, size) // zeros, like padding
		wrapped := kwpWrap(b, want, nil)
		got, ok := kwpUnwrap(b, wrapped)
		require.True(t, ok, size)
		require.Equal(t, want, got)
		for i := range wrapped {
			changed := bytes.Clone(wrapped)
			changed[i] ^= 1
			_, ok := kwpUnwrap(b, changed)
			require.False(t, ok, "%d bytes, byte %d changed", size, i)
		}
		for n := range wrapped {
			_, ok := kwpUnwrap(b, wrapped[:n])
			require.False(t, ok, "%d bytes, cut to %d", size, n)
		}
		_, ok = kwpUnwrap(b, append(wrapped, make([]byte, 8)...))
		require.False(t, ok)
	}
}

// What decrypts, but is no output of AES-KWP: the three checks of RFC 5649,
// section 3, one by one, at both sides of their bounds.
func TestKWPChecksTheInitialValueAndThePadding(t *testing.T) {
	b := aesBlock(t, bytes.Repeat([]byte{7}, 32))
	aiv := func(magic, length uint32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, magic), length)
	}
	for _, blocks := range []int{1, 2, 3} {
		full := uint32(8 * blocks)
		for _, tt := range []struct {
			what    string
			aiv     []byte
			padding byte // in the last byte
			ok      bool
		}{
			{"no padding", aiv(kwpMagic, full), 0, true},
			{"no padding, a last byte that is not zero", aiv(kwpMagic, full), 1, true},
			{"1 byte of padding", aiv(kwpMagic, full-1), 0, true},
			{"1 byte of padding that is not zero", aiv(kwpMagic, full-1), 0x80, false},
			{"7 bytes of padding", aiv(kwpMagic, full-7), 0, true},
			{"7 bytes of padding, the last not zero", aiv(kwpMagic, full-7), 1, false},
			{"8 bytes of padding", aiv(kwpMagic, full-8), 0, false},
			{"longer than what is there", aiv(kwpMagic, full+1), 0, false},
			{"a length of 0", aiv(kwpMagic, 0), 0, false},
			{"the greatest length", aiv(kwpMagic, 1<<32-1), 0, false},
			{"a length beyond 2^31", aiv(kwpMagic, 1<<31|full), 0, false},
			{"another constant", aiv(kwpMagic+1, full), 0, false},
			{"the constant of RFC 3394", aiv(0xA6A6A6A6, 0xA6A6A6A6), 0, false},
		} {
			plain := make([]byte, full)
			plain[full-1] = tt.padding
			_, ok := kwpUnwrap(b, kwpWrap(b, plain, tt.aiv))
			require.Equal(t, tt.ok, ok, "%d blocks: %s", blocks, tt.what)
		}
	}
}

func TestKWPRefusesWrongSizes(t *testing.T) {
	b := aesBlock(t, make([]byte, 32))
	for _, n := range []int{0, 1, 8, 15, 17, 23, 31, kwpMax + 8} {
		_, ok := kwpUnwrap(b, make([]byte, n))
		require.False(t, ok, n)
	}
}

// The unwrapping alone, on what is no output of any wrapping.
func FuzzKWPUnwrap(f *testing.F) {
	kek := bytes.Repeat([]byte{7}, 32)
	for size := 1; size < 40; size += 3 {
		f.Add(kwpWrap(aesBlock(f, kek), make([]byte, size), nil))
	}
	f.Add(make([]byte, 16))
	f.Fuzz(func(t *testing.T, wrapped []byte) {
		b := aesBlock(t, kek)
		if got, ok := kwpUnwrap(b, wrapped); ok {
			require.Equal(t, wrapped, kwpWrap(b, got, nil), "what unwraps is what wrapping gives")
		} else {
			require.Nil(t, got)
		}
	})
}
