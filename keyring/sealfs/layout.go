package sealfs

import (
	"fmt"
	"strings"
)

// Layout is how the content of a file lies on disk.
type Layout uint8

// The layouts. The zero Layout is none of them. Their numbers are on disk and must not change.
const (
	// Log is for files that are appended to and synced in the middle: Pebble's logs and
	// manifests. What was synced stays readable, whatever comes after a crash.
	Log Layout = 1
	// Once is for files that are written from start to end, synced, and then only read: tables,
	// blob files, options. A file is readable when it was synced or closed after its last byte;
	// what a crash leaves of any other is an error that matches [keyring.ErrCorrupt].
	Once Layout = 2
	// Pages is for files that are read and written at any place; see [FS.OpenFile].
	Pages Layout = 3
	// Empty is for files without content, whose name says all: markers, LOCK. They are not
	// sealed, nothing can be written to them, and one that has content is an error.
	Empty Layout = 255
)

// String returns the layout's name.
func (l Layout) String() string {
	switch l {
	case Log:
		return "log"
	case Once:
		return "once"
	case Pages:
		return "pages"
	case Empty:
		return "empty"
	}
	return fmt.Sprintf("Layout(%d)", uint8(l))
}

// PebbleLayout returns the layout of a file of Pebble's, by the last element of its path. Every
// name that Pebble has no other use for is Once.
func PebbleLayout(base string) Layout {
	switch {
	case strings.HasSuffix(base, ".log"), strings.HasPrefix(base, "MANIFEST-"), strings.HasPrefix(base, "REMOTE-OBJ-CATALOG-"):
		return Log
	case base == "LOCK", strings.HasPrefix(base, "marker."):
		return Empty
	case strings.HasPrefix(base, "SHARED-CACHE-"):
		return Pages
	}
	return Once
}

// sealedOverhead is how much longer a sealed chunk, frame or name is than its plaintext: 12 bytes
// of nonce and 16 of tag.
const sealedOverhead = 28

// What the AAD of everything that a file's DEK seals begins with, so that nothing of one kind is
// taken for another. On disk, and must not change.
const (
	ofChunk     = 'c'
	ofFrame     = 'f'
	ofFrameHead = 'h'
	ofName      = 'n'
	ofPage      = 'p'
	ofSize      = 's'
)

// maxSeals is how many times one AES key seals with random nonces: NIST SP 800-38D, section 8.3,
// allows 2^32 invocations.
const maxSeals = 1 << 32
