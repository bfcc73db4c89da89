package keyfile

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// AES key wrap with padding (AES-KWP, RFC 5649, NIST SP 800-38F section 6.3) is
// what a .byok file's key is encrypted with. The standard library has AES but not
// this mode of it, so that unwrapping, which is all that an import needs, is here:
// RFC 3394's unwrapping steps over the standard library's block cipher, and RFC
// 5649's check of the initial value. Nothing in blockseal wraps with it.

// kwpMagic is the constant half of RFC 5649's alternative initial value; the other
// half is the length of the plaintext in bytes, big-endian.
const kwpMagic = 0xA65959A6

// kwpMax bounds the input in bytes. RFC 5649 permits up to 2^32; a key to import
// has a few thousand.
const kwpMax = 1 << 20

// kwpUnwrap decrypts what AES-KWP made of 1 byte or more, or says no. It does not
// say what was wrong, not by its time either: from the last block decryption to the
// verdict, its steps depend on the input's length alone (NIST SP 800-38F wants one
// kind of failure). The caller clears the result.
func kwpUnwrap(b cipher.Block, wrapped []byte) ([]byte, bool) {
	if b.BlockSize() != 16 || len(wrapped) < 16 || len(wrapped) > kwpMax || len(wrapped)%8 != 0 {
		return nil, false
	}
	// n is the number of 64-bit blocks of padded plaintext. buf becomes
	// A | R[1] | ... | R[n], in the RFC's names.
	n := len(wrapped)/8 - 1
	buf := make([]byte, len(wrapped))
	if n == 1 {
		b.Decrypt(buf, wrapped) // section 4.2: a single block of AES
	} else {
		copy(buf, wrapped)
		kwpRounds(b, buf, n)
	}
	size, ok := kwpCheck(buf, n)
	if ok != 1 {
		clear(buf)
		return nil, false
	}
	return buf[8 : 8+size : 8+size], true
}

// kwpRounds is W^-1 of RFC 3394, section 2.2.2, step 2, in place.
func kwpRounds(b cipher.Block, buf []byte, n int) {
	var block [16]byte
	a := buf[:8]
	for t := uint64(6 * n); t > 0; t-- {
		i := (t-1)%uint64(n) + 1
		r := buf[8*i : 8*i+8]
		binary.BigEndian.PutUint64(block[:8], binary.BigEndian.Uint64(a)^t)
		copy(block[8:], r)
		b.Decrypt(block[:], block[:])
		copy(a, block[:8])
		copy(r, block[8:])
	}
	clear(block[:])
}

// kwpCheck makes the three checks of RFC 5649, section 3, and returns the size of
// the plaintext, and 1 if all hold, else 0: the constant is there; the length fits
// into n blocks, not into n-1; the padding is zero.
func kwpCheck(buf []byte, n int) (size, ok int) {
	magic := binary.BigEndian.Uint32(buf)
	length := uint64(binary.BigEndian.Uint32(buf[4:]))
	ok = kwpEqual(uint64(magic), kwpMagic)
	// With 0 to 7 bytes of padding, and only then, the rest of this is 0.
	pad := uint64(8*n) - length
	ok &= kwpEqual(pad>>3, 0)
	var dirty byte
	for i, c := range buf[len(buf)-8:] {
		isPad := subtle.ConstantTimeLessOrEq(8-i, int(pad&7)) // the last pad&7 bytes
		dirty |= c & byte(-isPad)
	}
	ok &= subtle.ConstantTimeByteEq(dirty, 0)
	return int(uint64(8*n) - pad&7), ok
}

// kwpEqual is subtle.ConstantTimeEq for 64 bits.
func kwpEqual(x, y uint64) int {
	d := x ^ y
	return subtle.ConstantTimeEq(int32(uint32(d)|uint32(d>>32)), 0)
}
