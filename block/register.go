package block

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/blockseal/blockseal/keyring"
)

// The register is what hands keys to something, or tells a person which keys may be
// destroyed: the copies that the store made, and the KEK versions that ever wrapped a
// keyring document of it. It is one tagged record, written in one batch with each keyring
// document, whose generation and instance it names. So whoever can write the disk can
// neither make one, nor put back one of before alone, nor take it away unnoticed: that
// takes the document of before as well, which an anchor refuses. Which copies there are
// changes only with a document. What is known of a copy, and since when a KEK version is
// gone, is written in between too; what is put back of that names more, and not less.
//
// Without access nothing can be tagged: a copy that is made then is announced in a record
// of its own, "copy/", the instance of the store, "/", and the copy's, whose value is the
// copy as in the register. Nobody who finds one can know who wrote it.
//
// On disk, and must not change:
//
//	offset  size  field
//	     0     1  version, 1
//	     1    16  instance of the store
//	    17     8  generation of the keyring document that it was written with
//	    25     1  1: KEK versions may be missing below; 2: copies; 3: both; else 0
//	    26     2  number of KEK versions, at most 1,024
//	    28     .  for each, oldest first: see pastKEK
//	     .     2  number of copies, at most 4,096
//	     .     .  for each, by ascending instance: see copyEntry
const (
	metaRegister    = "register"
	registerVersion = 1
	fixedRegister   = 26

	keksMissing   = 1
	copiesMissing = 2

	// maxCopies bounds what is written with each document.
	maxCopies = 4096
)

// register is the decoded record, with what is known of it.
type register struct {
	instance   keyring.InstanceID
	generation uint64
	past       pastKEKs
	copies     []copyEntry // by ascending instance
	lost       bool        // copies may be missing
}

func (r register) encode() []byte {
	b := append([]byte{registerVersion}, r.instance[:]...)
	b = binary.BigEndian.AppendUint64(b, r.generation)
	missing := byte(0)
	if r.past.incomplete {
		missing |= keksMissing
	}
	if r.lost {
		missing |= copiesMissing
	}
	b = append(b, missing)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.past.keks)))
	for _, k := range r.past.keks {
		b = k.append(b)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.copies)))
	for _, c := range r.copies {
		b = c.append(b)
	}
	return b
}

func decodeRegister(b []byte) (r register, err error) {
	bad := func(what string, err error) (register, error) {
		if err != nil {
			return register{}, fmt.Errorf("block: the register of copies and KEK versions %s: %w: %w", what, ErrCorrupt, err)
		}
		return register{}, fmt.Errorf("block: the register of copies and KEK versions %s: %w", what, ErrCorrupt)
	}
	if len(b) > 0 && b[0] != registerVersion {
		return r, fmt.Errorf("block: the register of copies and KEK versions: %w", ErrVersion)
	}
	if len(b) < fixedRegister || b[25] > keksMissing|copiesMissing {
		return bad("is damaged at its start", nil)
	}
	r.instance = keyring.InstanceID(b[1:17])
	r.generation = binary.BigEndian.Uint64(b[17:])
	r.past.incomplete, r.lost = b[25]&keksMissing != 0, b[25]&copiesMissing != 0
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
		var k pastKEK
		if k, rest, err = cutPast(rest); err != nil {
			return bad("has a bad KEK version", err)
		}
		if r.past.index(k.id) >= 0 {
			return bad("has a KEK version twice", nil)
		}
		r.past.keks = append(r.past.keks, k)
	}
	if n, ok = count(maxCopies); !ok {
		return bad("has no number of copies, or one that is too large", nil)
	}
	for range n {
		var c copyEntry
		if c, rest, err = cutCopy(rest); err != nil {
			return bad("has a bad copy", err)
		}
		if len(r.copies) > 0 && r.copies[len(r.copies)-1].Instance >= c.Instance {
			return bad("has its copies out of order", nil)
		}
		r.copies = append(r.copies, c)
	}
	if len(rest) > 0 {
		return bad("goes on after its end", nil)
	}
	return r, nil
}

// find returns where a copy is, or belongs.
func (r register) find(instance string) (int, bool) {
	return slices.BinarySearchFunc(r.copies, instance, func(c copyEntry, instance string) int {
		return strings.Compare(c.Instance, instance)
	})
}

// with returns the copies with one more, or another in the place of one.
func (r register) with(c copyEntry) []copyEntry {
	out := slices.Clone(r.copies)
	i, found := r.find(c.Instance)
	if found {
		out[i] = c
	} else {
		out = slices.Insert(out, i, c)
	}
	return out
}

func (r register) has(instance string) bool {
	_, found := r.find(instance)
	return found
}

// without returns the copies without one.
func (r register) without(instance string) []copyEntry {
	return slices.DeleteFunc(slices.Clone(r.copies), func(c copyEntry) bool { return c.Instance == instance })
}

func appendLong(b, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}
