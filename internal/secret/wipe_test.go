package secret

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
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
