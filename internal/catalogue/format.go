package catalogue

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/blockseal/blockseal/internal/engine"
)

// The meta records of the catalogue's partition. They are on disk and must not change.
//
//	next            version byte 1, then the number that is given next, 4 bytes, big-endian
//	store/HASH      the entry of a store; HASH is the SHA-256 of its name, 64 hexadecimal digits
//	unfinished/HASH the name of the store, while its entry is not present
//
// An entry:
//
//	offset  size  field
//	     0     1  version, 1
//	     1     1  state: 1 creating, 2 present, 3 dropping
//	     2     4  number of the partition, big-endian
//	     6     .  name, 1 to 255 bytes of UTF-8
const (
	nextName    = "next"
	entryPrefix = "store/"
	markPrefix  = "unfinished/"

	nextVersion  = 1
	nextSize     = 1 + 4
	entryVersion = 1
	entryFixed   = 6
)

// Encode returns the entry's record.
func (e Entry) Encode() []byte {
	b := binary.BigEndian.AppendUint32([]byte{entryVersion, byte(e.State)}, e.Number)
	return append(b, e.Name...)
}

// Decode reads an entry's record. Errors: engine.ErrCorrupt, engine.ErrVersion.
func Decode(b []byte) (Entry, error) {
	if len(b) > 0 && b[0] != entryVersion {
		return Entry{}, fmt.Errorf("catalogue: an entry has version %d, this release reads %d: %w", b[0], entryVersion, engine.ErrVersion)
	}
	if len(b) <= entryFixed || len(b) > entryFixed+MaxName {
		return Entry{}, fmt.Errorf("catalogue: an entry has %d bytes: %w", len(b), engine.ErrCorrupt)
	}
	e := Entry{State: State(b[1]), Number: binary.BigEndian.Uint32(b[2:]), Name: string(b[entryFixed:])}
	if e.State < Creating || e.State > Dropping || e.Number == Partition || !utf8.ValidString(e.Name) {
		return Entry{}, fmt.Errorf("catalogue: an entry of store %q is damaged: %w", short(e.Name), engine.ErrCorrupt)
	}
	return e, nil
}

func encodeNext(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{nextVersion}, n) }

func decodeNext(b []byte) (uint32, error) {
	switch {
	case len(b) > 0 && b[0] != nextVersion:
		return 0, fmt.Errorf("catalogue: the number that is given next has version %d, this release reads %d: %w", b[0], nextVersion, engine.ErrVersion)
	case len(b) != nextSize:
		return 0, fmt.Errorf("catalogue: the number that is given next has %d bytes, want %d: %w", len(b), nextSize, engine.ErrCorrupt)
	}
	return binary.BigEndian.Uint32(b[1:]), nil
}
