package register

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// PastKEKs are the KEK versions that ever wrapped a keyring document of the store, oldest first,
// with the present one. A copy of the files opens with the version that wrapped its document for as
// long as that version exists, whatever was rotated or erased since.
type PastKEKs struct {
	KEKs       []PastKEK
	Incomplete bool // there may have been others
}

// PastKEK is one of [PastKEKs]. On disk, and must not change:
//
//	8  since when the vault has said that there is no such version, seconds since
//	   1970-01-01 UTC; 0: it has not
//	32 SHA-256 of its public key; zeros: not known
//	2  length of the following
//	.  key identifier
type PastKEK struct {
	ID     vault.KeyID
	Gone   int64     // since when, as on disk
	Public PublicKey // says which key it is, whatever its name
}

const (
	// maxPast is the most that a keyring document can name. When the list is full the oldest entry
	// goes, and the list is incomplete.
	maxPast = 1024
	// recoverable is longer than a vault keeps a deleted key: Key Vault 90 days at most, others
	// some months. Key Vault says of a deleted key that there is none, so that such an answer means
	// nothing before.
	recoverable = 366 * 24 * time.Hour
)

func (p PastKEKs) clone() PastKEKs { return PastKEKs{slices.Clone(p.KEKs), p.Incomplete} }

// IDs returns the versions, oldest first.
func (p PastKEKs) IDs() (ids []vault.KeyID) {
	for _, k := range p.KEKs {
		ids = append(ids, k.ID)
	}
	return ids
}

func (p PastKEKs) index(id vault.KeyID) int {
	return slices.IndexFunc(p.KEKs, func(k PastKEK) bool { return k.ID == id })
}

// With returns the list with the version that wraps the document from now on.
func (p PastKEKs) With(id vault.KeyID, public PublicKey) PastKEKs {
	p = p.clone()
	if i := p.index(id); i >= 0 {
		p.KEKs[i].Gone, p.KEKs[i].Public = 0, public // it wrapped something: it exists
		return p
	}
	p.KEKs = append(p.KEKs, PastKEK{ID: id, Public: public})
	if n := len(p.KEKs) - maxPast; n > 0 {
		p.KEKs, p.Incomplete = p.KEKs[n:], true
	}
	return p
}

// Answer is what the vaults said of a KEK version. The zero Answer is no certain one.
type Answer uint8

const (
	Exists   Answer = iota + 1 // usable or not
	NotFound                   // in the vault that it is in
)

// After returns the list after the vaults were asked. A version that no vault can recover any more
// leaves it; one without a certain answer stays as it was.
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

// appendKeyID appends the length of a key identifier in 2 bytes, and the identifier.
func appendKeyID(b []byte, id vault.KeyID) []byte {
	text := id.String() // 775 bytes at most
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
