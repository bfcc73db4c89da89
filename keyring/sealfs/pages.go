package sealfs

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/blockseal/blockseal/keyring"
)

// Layout pages: the head, then pages of one size, P bytes of content and 44 more. On disk, and must
// not change.
//
//	offset                size  field
//	4096 + i*(P+44)         16  salt of the run
//	             . + 16     12  nonce, random
//	             . + 28      P  ciphertext; in the last page zeros, or what a crash left, behind the end
//	             . + P+28   16  tag
//
//	AAD: "p" | number of the page, 8
//
// and in the head, at 3328 and at 3840, two size records, of which the one with the higher sequence
// number counts:
//
//	offset  size  field
//	     0    16  salt of the run
//	    16    12  nonce, random
//	    28    24  ciphertext of: sequence number, 8 | size of the content in bytes, 8 | how much of
//	              it is durable, 8
//	    52    16  tag
//
//	AAD: "s" | which of the two, 1: 0 or 1
//
// Both are sealed under the key of a run, HMAC-SHA-256(DEK, "blockseal sealfs run v1\x00" | salt).
// A run is at most 2^31 sealings of one process that has the file open, and has a salt of 16 random
// bytes: a file of pages may be rewritten any number of times, and no key seals more often with
// random nonces than they allow.
//
// A file has pages for all its content, each written at least once: one that was never written does
// not read as zeros. It may be longer on disk than that, where it could not be made shorter.
//
// # What a crash leaves
//
// Of the two records one is that of the last Sync, and stays as it is until the other one is durable:
// so a crash, which may tear what is being written, leaves one of them always, and a file with none
// was damaged. A file is made with one. Sync is two of the file beneath if the size has changed: of the
// pages, then of a record that says that they are durable, so that they cannot be missing afterwards
// without an error.
//
// A record that says that a file has grown may be on the disk before its pages are. So there must be
// nothing at their places that opens: before a file grows for the first time, and when it was made
// shorter, what is behind its end is overwritten or cut off, durably (see [File.tidy]). Otherwise content
// that was cut off, or never was acknowledged, would be read again after a crash.
const (
	pageOverhead = saltSize + sealedOverhead
	sizeContent  = 24
	sizeRecord   = pageOverhead + sizeContent
	maxRunSeals  = 1 << 31

	// DefaultPageSize is the default of FileOptions.PageSize: with what is added to it, a page
	// has 4,096 bytes on disk.
	DefaultPageSize = 4096 - pageOverhead

	minPage = 64
	maxPage = 64 << 10
)

// sizes is a size record.
type sizes struct {
	sequence      uint64
	size, durable int64
}

func (s sizes) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, s.sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(s.size))
	return binary.BigEndian.AppendUint64(b, uint64(s.durable))
}

// maxSize bounds the content of a file, in bytes.
const maxSize = 1 << 55

func decodeSizes(b []byte) (sizes, error) {
	if len(b) != sizeContent {
		return sizes{}, fmt.Errorf("a size record of %d bytes: %w", len(b), keyring.ErrCorrupt)
	}
	s := sizes{binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:])), int64(binary.BigEndian.Uint64(b[16:]))}
	if s.durable < 0 || s.size < s.durable || s.size > maxSize {
		return sizes{}, fmt.Errorf("a size record of %d bytes of which %d are durable: %w", s.size, s.durable, keyring.ErrCorrupt)
	}
	return s, nil
}

func sizeAAD(slot int) []byte { return []byte{ofSize, byte(slot)} }

// putPageAAD puts a page's AAD into b.
func putPageAAD(b *[chunkAAD]byte, number int64) []byte {
	b[0] = ofPage
	binary.BigEndian.PutUint64(b[1:], uint64(number))
	return b[:9]
}

// openRun opens what a run has sealed. k.mu is held for writing, as in useAlone.
func (k *fileKey) openRun(dst, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < pageOverhead {
		return nil, keyring.ErrCorrupt
	}
	a, err := k.run([saltSize]byte(sealed))
	if err != nil {
		return nil, err
	}
	return a.Open(dst, sealed[saltSize:], aad)
}

// errNoSizes says that no size record opens: a crash leaves one of the two always.
var errNoSizes = fmt.Errorf("its size is not known: neither size record opens: %w", keyring.ErrCorrupt)

// openSizes returns the size record that counts, and which of the two it is.
func (k *fileKey) openSizes(h *head) (out sizes, which int, err error) {
	ok := false
	for i, slot := range h.sizes {
		if slot == nil {
			continue
		}
		// One that does not open is one that a crash left; the other one was there before.
		b, err := k.openRun(nil, slot, sizeAAD(i))
		if err != nil {
			continue
		}
		s, err := decodeSizes(b)
		if err != nil {
			return sizes{}, 0, err
		}
		if !ok || s.sequence > out.sequence {
			out, which, ok = s, i, true
		}
	}
	if !ok {
		return sizes{}, 0, errNoSizes
	}
	return out, which, nil
}

// firstSizes is the size record of a new file, the first of the two. Nobody else has the key yet.
func (k *fileKey) firstSizes() ([]byte, error) {
	var salt [saltSize]byte
	rand.Read(salt[:])
	a, err := k.run(salt)
	if err != nil {
		return nil, err
	}
	return a.Seal(salt[:], sizes{sequence: 1}.encode(), sizeAAD(0)), nil
}

// pageFile is a file of pages that is open, shared by all its handles. What is not said to be guarded by
// something else belongs to who has the turn.
type pageFile struct {
	refs int // guarded by FS.mu

	turn  chan struct{} // holds one token; who takes it has the file alone
	key   *fileKey
	page  int64
	sizes sizes
	known bool // sizes were read

	// Of the size records: which is not written to, because the other may be torn, whether that one is
	// durable, and whether the other one was written since the last Sync.
	keep    int
	firm    bool
	written bool
	tidy    bool // behind the end nothing is on disk that opens, and that is durable

	salt  [saltSize]byte
	seals int64 // under that salt; 0: no salt was drawn yet
	err   error // a write of a size record failed, or a Sync
}
