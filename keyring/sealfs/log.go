package sealfs

import (
	"encoding/binary"

	"github.com/blockseal/blockseal/dek"
)

// Layout log: the head, then frames one after the other, one for each Write or, of a longer one, for
// each 65,536 bytes of it. On disk, and must not change.
//
//	offset  size  field
//	     0     4  n, plaintext bytes, 1 to 65,536; 0: the log was closed, and ends here
//	     4     4  number of the frame, from 0
//	     8     4  how many frames were durable when this one was sealed: those before that number
//	    12    28  seal of the bytes before: nothing, sealed with them as AAD
//	    40    12  nonce, random
//	    52     n  ciphertext
//	  52+n    16  tag
//
//	AAD of the seal: "h" | bytes 0 to 11
//	AAD of the content: "f" | bytes 0 to 39
//
// The number makes the frames a chain: at each place only one frame opens. What lies behind the last
// one may be anything, as what is left of a log that was reused: it is of another DEK.
//
// # Where a log ends
//
// A frame that does not open is the end of the log, as after a crash, or damage. It is damage if
// behind it, at any offset, the seal of a frame's first bytes opens that says that the missing one was
// durable by then: then an error is returned that matches keyring.ErrCorrupt. That is what the seal is
// for: each offset may begin a frame, and to open 64 KiB of content at each would take hours in a
// file that somebody made for it.
//
// Otherwise it is a torn end. Pebble is to judge that one by its own rule, which tolerates it in the
// newest log alone, so it must not look like a clean end: behind the last frame that opens, a reader
// finds tornMark, which no record begins with. The same if the file ends behind a frame that is not
// the closing one, if it has a head and no frame, and if it was cut off within its head, which is durable
// before there is a frame: a crash leaves those too, but not of a log that is followed by another, which
// was closed.
//
// A log of no bytes at all is empty, as a plain one is. One with something behind a head that is none
// is damaged.
const (
	frameClear    = 12
	frameHead     = frameClear + sealedOverhead
	frameOverhead = frameHead + sealedOverhead
	maxFrame      = 64 << 10
	frameAAD      = 1 + frameHead

	// maxFrames is how many frames a log has at most: each is two sealings.
	maxFrames = maxSeals / 2
)

// tornMark is what stands behind the last frame of a log that was not closed: 32 bytes of 0xFF, a
// chunk of a kind that Pebble's record format does not have.
const tornMark = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

// frame is the clear part of one.
type frame struct {
	size   uint32
	number uint32
	synced uint32
}

// parseFrame parses the clear part, at least frameClear bytes. ok is false if it cannot be one.
func parseFrame(b []byte) (f frame, ok bool) {
	if len(b) < frameClear {
		return frame{}, false
	}
	f = frame{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])}
	return f, f.size <= maxFrame && f.synced <= f.number
}

// stored is how many bytes the frame has on disk.
func (f frame) stored() int { return frameOverhead + int(f.size) }

// seal appends the frame.
func (f frame) seal(dst []byte, a *dek.AEAD, plain []byte) []byte {
	var aad [frameAAD]byte
	aad[0] = ofFrameHead
	binary.BigEndian.PutUint32(aad[1:], f.size)
	binary.BigEndian.PutUint32(aad[5:], f.number)
	binary.BigEndian.PutUint32(aad[9:], f.synced)
	dst = append(dst, aad[1:1+frameClear]...)
	dst = a.Seal(dst, nil, aad[:1+frameClear])
	aad[0] = ofFrame
	copy(aad[1+frameClear:], dst[len(dst)-sealedOverhead:])
	return a.Seal(dst, plain, aad[:])
}

// openFrame appends the content of a frame, which b is, to dst.
func openFrame(dst []byte, a *dek.AEAD, b []byte) ([]byte, error) {
	var aad [frameAAD]byte
	aad[0] = ofFrame
	copy(aad[1:], b[:frameHead])
	return a.Open(dst, b[frameHead:], aad[:])
}

// sealOpens reports whether b begins with the first bytes of a frame of this log. aad is room, which would
// be made anew for each of the many places otherwise.
func sealOpens(a *dek.AEAD, aad *[1 + frameClear]byte, b []byte) bool {
	aad[0] = ofFrameHead
	copy(aad[1:], b[:frameClear])
	_, err := a.Open(nil, b[frameClear:frameHead], aad[:])
	return err == nil
}
