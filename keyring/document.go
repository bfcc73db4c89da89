package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/blockseal/blockseal/vault"
)

// The keyring document, version 1. Integers are big-endian. These constants are
// on disk and must not change; docs/format.md is normative.
//
//	offset  size  field
//	     0     8  magic "BSKEYRNG"
//	     8     2  format version, 1
//	    10     4  H, the size of the header in bytes
//	    14    16  store id
//	    30     8  generation, 1 more at each save
//	    38     4  id of the KEK that wraps the secret below
//	    42     2  n, the number of KEKs
//	    44        n times, by ascending id:
//	              4   KEK id, from 1, unique in the table
//	              1   1: a ByKEK record may be wrapped by it; else 0
//	              32  SHA-256 of the KEK's SubjectPublicKeyInfo
//	              2   length of the following
//	              .   key identifier "VAULT/keys/NAME/VERSION"
//	 H-258     2  256, the size of the following
//	 H-256   256  RSA-OAEP-256 of the document's secret, 32 bytes
//	     H     .  AES-256-GCM of the body under that secret: nonce 12 | body | tag 16
//
// Everything before H is the AAD of the body. The RSA wrap alone would be
// authenticated by nobody (whoever has the public key can make one); as part of
// the AAD, a wrap of another secret opens nothing here.
const (
	documentMagic   = "BSKEYRNG"
	documentVersion = 1
	fixedHeader     = 44
	kekEntryFixed   = 4 + 1 + sha256.Size + 2

	// maxKEKs bounds the table; an entry goes when nothing names it any more.
	maxKEKs = 1024
	// maxDocument bounds what Open reads: 1,024 KEKs of at most 819 bytes and
	// 4,096 epochs of 52 bytes need less.
	maxDocument = 2 << 20
	maxKeyIDLen = vault.MaxVaultLen + len("/keys/") + vault.MaxNameLen + 1 + vault.MaxVersionLen
)

const storeIDSize = 16

// kekEntry is one KEK version that the keyring, or a record, is wrapped by.
type kekEntry struct {
	id          uint32
	records     bool        // a ByKEK record may be wrapped by it
	key         vault.KeyID // with its version
	fingerprint [sha256.Size]byte
}

// header is the part of a document that anyone can read.
type header struct {
	storeID    [storeIDSize]byte
	generation uint64
	active     uint32 // id of the entry in keks that wraps the document's secret
	keks       []kekEntry
	wrapped    []byte // vault.WrappedSize bytes
}

func (h *header) kek(id uint32) (kekEntry, bool) {
	for _, e := range h.keks {
		if e.id == id {
			return e, true
		}
	}
	return kekEntry{}, false
}

// current returns the entry of the KEK that wraps the document; decodeHeader and
// everything that builds a header make sure that there is one.
func (h *header) current() kekEntry {
	e, _ := h.kek(h.active)
	return e
}

func (h *header) clone() header {
	c := *h
	c.keks = append([]kekEntry(nil), h.keks...)
	c.wrapped = bytes.Clone(h.wrapped)
	return c
}

// encode returns the header's bytes: the document up to H.
func (h *header) encode() []byte {
	b := append([]byte(nil), documentMagic...)
	b = binary.BigEndian.AppendUint16(b, documentVersion)
	b = binary.BigEndian.AppendUint32(b, 0) // H, below
	b = append(b, h.storeID[:]...)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	b = binary.BigEndian.AppendUint32(b, h.active)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.keks)))
	for _, e := range h.keks {
		b = binary.BigEndian.AppendUint32(b, e.id)
		b = append(b, 0)
		if e.records {
			b[len(b)-1] = 1
		}
		b = append(b, e.fingerprint[:]...)
		id := e.key.String()
		b = binary.BigEndian.AppendUint16(b, uint16(len(id)))
		b = append(b, id...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.wrapped)))
	b = append(b, h.wrapped...)
	binary.BigEndian.PutUint32(b[10:], uint32(len(b)))
	return b
}

// splitDocument parses a document into its header, the header's bytes, which are
// the AAD of the body, and the sealed body. Nothing in the header is to be
// believed until the body has opened.
func splitDocument(doc []byte) (h header, aad, sealed []byte, err error) {
	if len(doc) > maxDocument {
		return h, nil, nil, corrupt("the document has %d bytes, the most is %d", len(doc), maxDocument)
	}
	if len(doc) < len(documentMagic) || string(doc[:len(documentMagic)]) != documentMagic {
		return h, nil, nil, corrupt("the document does not start as a keyring document does")
	}
	if len(doc) < fixedHeader {
		return h, nil, nil, corrupt("the document ends after %d bytes, within its header", len(doc))
	}
	if v := binary.BigEndian.Uint16(doc[8:]); v != documentVersion {
		return h, nil, nil, fmt.Errorf("keyring: the document has format version %d, this release reads %d: %w", v, documentVersion, ErrVersion)
	}
	size := int(binary.BigEndian.Uint32(doc[10:]))
	if size < fixedHeader+2+vault.WrappedSize || size > len(doc) {
		return h, nil, nil, corrupt("the document says that its header has %d of its %d bytes", size, len(doc))
	}
	h, err = decodeHeader(doc[:size])
	return h, doc[:size], doc[size:], err
}

// stored is one document as the storage has it, under the revision that it has there.
type stored struct {
	header   header
	aad      []byte // the header's bytes
	sealed   []byte
	revision Revision
}

// parseStored parses a document, of which it keeps a copy.
func parseStored(document []byte, revision Revision) (stored, error) {
	h, aad, sealed, err := splitDocument(document)
	return stored{h, bytes.Clone(aad), bytes.Clone(sealed), revision}, err
}

// sealStored seals b under a header, for a revision that the storage is to give it.
func sealStored(h header, b *body, docSecret *[secretSize]byte) (d stored, err error) {
	d = stored{header: h, aad: h.encode()}
	d.sealed, err = sealBody(b, docSecret, d.aad)
	return d, err
}

func (d *stored) document() []byte { return append(d.aad[:len(d.aad):len(d.aad)], d.sealed...) }

// sameWrap reports whether two documents have the same secret: it is fresh whenever the
// document is wrapped. That the KEK has come to wrap records too is another matter.
func (d *stored) sameWrap(o *stored) bool {
	a, b := d.header.current(), o.header.current()
	a.records, b.records = false, false
	return a == b && bytes.Equal(d.header.wrapped, o.header.wrapped)
}

func decodeHeader(b []byte) (h header, err error) {
	copy(h.storeID[:], b[14:])
	h.generation = binary.BigEndian.Uint64(b[30:])
	h.active = binary.BigEndian.Uint32(b[38:])
	n := int(binary.BigEndian.Uint16(b[42:]))
	if n == 0 || n > maxKEKs {
		return h, corrupt("the document lists %d KEKs, want 1 to %d", n, maxKEKs)
	}
	rest := b[fixedHeader:]
	for i := range n {
		if len(rest) < kekEntryFixed {
			return h, corrupt("the document's header ends within KEK %d of %d", i+1, n)
		}
		e := kekEntry{id: binary.BigEndian.Uint32(rest), records: rest[4] == 1}
		if rest[4] > 1 {
			return h, corrupt("KEK %d of %d has the flags %#x", i+1, n, rest[4])
		}
		copy(e.fingerprint[:], rest[5:])
		size := int(binary.BigEndian.Uint16(rest[5+sha256.Size:]))
		rest = rest[kekEntryFixed:]
		if size > maxKeyIDLen || size > len(rest) {
			return h, corrupt("the identifier of KEK %d of %d has %d bytes", i+1, n, size)
		}
		if e.key, err = vault.ParseKeyID(string(rest[:size])); err != nil {
			return h, corrupt("KEK %d of %d: %w", i+1, n, err)
		}
		if e.key != e.key.Canonical() {
			return h, corrupt("KEK %d of %d is called %s, which is not how that is spelled", i+1, n, e.key)
		}
		if e.key.Version == "" || e.id == 0 || (i > 0 && e.id <= h.keks[i-1].id) {
			return h, corrupt("KEK %d of %d has no version, or its id %d is out of order", i+1, n, e.id)
		}
		rest = rest[size:]
		h.keks = append(h.keks, e)
	}
	if len(rest) != 2+vault.WrappedSize || binary.BigEndian.Uint16(rest) != vault.WrappedSize {
		return h, corrupt("the document's wrapped secret has %d bytes, want %d", len(rest)-2, vault.WrappedSize)
	}
	h.wrapped = bytes.Clone(rest[2:])
	if _, ok := h.kek(h.active); !ok {
		return h, corrupt("the document is wrapped by KEK %d, which it does not list", h.active)
	}
	return h, nil
}
