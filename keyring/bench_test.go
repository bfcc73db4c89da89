package keyring_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func benchKeyring(b *testing.B) *keyring.Keyring {
	b.Helper()
	v := vaulttest.New(nil)
	r, err := keyring.Create(context.Background(), &keyring.MemStorage{}, kek.New(v, v.CreateKey("k").Versionless()), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	return r
}

func sizes(b *testing.B, f func(b *testing.B, data []byte)) {
	for _, n := range []int{512, 4 << 10, 16 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := make([]byte, n)
			rand.Read(data)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			f(b, data)
		})
	}
}

var aad = []byte("a context of about thirty bytes")

// BenchmarkSealFloor is the least that a block under a key of its own costs: the
// key, its set-up, one Seal.
func BenchmarkSealFloor(b *testing.B) {
	sizes(b, func(b *testing.B, data []byte) {
		key, dst := make([]byte, 32), make([]byte, 0, len(data)+dek.Overhead)
		for b.Loop() {
			rand.Read(key)
			block, err := aes.NewCipher(key)
			if err != nil {
				b.Fatal(err)
			}
			aead, err := cipher.NewGCMWithRandomNonce(block)
			if err != nil {
				b.Fatal(err)
			}
			dst = aead.Seal(dst[:0], nil, data, aad)
		}
	})
}

// BenchmarkSeal is a fresh DEK, wrapped by the keyring, and the block sealed.
func BenchmarkSeal(b *testing.B) {
	r := benchKeyring(b)
	sizes(b, func(b *testing.B, data []byte) {
		var key dek.Key
		var bind keyring.Binding
		bind.Set(aad)
		record, dst := make([]byte, 0, keyring.RecordSize), make([]byte, 0, len(data)+dek.Overhead)
		for b.Loop() {
			h, err := r.Acquire()
			if err != nil {
				b.Fatal(err)
			}
			if record, err = h.NewDEK(context.Background(), record[:0], &key, &bind); err != nil {
				b.Fatal(err)
			}
			dst = key.Seal(dst[:0], data, aad)
			key.Destroy()
			h.Release()
		}
	})
}

// BenchmarkOpen is a block opened with its record at hand, and
// BenchmarkOpenWithoutLease the same in one hold for all blocks: the difference is
// what the lease check costs an operation.
func BenchmarkOpen(b *testing.B)             { benchOpen(b, true) }
func BenchmarkOpenWithoutLease(b *testing.B) { benchOpen(b, false) }

func benchOpen(b *testing.B, checked bool) {
	r := benchKeyring(b)
	sizes(b, func(b *testing.B, data []byte) {
		fresh, record, err := r.NewDEK(context.Background(), aad)
		if err != nil {
			b.Fatal(err)
		}
		sealed := fresh.Seal(nil, data, aad)
		var key dek.Key
		var bind keyring.Binding
		bind.Set(aad)
		dst := make([]byte, 0, len(data))
		h, err := r.Acquire()
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if checked {
				h.Release()
				if h, err = r.Acquire(); err != nil {
					b.Fatal(err)
				}
			}
			if err := h.OpenDEK(context.Background(), &key, record, &bind); err != nil {
				b.Fatal(err)
			}
			if dst, err = key.Open(dst[:0], sealed, aad); err != nil {
				b.Fatal(err)
			}
			key.Destroy()
		}
		h.Release()
	})
}

// BenchmarkWrap is a DEK made and wrapped, and BenchmarkLease the lease check alone.
func BenchmarkWrap(b *testing.B) {
	r := benchKeyring(b)
	h, err := r.Acquire()
	if err != nil {
		b.Fatal(err)
	}
	defer h.Release()
	var key dek.Key
	var bind keyring.Binding
	bind.Set(aad)
	record := make([]byte, 0, keyring.RecordSize)
	b.ReportAllocs()
	for b.Loop() {
		if record, err = h.NewDEK(context.Background(), record[:0], &key, &bind); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLook is what a check costs more because others may have changed the document: a Load
// of a document that stands still, of a new keyring and of one with as many epochs as there may be.
func BenchmarkLook(b *testing.B) {
	v := vaulttest.New(nil)
	for _, epochs := range []int{1, keyring.MaxEpochs - 1} {
		for name, s := range map[string]keyring.Storage{"memory": &keyring.MemStorage{}, "file": keyring.FileStorage(filepath.Join(b.TempDir(), "keyring"))} {
			r, err := keyring.Create(b.Context(), s, kek.New(v, v.CreateKey(fmt.Sprint(name, epochs)).Versionless()), nil)
			require.NoError(b, err)
			require.NoError(b, r.FillEpochs(b.Context(), epochs))
			require.NoError(b, r.Close())
			b.Run(fmt.Sprintf("%s, %d epochs", name, epochs), func(b *testing.B) {
				for b.Loop() {
					if _, _, err := s.Load(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkLease(b *testing.B) {
	r := benchKeyring(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h, err := r.Acquire()
			if err != nil {
				b.Fatal(err)
			}
			h.Release()
		}
	})
}

// With ByKEK: a record made and opened again, from the cache and from the vault, which is
// in memory and takes an RSA operation.
func BenchmarkByKEK(b *testing.B) {
	for name, cache := range map[string]int{"cached": 0, "from the vault": -1} {
		b.Run(name, func(b *testing.B) {
			v := vaulttest.New(nil)
			r, err := keyring.Create(b.Context(), &keyring.MemStorage{}, kek.New(v, v.CreateKey("k")),
				&keyring.Options{Wrapping: keyring.ByKEK, DEKCache: cache})
			require.NoError(b, err)
			defer r.Close()
			key, record, err := r.NewDEK(b.Context(), []byte("id"))
			require.NoError(b, err)
			key.Destroy()
			b.ReportAllocs()
			for b.Loop() {
				key, err := r.OpenDEK(b.Context(), record, []byte("id"))
				require.NoError(b, err)
				key.Destroy()
			}
		})
	}
	b.Run("new", func(b *testing.B) {
		v := vaulttest.New(nil)
		r, err := keyring.Create(b.Context(), &keyring.MemStorage{}, kek.New(v, v.CreateKey("k")), &keyring.Options{Wrapping: keyring.ByKEK})
		require.NoError(b, err)
		defer r.Close()
		b.ReportAllocs()
		for b.Loop() {
			key, _, err := r.NewDEK(b.Context(), []byte("id"))
			require.NoError(b, err)
			key.Destroy()
		}
	})
}
