package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LogID is a log's identity: 16 random bytes, drawn when its first record is written and
// the same in each of its records, so that the genuine records of another log are not
// taken for this one's. The zero LogID is no log's. It is comparable, and no secret.
type LogID [16]byte

// String returns 32 lower-case hexadecimal digits. [ParseLogID] reads them back.
func (id LogID) String() string { return hex.EncodeToString(id[:]) }

// ParseLogID parses what [LogID.String] returns of a log.
func ParseLogID(s string) (LogID, error) {
	var id LogID
	if len(s) != hex.EncodedLen(len(id)) {
		return LogID{}, fmt.Errorf("it has %d characters, want 32 hexadecimal digits", len(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return LogID{}, errors.New("it has other characters than lower-case hexadecimal digits")
	}
	if id == (LogID{}) {
		return LogID{}, errors.New("it is all zeros")
	}
	return id, nil
}

func newLogID() (id LogID) {
	rand.Read(id[:])
	return id
}

// Head is a point in a chain: of which log, and the sequence number and the hash of its
// last record. With a Seq of 0 it is the point before the first record of the log; the
// zero Head is that point of any log. It is comparable, and it is no secret; what matters
// is that nobody can change the copy that is kept.
type Head struct {
	Log  LogID
	Seq  uint64 // counts from 1; 0 before the first record
	Hash [sha256.Size]byte
}

// String returns "LOG:SEQ:HASH", log and hash as 32 and 64 lower-case hexadecimal digits.
// [ParseHead] reads it back.
func (h Head) String() string {
	return h.Log.String() + ":" + strconv.FormatUint(h.Seq, 10) + ":" + hex.EncodeToString(h.Hash[:])
}

// ParseHead parses what [Head.String] returns.
func ParseHead(s string) (Head, error) {
	bad := func(why string) (Head, error) {
		return Head{}, fmt.Errorf("audit: head %.100q: %s; want LOG:SEQ:HASH as Head.String gives it", s, why)
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return bad("not three parts")
	}
	seq, digits := parts[1], parts[2]
	log, err := ParseLogID(parts[0])
	if err != nil && parts[0] != (LogID{}).String() {
		return bad("the log's identity: " + err.Error())
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
	if n != 0 && log == (LogID{}) {
		return bad("a record is of a log")
	}
	return Head{Log: log, Seq: n, Hash: hash}, nil
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
