package sealfs

import "encoding/binary"

// Layout log: the head, then frames one after the other, one for each Write or, of a longer one, for
// each 65,536 bytes of it. On disk, and must not change.
//
//	offset  size  field
//	     0     4  n, plaintext bytes, 1 to 65,536; 0: the log was closed, and ends here
//	     4     4  number of the frame, from 0
//	     8     4  how many frames were durable when this one was sealed: those before that number
//	    12    12  nonce, random
//	    24     n  ciphertext
//	  24+n    16  tag
//
//	AAD: "f" | bytes 0 to 11
//
// The number makes the frames a chain: at each place only one frame opens. What lies behind the last
// one may be anything, as what is left of a log that was reused: it is of another DEK.
//
// # Where a log ends
//
// A frame that does not open is the end of the log, as after a crash, or damage. It is damage if
// any later frame opens that says that it was durable by then: then an error is returned that matches
// keyring.ErrCorrupt. Otherwise it is a torn end. Pebble is to judge that one by its own rule, which
// tolerates it in the newest log alone, so it must not look like a clean end: behind the last frame
// that opens, a reader finds tornMark, which no record begins with. The same if the file ends behind
// a frame that is not the closing one.
//
// A log that has no frame at all is empty, with head or without: that is what a crash leaves
// of one that was just made, when it may be followed by another.
const (
	frameHead     = 12
	frameOverhead = frameHead + sealedOverhead
	maxFrame      = 64 << 10
	frameAAD      = 1 + frameHead
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

// put puts the AAD into b; behind its first byte it is what is stored.
func (f frame) put(b *[frameAAD]byte) []byte {
	b[0] = ofFrame
	binary.BigEndian.PutUint32(b[1:], f.size)
	binary.BigEndian.PutUint32(b[5:], f.number)
	binary.BigEndian.PutUint32(b[9:], f.synced)
	return b[:]
}

// parseFrame parses the clear part, at least frameHead bytes. ok is false if it cannot be one.
func parseFrame(b []byte) (f frame, ok bool) {
	if len(b) < frameHead {
		return frame{}, false
	}
	f = frame{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])}
	return f, f.size <= maxFrame && f.synced <= f.number
}

// stored is how many bytes the frame has on disk.
func (f frame) stored() int { return frameOverhead + int(f.size) }
