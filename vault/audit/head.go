package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Head is a point in a chain: the sequence number and the hash of its last
// record. The zero Head is the point before the first record. It is comparable,
// and it is no secret; what matters is that nobody can change the copy that is
// kept.
type Head struct {
	Seq  uint64 // counts from 1; 0 before the first record
	Hash [sha256.Size]byte
}

// String returns "SEQ:HASH", the hash as 64 lower-case hexadecimal digits.
// [ParseHead] reads it back.
func (h Head) String() string {
	return strconv.FormatUint(h.Seq, 10) + ":" + hex.EncodeToString(h.Hash[:])
}

// ParseHead parses what [Head.String] returns.
func ParseHead(s string) (Head, error) {
	bad := func(why string) (Head, error) {
		return Head{}, fmt.Errorf("audit: head %.100q: %s; want SEQ:HASH as Head.String gives it", s, why)
	}
	seq, digits, found := strings.Cut(s, ":")
	if !found {
		return bad("no colon")
	}
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != seq {
		return bad("the sequence number is not one")
	}
	hash, err := parseHash(digits)
	if err != nil {
		return bad(err.Error())
	}
	if n == 0 && hash != (Head{}).Hash {
		return bad("before the first record the hash is all zeros")
	}
	return Head{Seq: n, Hash: hash}, nil
}

// parseHash reads the one spelling of a hash: 64 lower-case hexadecimal digits.
func parseHash(s string) (hash [sha256.Size]byte, err error) {
	if len(s) != hex.EncodedLen(len(hash)) {
		return hash, fmt.Errorf("a hash has 64 hexadecimal digits, not %d", len(s))
	}
	if _, err := hex.Decode(hash[:], []byte(s)); err != nil || hex.EncodeToString(hash[:]) != s {
		return [sha256.Size]byte{}, errors.New("a hash has lower-case hexadecimal digits only")
	}
	return hash, nil
}
