package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"reflect"
	"unsafe"
)

// The standard library's AES and GCM values hold the expanded key, whose first
// words are the key itself, and offer no way to erase it. Wipe does so all the
// same, where it is certain of what it overwrites: values of exactly the types
// that this program's standard library makes, whose memory reflection shows to
// hold no pointers. No pointers means that the garbage collector does not care
// what the memory says, and that a GCM cannot refer to the block cipher that it
// was made from. With any other type or layout it does nothing.
//
// What it cannot reach is copies that the compiler made in registers and on
// stacks; see Do.

// layout is the types that Wipe knows.
type layout struct {
	block, gcm         reflect.Type // pointers to aes' block and to a GCM
	random             reflect.Type // the struct around the GCM that draws nonces
	blockSize, gcmSize uintptr

	hmac         reflect.Type // pointer to an HMAC-SHA-256
	pads, states []int        // its fields that are slices of bytes, and pointers to hashes
	state        reflect.Type // pointer to a hash
}

// known is inspected when the program starts, and does not change: looking whether it was
// inspected already would cost a third of a wipe.
var known = inspect()

func inspect() *layout {
	l := inspectAEAD()
	l.inspectHMAC()
	return l
}

func inspectAEAD() *layout {
	b, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return new(layout)
	}
	g, err := cipher.NewGCMWithRandomNonce(b)
	if err != nil {
		return new(layout)
	}
	bt, rt := reflect.TypeOf(b), reflect.TypeOf(g)
	if rt.Kind() != reflect.Struct || rt.NumField() != 1 {
		return new(layout)
	}
	gt := rt.Field(0).Type
	if bt.Kind() != reflect.Pointer || !pointerFree(bt.Elem()) || gt.Kind() != reflect.Pointer || !pointerFree(gt.Elem()) {
		return new(layout)
	}
	return &layout{block: bt, gcm: gt, random: rt, blockSize: bt.Elem().Size(), gcmSize: gt.Elem().Size()}
}

// Wipes reports whether Wipe erases anything with this standard library.
func Wipes() bool { return known.block != nil }

func pointerFree(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if !pointerFree(t.Field(i).Type) {
				return false
			}
		}
		return true
	case reflect.Array:
		return pointerFree(t.Elem())
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return false
}

// WipeBlock overwrites the expanded key of an AES block cipher, which nobody may
// use any more. A GCM that was made from it has a copy and goes on working.
func WipeBlock(b cipher.Block) {
	if b != nil && reflect.TypeOf(b) == known.block {
		wipe(reflect.ValueOf(b), known.blockSize)
	}
}

// WipeAEAD overwrites the expanded key of an AES-GCM, of NewGCM or of
// NewGCMWithRandomNonce, which nobody may use any more: it would seal under a key
// of zeros.
func WipeAEAD(a cipher.AEAD) {
	if a == nil {
		return
	}
	switch reflect.TypeOf(a) {
	case known.gcm:
		wipe(reflect.ValueOf(a), known.gcmSize)
	case known.random:
		wipe(reflect.ValueOf(a).Field(0), known.gcmSize)
	}
}

// wipe overwrites the size bytes that a pointer points to.
func wipe(pointer reflect.Value, size uintptr) {
	clear(unsafe.Slice((*byte)(pointer.UnsafePointer()), size))
}

// WipeHMAC overwrites what an HMAC-SHA-256 of crypto/hmac has of its key, after its Sum: nobody may
// use it any more. It has the key itself, xor a constant, in two slices, and the states of two hashes
// that have read those.
func WipeHMAC(h hash.Hash) {
	if h == nil || reflect.TypeOf(h) != known.hmac {
		return
	}
	v := reflect.ValueOf(h).Elem()
	for _, i := range known.pads {
		clear(v.Field(i).Bytes())
	}
	for _, i := range known.states {
		if state := v.Field(i).Elem(); state.IsValid() && state.Type() == known.state {
			wipe(state, known.state.Elem().Size())
		}
	}
}

// inspectHMAC finds in the HMAC of this standard library the slices that hold the key and the hashes.
func (l *layout) inspectHMAC() {
	h := reflect.ValueOf(hmac.New(sha256.New, make([]byte, 32)))
	if h.Kind() != reflect.Pointer || h.Elem().Kind() != reflect.Struct {
		return
	}
	var pads, states []int
	var state reflect.Type
	for i := range h.Elem().NumField() {
		switch f := h.Elem().Field(i); f.Kind() {
		case reflect.Slice:
			if f.Type().Elem().Kind() != reflect.Uint8 {
				return
			}
			pads = append(pads, i)
		case reflect.Interface:
			t := f.Elem().Type()
			if t.Kind() != reflect.Pointer || !pointerFree(t.Elem()) || (state != nil && t != state) {
				return
			}
			state = t
			states = append(states, i)
		default:
			if !pointerFree(f.Type()) {
				return
			}
		}
	}
	l.hmac, l.pads, l.states, l.state = h.Type(), pads, states, state
}
