package sealfs

import "encoding/binary"

// Layout once: the head, then chunks of one size as stored, C, the last one shorter or as long.
// On disk, and must not change.
//
//	offset           size  field
//	4096 + i*C         12  nonce, random
//	4096 + i*C + 12     n  ciphertext of the chunk; n = C-28, in the last chunk 1 to C-28, and
//	                       0 only if the file is empty
//	             . + n 16  tag
//
//	AAD: "c" | number of the chunk, 8 | 1 in the last chunk, else 0
//
// That the last one says so is what finds a file that was cut off or goes on, because what is the
// last one then does not open; the reader opens it first.
//
// A nonce is random and belongs to one sealing, also of a tail that was sealed for a Sync in the
// middle and is sealed again when it has grown. So none comes twice under a key, but by chance:
// a file has at most 2^32 sealings.

// chunkAAD is how long the AAD is.
const chunkAAD = 1 + 8 + 1

// putChunkAAD puts a chunk's AAD into b.
func putChunkAAD(b *[chunkAAD]byte, number int64, last bool) []byte {
	b[0] = ofChunk
	binary.BigEndian.PutUint64(b[1:], uint64(number))
	b[9] = 0
	if last {
		b[9] = 1
	}
	return b[:]
}

// onceSize is how many bytes of content a file of so many bytes on disk has, and how many chunks.
// ok is false if no file of the layout has that size.
func onceSize(physical int64, chunk int) (size, chunks int64, ok bool) {
	body := physical - headSize
	if body < sealedOverhead {
		return 0, 0, false
	}
	full, rest := body/int64(chunk), body%int64(chunk)
	size = full * int64(chunk-sealedOverhead)
	if rest == 0 {
		return size, full, true
	}
	if rest < sealedOverhead || (rest == sealedOverhead && full > 0) {
		return 0, 0, false
	}
	return size + rest - sealedOverhead, full + 1, true
}

// onceAt is where the chunk is, on disk, that has a byte of the content.
func onceAt(offset int64, chunk int) int64 {
	return headSize + offset/int64(chunk-sealedOverhead)*int64(chunk)
}
