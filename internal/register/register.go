// Package register keeps what a store saves with its keyring document: the document, the store's
// id, and the register of the copies that it made and of the KEK versions that ever wrapped a
// document. Start with [Storage].
package register

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

const (
	// Name is the name of the register's meta record, and the purpose of its tag.
	Name = "register"

	registerVersion = 1
	fixedRegister   = 26

	keksMissing   = 1
	copiesMissing = 2

	// MaxCopies bounds what is written with each document.
	MaxCopies = 4096
)

// Register is the decoded register. It hands keys to copies, and tells people which keys may be
// destroyed. It is one tagged record, written in one batch with each keyring document, and names
// that document's generation and instance. So whoever can write the disk can neither make one nor
// remove it unnoticed, nor put an old one back without the old document, which an anchor refuses.
// Which copies there are changes only with a document. The details of a copy, and since when a KEK
// version is gone, are also saved in between; an old one of those names too many versions, never
// too few. docs/adr/0012-copies-apart.md has the argument.
//
// Without access nothing can be tagged. A copy that is made then is announced in a meta record of
// its own, named "copy/", the store's instance, "/" and the copy's; its value is the copy's Entry.
// Whoever finds one cannot know who wrote it.
//
// On disk, and must not change:
//
//	offset  size  field
//	     0     1  version, 1
//	     1    16  instance of the store
//	    17     8  generation of the keyring document that it was written with
//	    25     1  1: KEK versions may be missing below; 2: copies; 3: both; else 0
//	    26     2  number of KEK versions, at most 1,024
//	    28     .  for each, oldest first: see PastKEK
//	     .     2  number of copies, at most 4,096
//	     .     .  for each, by ascending instance: see Entry
type Register struct {
	Instance   inner.InstanceID
	Generation uint64
	Past       PastKEKs
	Copies     []Entry // by ascending instance
	Lost       bool    // copies may be missing
}

// Encode returns the register as the tagged record's content.
func (r Register) Encode() []byte {
	b := append([]byte{registerVersion}, r.Instance[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Generation)
	missing := byte(0)
	if r.Past.Incomplete {
		missing |= keksMissing
	}
	if r.Lost {
		missing |= copiesMissing
	}
	b = append(b, missing)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Past.KEKs)))
	for _, k := range r.Past.KEKs {
		b = k.append(b)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Copies)))
	for _, c := range r.Copies {
		b = c.Append(b)
	}
	return b
}

// Decode reads a register. Errors: keyring.ErrCorrupt, keyring.ErrVersion.
func Decode(b []byte) (r Register, err error) {
	bad := func(what string, err error) (Register, error) {
		if err != nil {
			return Register{}, fmt.Errorf("block: the register of copies and KEK versions %s: %w: %w", what, keyring.ErrCorrupt, err)
		}
		return Register{}, fmt.Errorf("block: the register of copies and KEK versions %s: %w", what, keyring.ErrCorrupt)
	}
	if len(b) > 0 && b[0] != registerVersion {
		return r, fmt.Errorf("block: the register of copies and KEK versions: %w", keyring.ErrVersion)
	}
	if len(b) < fixedRegister || b[25] > keksMissing|copiesMissing {
		return bad("is damaged at its start", nil)
	}
	r.Instance = inner.InstanceID(b[1:17])
	r.Generation = binary.BigEndian.Uint64(b[17:])
	r.Past.Incomplete, r.Lost = b[25]&keksMissing != 0, b[25]&copiesMissing != 0
	rest := b[fixedRegister:]
	count := func(most int) (n int, ok bool) {
		if len(rest) < 2 {
			return 0, false
		}
		n = int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		return n, n <= most
	}
	n, ok := count(maxPast)
	if !ok {
		return bad("has no number of KEK versions, or one that is too large", nil)
	}
	for range n {
		var k PastKEK
		if k, rest, err = cutPast(rest); err != nil {
			return bad("has a bad KEK version", err)
		}
		if r.Past.index(k.ID) >= 0 {
			return bad("has a KEK version twice", nil)
		}
		r.Past.KEKs = append(r.Past.KEKs, k)
	}
	if n, ok = count(MaxCopies); !ok {
		return bad("has no number of copies, or one that is too large", nil)
	}
	for range n {
		var c Entry
		if c, rest, err = cutEntry(rest); err != nil {
			return bad("has a bad copy", err)
		}
		if len(r.Copies) > 0 && r.Copies[len(r.Copies)-1].Instance >= c.Instance {
			return bad("has its copies out of order", nil)
		}
		r.Copies = append(r.Copies, c)
	}
	if len(rest) > 0 {
		return bad("goes on after its end", nil)
	}
	return r, nil
}

// Find returns the index of a copy, or the one that it would have.
func (r Register) Find(instance string) (int, bool) {
	return slices.BinarySearchFunc(r.Copies, instance, func(c Entry, instance string) int {
		return strings.Compare(c.Instance, instance)
	})
}

// With returns the copies with c, which replaces one of its instance.
func (r Register) With(c Entry) []Entry {
	out := slices.Clone(r.Copies)
	i, found := r.Find(c.Instance)
	if found {
		out[i] = c
	} else {
		out = slices.Insert(out, i, c)
	}
	return out
}

// Has reports whether the register has a copy.
func (r Register) Has(instance string) bool {
	_, found := r.Find(instance)
	return found
}

// Without returns the copies without that of an instance.
func (r Register) Without(instance string) []Entry {
	return slices.DeleteFunc(slices.Clone(r.Copies), func(c Entry) bool { return c.Instance == instance })
}
