package bench

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"testing"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var sealSizes = [...]int{512, 4 << 10, 16 << 10, 64 << 10}

// aad is what a block is bound to: a store, a partition and an id have about as much.
const aad = "a context of about thirty bytes"

func newKeyring(b testing.TB) *keyring.Keyring {
	b.Helper()
	v := vaulttest.New(nil)
	r, err := keyring.Create(context.Background(), &keyring.MemStorage{}, kek.New(v, v.CreateKey("k").Versionless()), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}

// sealer seals and opens blocks through a keyring as a database with pages of its own
// does: the lease is checked for each, and the DEK is wrapped, unwrapped and erased. It
// belongs to one goroutine.
type sealer struct {
	ring           *keyring.Keyring
	key            dek.Key
	bind           keyring.Binding
	aad            []byte
	record, sealed []byte
	plaintext      []byte
}

func newSealer(r *keyring.Keyring, size int) *sealer {
	s := &sealer{ring: r, aad: []byte(aad), record: make([]byte, 0, keyring.RecordSize), sealed: make([]byte, 0, size+dek.Overhead), plaintext: make([]byte, 0, size)}
	s.bind.Set(s.aad)
	return s
}

func (s *sealer) seal(data []byte) (err error) {
	h, err := s.ring.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	if s.record, err = h.NewDEK(context.Background(), s.record[:0], &s.key, &s.bind); err != nil {
		return err
	}
	s.sealed = s.key.Seal(s.sealed[:0], data, s.aad)
	s.key.Destroy()
	return nil
}

func (s *sealer) open() (err error) {
	h, err := s.ring.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	if err := h.OpenDEK(context.Background(), &s.key, s.record, &s.bind); err != nil {
		return err
	}
	s.plaintext, err = s.key.Open(s.plaintext[:0], s.sealed, s.aad)
	s.key.Destroy()
	return err
}

// gcm is the standard library's AES-256-GCM with random nonces.
func gcm(key []byte) cipher.AEAD { return setUp(key, cipher.NewGCMWithRandomNonce) }

// setUp is AES-256 under a key, in a mode of the standard library's. It fails for keys of
// another size alone.
func setUp(key []byte, mode func(cipher.Block) (cipher.AEAD, error)) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := mode(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// floorSeal returns what seals data under a fresh key with the standard library alone.
func floorSeal(data []byte) func() error {
	aad, key, dst := []byte(aad), make([]byte, 32), make([]byte, 0, len(data)+dek.Overhead)
	return func() error {
		rand.Read(key)
		dst = gcm(key).Seal(dst[:0], nil, data, aad)
		return nil
	}
}

// BenchmarkSeal is a block sealed under a key of its own. "floor" is the least that the
// standard library takes for that: 32 random bytes, their set-up, one Seal; it has no
// record, no lease and erases nothing. "cipher" is one Seal under a key that is set up
// already: what the processor does with AES-GCM, and no measure of any scheme. "promised"
// is the floor and the least that blockseal's promises take beyond it.
func BenchmarkSeal(b *testing.B) {
	r, aad := newKeyring(b), []byte(aad)
	bySealSize(b, map[string]func(data []byte) func() error{
		"floor": func(data []byte) func() error { return floorSeal(data) },
		"promised": func(data []byte) func() error {
			p, dst := newPromised(random(dek.Size)), make([]byte, 0, len(data)+dek.Overhead)
			return func() error {
				err := p.newKey()
				dst = p.seal(dst[:0], data)
				return err
			}
		},
		"blockseal": func(data []byte) func() error {
			s := newSealer(r, len(data))
			return func() error { return s.seal(data) }
		},
		"cipher": func(data []byte) func() error {
			aead, dst := gcm(random(32)), make([]byte, 0, len(data)+dek.Overhead)
			return func() error { dst = aead.Seal(dst[:0], nil, data, aad); return nil }
		},
	})
}

// BenchmarkOpen is a sealed block opened with its record at hand; "floor" is the key's
// set-up and one Open, "cipher" one Open, "promised" as in BenchmarkSeal.
func BenchmarkOpen(b *testing.B) {
	r, aad := newKeyring(b), []byte(aad)
	bySealSize(b, map[string]func(data []byte) func() error{
		"floor": func(data []byte) func() error {
			key, dst := random(32), make([]byte, 0, len(data))
			sealed := gcm(key).Seal(nil, nil, data, aad)
			return func() (err error) {
				dst, err = gcm(key).Open(dst[:0], nil, sealed, aad)
				return err
			}
		},
		"promised": func(data []byte) func() error {
			p, dst := newPromised(random(dek.Size)), make([]byte, 0, len(data))
			if err := p.newKey(); err != nil {
				b.Fatal(err)
			}
			sealed := p.seal(nil, data)
			return func() (err error) { dst, err = p.open(dst[:0], p.wrapped, sealed); return err }
		},
		"blockseal": func(data []byte) func() error {
			s := newSealer(r, len(data))
			if err := s.seal(data); err != nil {
				b.Fatal(err)
			}
			return s.open
		},
		"cipher": func(data []byte) func() error {
			aead, dst := gcm(random(32)), make([]byte, 0, len(data))
			sealed := aead.Seal(nil, nil, data, aad)
			return func() (err error) { dst, err = aead.Open(dst[:0], nil, sealed, aad); return err }
		},
	})
}

func bySealSize(b *testing.B, impls map[string]func(data []byte) func() error) {
	for _, size := range sealSizes {
		data := random(size)
		for _, name := range []string{"promised", "floor", "blockseal", "cipher"} {
			b.Run(fmt.Sprintf("size=%d/impl=%s", size, name), func(b *testing.B) {
				op, floor := impls[name](data), impls["floor"](data)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				turns(b, min(4096, 4<<20/size), op, "floor", floor)
			})
		}
	}
}

// BenchmarkSealScaling is the time for a block when several goroutines seal under one
// keyring: with two it is half, if nothing is shared that they wait for. The floor, which
// shares nothing but memory and its collector, says what the machine gives.
func BenchmarkSealScaling(b *testing.B) {
	r := newKeyring(b)
	for _, size := range []int{4 << 10, 64 << 10} {
		data := random(size)
		for _, goroutines := range []int{1, 2} {
			run := func(impl string, seals func() func() error) {
				b.Run(fmt.Sprintf("size=%d/goroutines=%d/impl=%s", size, goroutines, impl), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					share(b, goroutines, func(_, count int) error {
						seal := seals()
						for range count {
							if err := seal(); err != nil {
								return err
							}
						}
						return nil
					})
				})
			}
			run("blockseal", func() func() error {
				s := newSealer(r, size)
				return func() error { return s.seal(data) }
			})
			run("floor", func() func() error { return floorSeal(data) })
		}
	}
}
