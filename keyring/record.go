package keyring

import (
	"encoding/binary"
	"fmt"

	"github.com/blockseal/blockseal/dek"
)

// A DEK record, what NewDEK returns as wrapped. Integers are big-endian; on disk,
// and must not change.
//
//	ByKeyring, 65 bytes              ByKEK, 325 bytes
//	offset size field                offset size field
//	     0    1 type, 1                   0    1 type, 2
//	     1    4 epoch id                  1    4 epoch id
//	     5   12 nonce                     5    4 id of the KEK in the document
//	    17   32 DEK, encrypted            9   12 nonce
//	    49   16 tag                      21  256 RSA-OAEP-256 of the DEK, encrypted
//	                                    277   32 commitment to the DEK, encrypted; see commit.go
//	                                    309   16 tag
//
// Both are AES-256-GCM under the epoch key. The AAD is everything before the
// nonce, then the store id (16 bytes), then the context that the caller gave:
// a record opens for no other store and no other block, under no other epoch or
// KEK than it says. The sizes of type and store id are fixed, so that no two
// different triples give the same AAD.
const (
	typeByKeyring = 1
	typeByKEK     = 2

	headByKeyring = 5
	headByKEK     = 9

	// RecordSize is the size in bytes of a DEK record wrapped ByKeyring.
	RecordSize = headByKeyring + dek.WrappedSize
	// RecordSizeByKEK is the size in bytes of a DEK record wrapped ByKEK.
	RecordSizeByKEK = headByKEK + innerByKEK + dek.Overhead
)

// RecordInfo is what a DEK record says in clear, before it is authenticated.
type RecordInfo struct {
	Wrapping Wrapping `json:"wrapping"`
	Epoch    uint32   `json:"epoch"`
	KEK      uint32   `json:"kek"` // with ByKEK: the id in the keyring document's table
}

// ParseRecord reads the part of a DEK record that is in clear. It matches
// [ErrCorrupt] or, for a type that this release does not know, [ErrVersion].
func ParseRecord(record []byte) (RecordInfo, error) {
	if len(record) == 0 {
		return RecordInfo{}, corrupt("the DEK record is empty")
	}
	var in RecordInfo
	want := RecordSize
	switch record[0] {
	case typeByKeyring:
		in.Wrapping = ByKeyring
	case typeByKEK:
		in.Wrapping, want = ByKEK, RecordSizeByKEK
	default:
		return in, fmt.Errorf("keyring: the DEK record has type %d, this release reads 1 and 2: %w", record[0], ErrVersion)
	}
	if len(record) != want {
		return in, corrupt("the DEK record has %d bytes, want %d", len(record), want)
	}
	in.Epoch = binary.BigEndian.Uint32(record[1:])
	if in.Wrapping == ByKEK {
		in.KEK = binary.BigEndian.Uint32(record[5:])
	}
	return in, nil
}

func (in RecordInfo) headSize() int {
	if in.Wrapping == ByKEK {
		return headByKEK
	}
	return headByKeyring
}

// putHead writes the clear part of a record to b, which has room.
func (in RecordInfo) putHead(b []byte) {
	if in.Wrapping == ByKEK {
		b[0] = typeByKEK
		binary.BigEndian.PutUint32(b[5:], in.KEK)
	} else {
		b[0] = typeByKeyring
	}
	binary.BigEndian.PutUint32(b[1:], in.Epoch)
}

// Binding is what a DEK is bound to: the context of NewDEK, in memory that can
// serve one operation after the other without allocating. It belongs to one
// goroutine. The zero Binding is an empty context.
type Binding struct {
	// room for the clear part of a record | store id | context
	buf []byte
}

const bindingHead = headByKEK + storeIDSize

// Set makes the binding the concatenation of parts.
func (b *Binding) Set(parts ...[]byte) {
	if cap(b.buf) < bindingHead {
		b.buf = make([]byte, bindingHead, 128)
	}
	b.buf = b.buf[:bindingHead]
	for _, p := range parts {
		b.buf = append(b.buf, p...)
	}
}

// aad returns the AAD of a record with the given clear part. The record's clear
// part comes right before the store id, whichever its size.
func (b *Binding) aad(in RecordInfo, store *[storeIDSize]byte) []byte {
	if len(b.buf) < bindingHead {
		b.Set()
	}
	copy(b.buf[headByKEK:], store[:])
	head := b.buf[headByKEK-in.headSize():]
	in.putHead(head)
	return head
}
