// Package dek is one data encryption key: 32 random bytes that seal exactly
// one version of one block with AES-256-GCM.
//
// Start with [New], then [Key.Seal]; to read, [FromBytes] and [Key.Open]. Call
// [Key.Destroy] when done. Programs that use a keyring get their keys from
// there and call only Seal, Open and Destroy.
//
// A sealed block is
//
//	+-----------+-----------------------+----------+
//	| nonce, 12 | ciphertext, as the    | tag, 16  |
//	|           | plaintext             |          |
//	+-----------+-----------------------+----------+
//
// AES-256-GCM per NIST SP 800-38D with a random 96-bit nonce from crypto/rand, in
// FIPS 140-3 mode drawn inside the module. Because a key seals one block version,
// nonces cannot collide under a key; the random nonce is a second line of defence,
// for a program that seals twice by mistake.
package dek

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
)

// Size is the size of a key in bytes.
const Size = 32

// Overhead is how many bytes longer a sealed block is than its plaintext: a
// 12-byte nonce and a 16-byte tag.
const Overhead = 28

// ErrCorrupt says that a sealed block did not authenticate: another key, another
// AAD, or altered bytes. Which of them, nobody can tell. All damage that packages
// keyring and block find matches it too: it is their ErrCorrupt.
var ErrCorrupt = errors.New("corrupt")

var errOpen = fmt.Errorf("dek: the sealed bytes do not authenticate under this key and AAD: %w", ErrCorrupt)

// Key is a data encryption key.
//
// Seal, Open and Bytes are safe for concurrent use with each other; Generate, Set,
// Unwrap and Destroy are not safe with anything. A Key must not be copied. It never
// prints its bytes.
type Key struct {
	// The bytes are behind a pointer because package fmt, given a struct that has a
	// Key in an unexported field, prints the fields and calls no method; pointers
	// it prints as addresses.
	raw  *[Size + nonceSize]byte // key | nonce of its wrap, and of its first Seal
	aead AEAD                    // zero: destroyed, or never set

	// 1: the nonce of the first Seal is still to be used. Seal alone is concurrent
	// with itself, so that only there it needs to be atomic.
	fresh uint32

	_ noCopy
}

// noCopy makes go vet's copylocks check refuse copies of a Key, each of which
// would be one more secret that nobody destroys.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// New returns a fresh key from crypto/rand, which cannot fail.
func New() *Key {
	k := new(Key)
	k.Generate()
	return k
}

// FromBytes returns the key with the given [Size] bytes, of which it keeps a
// copy. The caller clears b.
func FromBytes(b []byte) (*Key, error) {
	k := new(Key)
	if err := k.Set(b); err != nil {
		return nil, err
	}
	return k, nil
}

// Generate makes k a fresh key from crypto/rand, as [New] does, in memory that
// the caller already has: one Key can serve many blocks, one after the other.
func (k *Key) Generate() {
	k.room()
	// Key and nonce at once, because reading costs by the call. crypto/rand.Read fills
	// the slice or ends the process; see its doc.
	rand.Read(k.raw[:])
	k.expand()
	k.fresh = 1
}

// GenerateWrapped is Generate, and appends the key, sealed under another one, to
// dst: [WrappedSize] bytes more, which Unwrap takes with the same aad.
//
// The wrap and the key's first Seal have the same 12 random bytes for a nonce. What
// GCM asks is that no nonce comes twice under one key (NIST SP 800-38D, section 8),
// and these are two keys that know nothing of each other: under either, the nonce is
// as random as any. Twelve bytes more would make sealing a small block some percent
// slower.
func (k *Key) GenerateWrapped(dst []byte, under *AEAD, aad []byte) []byte {
	k.Generate()
	under.mustLive()
	return under.sealWith(k.raw[Size:], dst, k.raw[:Size:Size], aad)
}

// Set makes k the key with the given [Size] bytes, in memory that the caller
// already has. The caller clears b.
func (k *Key) Set(b []byte) error {
	if len(b) != Size {
		return fmt.Errorf("dek: a key has %d bytes, not %d", Size, len(b))
	}
	k.room()
	copy(k.raw[:Size], b)
	k.expand()
	return nil
}

// room makes room for the bytes, which stays for as long as k does.
func (k *Key) room() {
	if k.raw == nil {
		k.raw = new([Size + nonceSize]byte)
	}
}

func (k *Key) expand() {
	k.fresh = 0
	k.aead.Destroy() // of the key that was here before, if any
	var err error
	if k.aead, err = NewAEAD(k.raw[:Size]); err != nil {
		// 32 bytes are always a valid AES-256 key, and GCM takes any AES block.
		panic("dek: AES-256-GCM refused a 32-byte key: " + err.Error())
	}
}

// Seal appends the sealed plaintext, len(plaintext)+[Overhead] bytes, to dst
// and returns the extended slice. aad is authenticated and not stored: Open
// needs the same. The unused capacity of dst must not overlap plaintext.
//
// A key seals one block version. Seal panics on a key that was destroyed.
func (k *Key) Seal(dst, plaintext, aad []byte) []byte {
	k.mustLive()
	if atomic.CompareAndSwapUint32(&k.fresh, 1, 0) {
		return k.aead.sealWith(k.raw[Size:], dst, plaintext, aad)
	}
	return k.aead.Seal(dst, plaintext, aad)
}

// Open appends the plaintext, len(sealed)-[Overhead] bytes, to dst and returns
// the extended slice. On error, which matches [ErrCorrupt], it returns nil and
// nothing of the plaintext.
//
// Open panics on a key that was destroyed.
func (k *Key) Open(dst, sealed, aad []byte) ([]byte, error) {
	k.mustLive()
	out, err := k.aead.Open(dst, sealed, aad)
	if err != nil {
		return nil, errOpen
	}
	return out, nil
}

// WrappedSize is the size in bytes of a wrapped key.
const WrappedSize = Size + Overhead

// Unwrap makes k the key that GenerateWrapped sealed under the same key and aad, in memory
// that k already has. On error, which matches [ErrCorrupt], k is destroyed.
func (k *Key) Unwrap(wrapped []byte, under *AEAD, aad []byte) error {
	k.room()
	if len(wrapped) != WrappedSize {
		k.Destroy()
		return errOpen
	}
	if _, err := under.Open(k.raw[:0:Size], wrapped, aad); err != nil {
		k.Destroy()
		return errOpen
	}
	k.expand()
	return nil
}

func (k *Key) mustLive() {
	if k.aead.gcm == nil {
		panic("dek: use of a key that was destroyed")
	}
}

// Bytes returns the key's own bytes, for wrapping. The slice is k's memory: do
// not keep it, change it or let it outlive Destroy. It panics on a key that was
// destroyed.
func (k *Key) Bytes() []byte {
	k.mustLive()
	return k.raw[:Size:Size]
}

// Destroy overwrites the key's bytes and its expanded key. A destroyed Key may be
// filled again with Generate or Set.
//
// Copies that the compiler made in registers and on stacks are beyond a Go
// program's reach; docs/threat-model.md says how long they stay.
func (k *Key) Destroy() {
	if k.raw != nil {
		clear(k.raw[:])
	}
	k.aead.Destroy()
}
