package register

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Copy is a checkpoint that a store has made. Package block has the same type and documents the
// fields.
type Copy struct {
	Instance   string
	Path       string
	Made       time.Time
	KEK        vault.KeyID
	Generation uint64
	KEKs       []vault.KeyID
	Doubt      string
}

// NeedsOnly reports whether the copy needs no KEK version but id.
func (c Copy) NeedsOnly(id vault.KeyID) bool {
	return len(c.KEKs) == 1 && c.KEKs[0] == id && c.KEK == id
}

// Update sets what a copy's keyring document says.
func (c *Copy) Update(in keyring.Info) {
	c.KEK, c.Generation, c.KEKs = in.KEK, in.Generation, nil
	c.Need(slices.Collect(maps.Values(in.KEKs))...)
}

// Need adds KEK versions to those that the copy needs.
func (c *Copy) Need(ids ...vault.KeyID) {
	c.KEKs = append(append(slices.Clone(c.KEKs), c.KEK), ids...)
	slices.SortFunc(c.KEKs, byIdentifier)
	c.KEKs = slices.Compact(c.KEKs)
}

func byIdentifier(a, b vault.KeyID) int { return strings.Compare(a.String(), b.String()) }

// Entry is a copy in the register. On disk, and must not change:
//
//	16 instance of the copy
//	1  1: the store vouches for it; 0: it was found, and somebody may have put it there
//	8  made, seconds since 1970-01-01 UTC
//	8  generation of the copy's keyring document
//	32 SHA-256 of the keyring document that it was made with, or had when it was moved
//	   last; zeros: it was not made whole
//	2  length of the following
//	.  key identifier of the KEK that wraps the copy's document
//	2  number of the following: KEK versions that may wrap records of it, beside that one,
//	   ascending by their identifiers
//	.  for each, its length in 2 bytes, and the key identifier
//	4  length of the following
//	.  path
type Entry struct {
	Copy
	Vouched  bool
	Document [sha256.Size]byte
	Mine     bool // this process has made it; not on disk
}

const (
	copyPrefix = "copy/"
	fixedCopy  = 16 + 1 + 8 + 8 + sha256.Size
)

// Whole reports whether the copy is known to have been made whole. It is registered with its
// document, which comes before its identity file.
func (c Entry) Whole() bool { return c.Document != [sha256.Size]byte{} }

// Append appends the copy, as it is on disk, to b.
func (c Entry) Append(b []byte) []byte {
	var instance inner.InstanceID
	if n, err := hex.Decode(instance[:], []byte(c.Instance)); err != nil || n != len(instance) {
		panic("block: an instance is 32 hexadecimal digits, not " + c.Instance)
	}
	b = append(b, instance[:]...)
	if c.Vouched {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(c.Made.Unix()))
	b = binary.BigEndian.AppendUint64(b, c.Generation)
	b = append(b, c.Document[:]...)
	b = appendKeyID(b, c.KEK)
	others := slices.DeleteFunc(slices.Clone(c.KEKs), func(id vault.KeyID) bool { return id == c.KEK })
	b = binary.BigEndian.AppendUint16(b, uint16(len(others))) // a keyring has 1,024 at most
	for _, id := range others {
		b = appendKeyID(b, id)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.Path)))
	return append(b, c.Path...)
}

func cutEntry(b []byte) (c Entry, rest []byte, err error) {
	if len(b) < fixedCopy {
		return c, nil, errors.New("it is cut off")
	}
	instance := inner.InstanceID(b[:16])
	if instance == (inner.InstanceID{}) || b[16] > 1 {
		return c, nil, errors.New("it is damaged at its start")
	}
	c.Instance, c.Vouched = instance.String(), b[16] == 1
	c.Made = time.Unix(int64(binary.BigEndian.Uint64(b[17:])), 0).UTC()
	c.Generation = binary.BigEndian.Uint64(b[25:])
	c.Document = [sha256.Size]byte(b[33:])
	if c.KEK, rest, err = cutKeyID(b[fixedCopy:]); err != nil {
		return c, nil, err
	}
	if len(rest) < 2 {
		return c, nil, errors.New("it is cut off")
	}
	n := int(binary.BigEndian.Uint16(rest))
	rest = rest[2:]
	var others []vault.KeyID
	for range n {
		var id vault.KeyID
		if id, rest, err = cutKeyID(rest); err != nil {
			return c, nil, err
		}
		if id == c.KEK || len(others) > 0 && byIdentifier(others[len(others)-1], id) >= 0 {
			return c, nil, errors.New("its key identifiers are out of order")
		}
		others = append(others, id)
	}
	c.Need(others...)
	if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
		return c, nil, errors.New("its path is cut off")
	}
	end := 4 + int(binary.BigEndian.Uint32(rest))
	c.Path = string(rest[4:end])
	return c, rest[end:], nil
}

// announcementName is the name of the meta record that announces a copy.
func announcementName(own inner.InstanceID, instance string) string {
	return copyPrefix + own.String() + "/" + instance
}
