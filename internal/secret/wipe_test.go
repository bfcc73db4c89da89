package secret

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"reflect"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The wipe must know this release of Go: if it does not, keys stay in memory
// longer than docs/threat-model.md says, and this test is where it shows.
func TestWipeKnowsTheStandardLibrary(t *testing.T) {
	require.True(t, Wipes())
}

func TestWipeErasesTheKey(t *testing.T) {
	key := bytes.Repeat([]byte("\x5a\xc3"), 16)
	b, err := aes.NewCipher(key)
	require.NoError(t, err)
	a, err := cipher.NewGCMWithRandomNonce(b)
	require.NoError(t, err)

	l := known
	block := unsafe.Slice((*byte)(reflect.ValueOf(b).UnsafePointer()), l.blockSize)
	gcm := unsafe.Slice((*byte)(reflect.ValueOf(a).Field(0).UnsafePointer()), l.gcmSize)
	require.True(t, bytes.Contains(block, key), "the test looks in the wrong place")
	require.True(t, bytes.Contains(gcm, key), "the test looks in the wrong place")

	sealed := a.Seal(nil, nil, []byte("plaintext"), nil)
	WipeBlock(b)
	require.Equal(t, make([]byte, len(block)), block)
	got, err := a.Open(nil, nil, sealed, nil)
	require.NoError(t, err, "the GCM must have a copy of its own")
	require.Equal(t, "plaintext", string(got))

	WipeAEAD(a)
	require.Equal(t, make([]byte, len(gcm)), gcm)

	b, err = aes.NewCipher(key)
	require.NoError(t, err)
	g, err := cipher.NewGCM(b)
	if err != nil {
		return // not in a program that the FIPS 140-3 module restricts
	}
	gcm = unsafe.Slice((*byte)(reflect.ValueOf(g).UnsafePointer()), l.gcmSize)
	require.True(t, bytes.Contains(gcm, key), "the test looks in the wrong place")
	WipeAEAD(g)
	require.Equal(t, make([]byte, len(gcm)), gcm)
}

// An HMAC has the key in two slices, each byte xor a constant; and it is nobody's else.
func TestWipeErasesTheKeyOfAnHMAC(t *testing.T) {
	key := bytes.Repeat([]byte("\x5a\xc3"), 16)
	h := hmac.New(sha256.New, key)
	h.Write([]byte("message"))
	sum := h.Sum(nil)
	require.NotNil(t, known.hmac, "the wipe does not know this standard library")
	require.Len(t, known.pads, 2)
	require.Len(t, known.states, 2)
	v := reflect.ValueOf(h).Elem()
	var pads [][]byte
	for _, i := range known.pads {
		pad := v.Field(i).Bytes()
		require.Equal(t, key[0]^key[1], pad[0]^pad[1], "the test looks in the wrong place")
		require.NotZero(t, pad[0])
		pads = append(pads, pad)
	}
	WipeHMAC(h)
	for _, pad := range pads {
		require.Equal(t, make([]byte, len(pad)), pad)
	}
	for _, i := range known.states {
		state := v.Field(i).Elem()
		require.True(t, state.Elem().IsZero())
	}
	again := hmac.New(sha256.New, key)
	again.Write([]byte("message"))
	require.Equal(t, sum, again.Sum(nil))
	WipeHMAC(nil)
	WipeHMAC(sha256.New())
	WipeHMAC(hmac.New(sha512.New, key))
}

// foreign is an AEAD of another type.
type foreign struct{ cipher.AEAD }

// foreignBlock is a block cipher of another type, whose memory is its own.
type foreignBlock struct {
	cipher.Block
	own [1024]byte
}

func TestWipeLeavesOtherTypesAlone(t *testing.T) {
	b, err := aes.NewCipher(make([]byte, 16))
	require.NoError(t, err)
	a, err := cipher.NewGCMWithRandomNonce(b)
	require.NoError(t, err)
	WipeAEAD(foreign{a})
	WipeAEAD(nil)
	WipeBlock(nil)
	other := &foreignBlock{Block: b, own: [1024]byte{1, 1023: 1}}
	WipeBlock(other)
	require.Equal(t, &foreignBlock{Block: b, own: [1024]byte{1, 1023: 1}}, other)
	sealed := a.Seal(nil, nil, []byte("plaintext"), nil)
	_, err = a.Open(nil, nil, sealed, nil)
	require.NoError(t, err)
}

// Do calls what it is given, once, before it returns, in every build.
func TestDoCalls(t *testing.T) {
	n := 0
	Do(func() { n++ })
	require.Equal(t, 1, n)
}
