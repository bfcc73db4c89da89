package bench

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/blockseal/blockseal/dek"
)

// envelope is what the peers have in common with a keyring: it seals a block under a
// fresh key of its own and returns that wrapped, and the way back. Whatever can be set up
// once is. In none of them a KMS is called: each wraps keys with AES-256-GCM under a key
// in memory, as a keyring does with its epoch key.
type envelope interface {
	// seal makes a sealed block and keeps it, in memory of its own if its API allows.
	seal(data []byte) error
	// open opens what seal made last and returns the plaintext.
	open() ([]byte, error)
	// alter changes a byte of the sealed block, alterKey one of the wrapped key.
	alter()
	alterKey()
}

func (s *sealer) alter()    { s.sealed[len(s.sealed)/2] ^= 1 }
func (s *sealer) alterKey() { s.record[len(s.record)/2] ^= 1 }

type ours struct{ *sealer }

func (o ours) open() ([]byte, error) {
	err := o.sealer.open()
	return o.plaintext, err
}

func envelopes(b testing.TB, size int) []struct {
	name string
	envelope
} {
	return []struct {
		name string
		envelope
	}{
		{"blockseal", ours{newSealer(newKeyring(b), size)}},
		{"tink", newTink(b)},
		{"go-kms-wrapping", newHashicorp(b)},
		{"sio", newSIO(b, size)},
	}
}

// What is compared does the same: each opens what it sealed, and refuses what was altered.
func TestEnvelopesAgree(t *testing.T) {
	for _, size := range sealSizes {
		type named = struct {
			name string
			envelope
		}
		for _, e := range append(envelopes(t, size), named{"the least work", newLeast(size)}) {
			for what, alter := range map[string]func(){"block": e.alter, "key": e.alterKey} {
				data := random(size)
				if err := e.seal(data); err != nil {
					t.Fatal(e.name, err)
				}
				got, err := e.open()
				if err != nil || !bytes.Equal(got, data) {
					t.Fatal(e.name, err)
				}
				alter()
				if _, err := e.open(); err == nil {
					t.Fatal(e.name, "opened with an altered", what)
				}
			}
		}
	}
}

// least is the least work of impl=promised.
type least struct {
	*promised
	sealed, plaintext []byte
}

func newLeast(size int) *least {
	return &least{newPromised(random(dek.Size)), make([]byte, 0, size+dek.Overhead), make([]byte, 0, size)}
}

func (l *least) seal(data []byte) error {
	err := l.newKey()
	l.sealed = l.promised.seal(l.sealed[:0], data)
	return err
}

func (l *least) open() (_ []byte, err error) {
	l.plaintext, err = l.promised.open(l.plaintext[:0], l.wrapped, l.sealed)
	return l.plaintext, err
}

func (l *least) alter()    { l.sealed[len(l.sealed)/2] ^= 1 }
func (l *least) alterKey() { l.wrapped[len(l.wrapped)/2] ^= 1 }

// byEnvelope measures each in turns with blockseal, which in turns with itself says what is noise, and the least
// work in turns with each: what a peer leaves in the caches and to the collector is then the same for both.
func byEnvelope(b *testing.B, op func(b *testing.B, e envelope, data []byte) func() error) {
	for _, size := range sealSizes {
		data := random(size)
		for _, e := range envelopes(b, size) {
			b.Run(fmt.Sprintf("size=%d/impl=%s", size, e.name), func(b *testing.B) {
				its, blockseal := op(b, e, data), op(b, ours{newSealer(newKeyring(b), size)}, data)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				turns(b, min(4096, 4<<20/size), its, "blockseal", blockseal)
			})
			if e.name == "blockseal" {
				continue
			}
			b.Run(fmt.Sprintf("size=%d/beside=%s/impl=promised", size, e.name), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				turns(b, min(4096, 4<<20/size), op(b, newLeast(size), data), e.name, op(b, e, data))
			})
		}
	}
}

// BenchmarkSealWrapped is a block sealed under a fresh key, and the key wrapped.
func BenchmarkSealWrapped(b *testing.B) {
	byEnvelope(b, func(_ *testing.B, e envelope, data []byte) func() error {
		return func() error { return e.seal(data) }
	})
}

// BenchmarkUnwrapOpen is the way back: the key unwrapped, and the block opened.
func BenchmarkUnwrapOpen(b *testing.B) {
	byEnvelope(b, func(b *testing.B, e envelope, data []byte) func() error {
		if err := e.seal(data); err != nil {
			b.Fatal(err)
		}
		return func() error { _, err := e.open(); return err }
	})
}
