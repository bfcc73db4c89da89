package sealfs

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// The head of a file: what it is, and its DEK. 4,096 bytes, so that chunks of that size are
// aligned to the pages of memory and the sectors of a disk. Integers are big-endian; on disk, and
// must not change.
//
//	offset  size  field
//	     0     8  "BSSEALFS"
//	     8     2  format version, 1
//	    10     1  layout: 1 log, 2 once, 3 pages
//	    11     1  0
//	    12     4  once: size of a chunk as stored; pages: plaintext bytes in a page; log: 0
//	    16    16  file id, random
//	    32  2624  8 key slots of 328 bytes:
//	                 2    size of the record, 65 or 325; 0: none
//	                 326  DEK record, then zeros
//	  2656   480  8 name slots of 60 bytes, zeros: none:
//	                 SHA-256 of the last element of a path, sealed under the DEK
//	  3136   192  zeros
//	  3328    68  pages: size record; else zeros
//	  3396   444  zeros
//	  3840    68  pages: size record; else zeros
//	  3908   188  zeros
//
// The DEK record is bound to the bytes from 0 to 31, the fixed part. Its DEK seals everything
// else, and is one file's alone, so that all of it is bound to the fixed part as well. The name is
// bound by the name slots: a file has only names that one of them holds.
//
// Slots are filled one after the other, and one that is in use is not touched: a crash in the middle
// of filling one leaves a slot that does not open, and counts as none. Older records stay, because
// a checkpoint may have the same file (a hard link) and an older keyring document, to which they
// are what opens it. Without the epoch that wrapped it a record is worth nothing to anybody.
const (
	headSize  = 4096
	fixedSize = 32
	idSize    = 16

	keySlotsAt  = fixedSize
	keySlotSize = 328
	keySlots    = 8

	nameSlotsAt  = keySlotsAt + keySlots*keySlotSize
	nameSlotSize = sha256.Size + sealedOverhead
	nameSlots    = 8
	nameSlotsEnd = nameSlotsAt + nameSlots*nameSlotSize

	// In two sectors of 512 bytes, so that a write which is torn loses one of them at most.
	sizeSlot0 = 3328
	sizeSlot1 = 3840

	headVersion = 1
	headMagic   = "BSSEALFS"
	// bindingPrefix is what the context of a file's DEK begins with: whoever else uses the
	// keyring chooses another.
	bindingPrefix = "blockseal sealfs v1\x00"
)

type fileID [idSize]byte

// head is a decoded head. What is in it is not authenticated yet; see openHead.
type head struct {
	layout  Layout
	chunk   uint32
	id      fileID
	records [keySlots][]byte // nil: none, or one that cannot be one
	blank   [keySlots]bool   // the slot was never written to
	names   [nameSlots][]byte
	sizes   [2][]byte // of layout Pages
	fixed   [fixedSize]byte
}

func newHead(l Layout, chunk uint32) *head {
	h := &head{layout: l, chunk: chunk}
	rand.Read(h.id[:])
	copy(h.fixed[:], headMagic)
	binary.BigEndian.PutUint16(h.fixed[8:], headVersion)
	h.fixed[10] = byte(l)
	binary.BigEndian.PutUint32(h.fixed[12:], chunk)
	copy(h.fixed[16:], h.id[:])
	for i := range h.blank {
		h.blank[i] = true
	}
	return h
}

// encode returns the head's bytes.
func (h *head) encode() []byte {
	b := make([]byte, headSize)
	copy(b, h.fixed[:])
	for i, r := range h.records {
		if r != nil {
			copy(b[keySlotsAt+i*keySlotSize:], encodeKeySlot(r))
		}
	}
	for i, n := range h.names {
		copy(b[nameSlotsAt+i*nameSlotSize:], n)
	}
	copy(b[sizeSlot0:], h.sizes[0])
	copy(b[sizeSlot1:], h.sizes[1])
	return b
}

func encodeKeySlot(record []byte) []byte {
	b := make([]byte, keySlotSize)
	binary.BigEndian.PutUint16(b, uint16(len(record)))
	copy(b[2:], record)
	return b
}

// decodeHead decodes a head. Slots that are not as they should be are taken for none, because that
// is what a crash leaves of one that was being filled.
func decodeHead(b []byte) (*head, error) {
	if len(b) != headSize {
		return nil, fmt.Errorf("a head has %d bytes, not %d: %w", headSize, len(b), keyring.ErrCorrupt)
	}
	if string(b[:8]) != headMagic {
		return nil, ErrNotSealed
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != headVersion {
		return nil, fmt.Errorf("the head has version %d: %w", v, keyring.ErrVersion)
	}
	h := &head{layout: Layout(b[10]), chunk: binary.BigEndian.Uint32(b[12:])}
	copy(h.fixed[:], b)
	copy(h.id[:], b[16:])
	switch {
	case h.layout == Log && h.chunk == 0:
	case h.layout == Once && validChunk(h.chunk):
	case h.layout == Pages && h.chunk >= minPage && h.chunk <= maxPage:
	default:
		return nil, fmt.Errorf("the head names layout %d with chunks of %d bytes, which there is not: %w", b[10], h.chunk, keyring.ErrCorrupt)
	}
	sizes := 0 // bytes of a size record
	if h.layout == Pages {
		sizes = sizeRecord
	}
	if b[11] != 0 || !zero(b[nameSlotsEnd:sizeSlot0]) || !zero(b[sizeSlot0+sizes:sizeSlot1]) || !zero(b[sizeSlot1+sizes:]) {
		return nil, fmt.Errorf("the head has bytes that are not zero where they have to be: %w", keyring.ErrCorrupt)
	}
	for i := range h.records {
		slot := b[keySlotsAt+i*keySlotSize:][:keySlotSize]
		h.blank[i] = zero(slot)
		n := int(binary.BigEndian.Uint16(slot))
		if (n == keyring.RecordSize || n == keyring.RecordSizeByKEK) && zero(slot[2+n:]) {
			h.records[i] = bytes.Clone(slot[2 : 2+n])
		}
	}
	for i := range h.names {
		if slot := b[nameSlotsAt+i*nameSlotSize:][:nameSlotSize]; !zero(slot) {
			h.names[i] = bytes.Clone(slot)
		}
	}
	if sizes > 0 {
		for i, at := range []int{sizeSlot0, sizeSlot1} {
			if slot := b[at : at+sizes]; !zero(slot) {
				h.sizes[i] = bytes.Clone(slot)
			}
		}
	}
	return h, nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// context is what the file's DEK is bound to.
func (h *head) context() []byte { return append([]byte(bindingPrefix), h.fixed[:]...) }

// newestFirst returns the slots that hold a record, those of younger epochs first. The order is
// only that of trying.
func (h *head) newestFirst() []int {
	epochs := map[int]uint32{}
	var out []int
	for i, r := range h.records {
		if in, err := keyring.ParseRecord(r); r != nil && err == nil {
			epochs[i] = in.Epoch
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int { return int(int64(epochs[b]) - int64(epochs[a])) })
	return out
}

// toTry returns the slots in the order in which a hold tries them: first those whose epoch the keyring
// has in memory, the youngest first, then the others. A record of an epoch that the keyring does not know
// makes it look at the document in storage, and anybody can write one into a slot; what a source did to a
// file that a checkpoint shares looks the same. Neither keeps a file from opening whose other records
// are good.
func (h *head) toTry(hold *keyring.Hold) []int {
	var known, unknown []int
	for _, i := range h.newestFirst() {
		if in, err := keyring.ParseRecord(h.records[i]); err == nil && hold.For(inner.Block{}).HasEpoch(in.Epoch) {
			known = append(known, i)
		} else {
			unknown = append(unknown, i)
		}
	}
	return append(known, unknown...)
}

// firstGood returns the first of the slots to try of which try says that it is good. If there is
// none, the error is one that may pass, if there was one, else that of the first.
func (h *head) firstGood(hold *keyring.Hold, try func(record []byte) error) (int, error) {
	var first error
	for _, i := range h.toTry(hold) {
		err := try(h.records[i])
		if err == nil {
			return i, nil
		}
		if noAccess(err) {
			return 0, err
		}
		if first == nil || errors.Is(first, keyring.ErrCorrupt) && !errors.Is(err, keyring.ErrCorrupt) {
			first = err
		}
	}
	if first == nil {
		first = fmt.Errorf("its head has no DEK record: %w", keyring.ErrCorrupt)
	}
	return 0, first
}

// openRecord opens the DEK of a record, and returns its slot. The caller destroys the key.
func (h *head) openRecord(hold *keyring.Hold, key *dek.Key) (int, error) {
	var b keyring.Binding
	b.Set(h.context())
	return h.firstGood(hold, func(record []byte) error { return hold.OpenDEK(background, key, record, &b) })
}

func nameSum(base string) [sha256.Size]byte { return sha256.Sum256([]byte(base)) }

// sealName returns a name slot.
func sealName(a *dek.AEAD, base string) []byte {
	sum := nameSum(base)
	return a.Seal(nil, sum[:], []byte{ofName})
}

// hasName reports whether the file may have a name.
func (h *head) hasName(a *dek.AEAD, base string) bool {
	want := nameSum(base)
	for _, slot := range h.names {
		if slot == nil {
			continue
		}
		// A slot that does not open is one that a crash left.
		if got, err := a.Open(nil, slot, []byte{ofName}); err == nil && bytes.Equal(got, want[:]) {
			return true
		}
	}
	return false
}

// errUnwritten says that a file has no head because nothing of it was ever made durable: it has
// no bytes, or a head of zeros.
var errUnwritten = errors.New("it was cut off before its head")

// readHead reads and decodes a file's head.
func readHead(f vfs.File) (*head, error) {
	b := make([]byte, headSize+1)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	more := n > headSize
	b = b[:min(n, headSize)]
	begun := n < 8 || string(b[:8]) == headMagic
	// Of a head that was never synced a crash leaves any sectors, perhaps not the first.
	if n < headSize && begun || !more && zero(b[:min(n, 8)]) || zero(b) {
		return nil, fmt.Errorf("%w: %w", errUnwritten, keyring.ErrCorrupt)
	}
	if n < headSize {
		return nil, ErrNotSealed
	}
	return decodeHead(b)
}

// readHeadAndSize is readHead, with how many bytes the file has on disk.
func readHeadAndSize(f vfs.File) (*head, int64, error) {
	h, err := readHead(f)
	fi, serr := f.Stat()
	if serr != nil {
		return nil, 0, serr
	}
	return h, fi.Size(), err
}

// headless reports whether a file of that size that has no head is a log that had one: it is durable before
// anything is behind it. What a crash left of any other file may be behind zeros.
func (f *FS) headless(name string, size int64) bool {
	return f.opts.Layout(f.under.PathBase(name)) == Log && size > headSize
}

// unmade reports whether a log that does not open with that error is one whose making a crash cut off: it
// has no more than a head, and so never had content.
func unmade(f vfs.File, err error) (bool, error) {
	if !errors.Is(err, keyring.ErrCorrupt) || errors.Is(err, ErrNotSealed) {
		return false, nil
	}
	fi, err := f.Stat()
	return err == nil && fi.Size() <= headSize, err
}
