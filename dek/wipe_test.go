package dek

import (
	"bytes"
	"reflect"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/secret"
)

// memory is what the standard library's value behind an AEAD holds: the expanded key.
func memory(a *AEAD) []byte {
	v := reflect.ValueOf(a.gcm)
	if v.Kind() == reflect.Struct { // the one that draws nonces is around it
		v = v.Field(0)
	}
	return unsafe.Slice((*byte)(v.UnsafePointer()), v.Type().Elem().Size())
}

// Destroy overwrites the key, in every build: where it lies, and not only by letting go
// of it.
func TestDestroyOverwrites(t *testing.T) {
	require.True(t, secret.Wipes())
	raw := bytes.Repeat([]byte{0xa5}, Size)
	a, err := NewAEAD(raw)
	require.NoError(t, err)
	m := memory(&a)
	require.True(t, bytes.Contains(m, raw[:16]), "the first round keys are the key")
	a.Destroy()
	require.Equal(t, make([]byte, len(m)), m)

	k, err := FromBytes(raw)
	require.NoError(t, err)
	m, own := memory(&k.aead), k.raw
	k.Destroy()
	require.Equal(t, make([]byte, len(m)), m)
	require.Equal(t, make([]byte, len(own)), own[:])

	// The key that was there before another is not left either.
	k.Generate()
	m = memory(&k.aead)
	k.Generate()
	require.Equal(t, make([]byte, len(m)), m)
}
