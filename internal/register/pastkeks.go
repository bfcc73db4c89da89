package register

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// PastKEKs are the KEK versions that wrapped a keyring document of the store, oldest
// first: a copy of the files that somebody made then opens with one of them, whatever
// was rotated or erased since, for as long as that version exists. The one that wraps the
// document now is among them. They are in the register.
type PastKEKs struct {
	KEKs       []PastKEK
	Incomplete bool // there may have been others
}

// PastKEK is one of them. On disk, and must not change:
//
//	8  since when the vault has said that there is no such version, seconds since
//	   1970-01-01 UTC; 0: it has not
//	32 SHA-256 of its public key; zeros: not known
//	2  length of the following
//	.  key identifier
type PastKEK struct {
	ID     vault.KeyID
	Gone   int64     // since when, as on disk
	Public PublicKey // which key it is, whatever it is called
}

const (
	// maxPast bounds the table, which is written with each document, to what a
	// keyring document can name. When it is full the oldest goes, and the table says so.
	maxPast = 1024
	// recoverable is longer than a vault keeps what was deleted: a Key Vault 90 days at
	// the most, others some months. A vault may say of a deleted key that there is none, as
	// a Key Vault does, so that what it once said so of is not gone for good before.
	recoverable = 366 * 24 * time.Hour
)

func (p PastKEKs) clone() PastKEKs { return PastKEKs{slices.Clone(p.KEKs), p.Incomplete} }

// IDs returns the versions.
func (p PastKEKs) IDs() (ids []vault.KeyID) {
	for _, k := range p.KEKs {
		ids = append(ids, k.ID)
	}
	return ids
}

func (p PastKEKs) index(id vault.KeyID) int {
	return slices.IndexFunc(p.KEKs, func(k PastKEK) bool { return k.ID == id })
}

// With returns the table with the version that wraps the document from now on.
func (p PastKEKs) With(id vault.KeyID, public PublicKey) PastKEKs {
	p = p.clone()
	if i := p.index(id); i >= 0 {
		p.KEKs[i].Gone, p.KEKs[i].Public = 0, public // it wrapped something: it is there
		return p
	}
	p.KEKs = append(p.KEKs, PastKEK{ID: id, Public: public})
	if n := len(p.KEKs) - maxPast; n > 0 {
		p.KEKs, p.Incomplete = p.KEKs[n:], true
	}
	return p
}

// Answer is what the vaults said of a KEK version. The zero Answer is nothing certain.
type Answer uint8

const (
	Exists   Answer = iota + 1 // usable or not
	NotFound                   // by the vault that it is in
)

// After returns the table after the vaults were asked. What has been gone for longer
// than a vault can bring it back leaves it; the version of which the vault said nothing
// certain stays as it was.
func (p PastKEKs) After(said map[vault.KeyID]Answer, now time.Time) (next PastKEKs, changed bool) {
	next.Incomplete = p.Incomplete
	for _, k := range p.KEKs {
		was := k
		switch said[k.ID] {
		case Exists:
			k.Gone = 0
		case NotFound:
			if k.Gone == 0 {
				k.Gone = now.Unix()
			} else if now.Sub(time.Unix(k.Gone, 0)) >= recoverable {
				changed = true
				continue
			}
		}
		changed = changed || k != was
		next.KEKs = append(next.KEKs, k)
	}
	return next, changed
}

func (k PastKEK) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k.Gone))
	b = append(b, k.Public[:]...)
	return appendKeyID(b, k.ID)
}

func cutPast(b []byte) (k PastKEK, rest []byte, err error) {
	if len(b) < 8+len(PublicKey{}) {
		return k, nil, errors.New("it is cut off")
	}
	k = PastKEK{Gone: int64(binary.BigEndian.Uint64(b)), Public: PublicKey(b[8:40])}
	if k.Gone < 0 {
		return k, nil, errors.New("it has been gone since a time that there is not")
	}
	k.ID, rest, err = cutKeyID(b[40:])
	return k, rest, err
}

// appendKeyID appends a key identifier behind its length in 2 bytes; cutKeyID reads it.
func appendKeyID(b []byte, id vault.KeyID) []byte {
	text := id.String() // of 775 bytes at the most
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

func cutKeyID(b []byte) (id vault.KeyID, rest []byte, err error) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) > len(b)-2 {
		return id, nil, fmt.Errorf("a key identifier is cut off")
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if id, err = vault.ParseKeyID(string(b[2:n])); err == nil && (id.Version == "" || id != id.Canonical()) {
		err = fmt.Errorf("the key identifier %s has no version, or is not how that is spelled", id)
	}
	return id, b[n:], err
}
