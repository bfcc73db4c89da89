package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// A log is a sequence of lines, each a JSON object (RFC 8259) and a line feed:
//
//	{"v":3,"log":"7c…","seq":2,"prev":"3f…","time":"…","event":"operation",…,"hash":"a0…"}\n
//	|                                                                      |
//	+----------------- hash is the SHA-256 of these bytes -----------------+
//
//	v         3, the version of this format
//	log       the log's identity, 32 digits: random, and the same in each of its records
//	seq       1, 2, 3, ... without a gap, also from one file to the next
//	prev      the hash of the record before; of the first record, 64 zeros
//	time      RFC 3339, UTC, always nine digits of a second
//	event     see Event; all that follows but hash is left out when empty
//	identity  store  operation  key  version  outcome  reason  code  detail
//	duration  request  vaultRequest  count
//	hash      SHA-256 of the line up to the comma before "hash"; 64 digits
//
// Members stand in this order and there is one spelling of each record, without
// spaces: decode refuses any other. So the chain can be checked with a shell
// alone: cut each line at ,"hash":" and give what is before it to sha256sum.
//
// None of this may change under version 3.
const (
	formatVersion = 3
	hashMember    = `,"hash":"`
	lineEnd       = "\"}\n"
	tailSize      = len(hashMember) + 2*sha256.Size + len(lineEnd)
	timeFormat    = "2006-01-02T15:04:05.000000000Z"

	// maxLine bounds a line in bytes: twelve strings of MaxField bytes, each of
	// which JSON may spell with six, are 72 KiB; the rest is below 1 KiB.
	maxLine = 96 << 10
)

type wireRecord struct {
	V            int     `json:"v"`
	Log          string  `json:"log"`
	Seq          uint64  `json:"seq"`
	Prev         string  `json:"prev"`
	Time         string  `json:"time"`
	Event        Event   `json:"event"`
	Identity     string  `json:"identity,omitempty"`
	Store        string  `json:"store,omitempty"`
	Operation    string  `json:"operation,omitempty"`
	Key          string  `json:"key,omitempty"`
	Version      string  `json:"version,omitempty"`
	Outcome      Outcome `json:"outcome,omitempty"`
	Reason       string  `json:"reason,omitempty"`
	Code         string  `json:"code,omitempty"`
	Detail       string  `json:"detail,omitempty"`
	Duration     int64   `json:"duration,omitempty"`
	Request      string  `json:"request,omitempty"`
	VaultRequest string  `json:"vaultRequest,omitempty"`
	Count        uint64  `json:"count,omitempty"`
}

// encode returns the line of the record that follows prev, and its head.
func encode(prev Head, r Record) (line []byte, head Head) {
	body, err := json.Marshal(wireRecord{
		V:            formatVersion,
		Log:          prev.Log.String(),
		Seq:          prev.Seq + 1,
		Prev:         hex.EncodeToString(prev.Hash[:]),
		Time:         formatTime(r.Time),
		Event:        Event(clean(string(r.Event))),
		Identity:     clean(r.Identity),
		Store:        clean(r.Store),
		Operation:    clean(string(r.Operation)),
		Key:          clean(r.Key),
		Version:      clean(r.Version),
		Outcome:      Outcome(clean(string(r.Outcome))),
		Reason:       clean(r.Reason),
		Code:         clean(r.Code),
		Detail:       clean(r.Detail),
		Duration:     max(r.Duration.Nanoseconds(), 0),
		Request:      clean(r.RequestID),
		VaultRequest: clean(r.VaultRequestID),
		Count:        r.Count,
	})
	if err != nil {
		// The struct has strings and integers only, which always encode.
		panic("audit: encode a record: " + err.Error())
	}
	body = body[:len(body)-1] // without the closing brace
	head = Head{Log: prev.Log, Seq: prev.Seq + 1, Hash: sha256.Sum256(body)}
	line = append(body, hashMember...)
	line = hex.AppendEncode(line, head.Hash[:])
	return append(line, lineEnd...), head
}

// decode reads a line, with its line feed, and returns the record with the heads
// before and after it. It does not know what came before.
func decode(line []byte) (r Record, prev, head Head, err error) {
	fail := func(format string, args ...any) (Record, Head, Head, error) {
		return Record{}, Head{}, Head{}, fmt.Errorf(format, args...)
	}
	if len(line) < tailSize || !bytes.HasPrefix(line[len(line)-tailSize:], []byte(hashMember)) || !bytes.HasSuffix(line, []byte(lineEnd)) {
		return fail("it does not end with a hash")
	}
	body := line[:len(line)-tailSize]
	digits := line[len(body)+len(hashMember) : len(line)-len(lineEnd)]
	hash, err := parseHash(string(digits))
	if err != nil {
		return fail("its hash: %v", err)
	}
	if sha256.Sum256(body) != hash {
		return fail("its hash is not that of its content")
	}
	var w wireRecord
	err = json.Unmarshal(append(bytes.Clone(body), '}'), &w)
	if w.V != formatVersion && w.V != 0 { // whatever its members are
		return fail("its format version is %d, this release reads %d: %w", w.V, formatVersion, ErrVersion)
	}
	if err != nil {
		return fail("it is not a record: %v", err)
	}
	if w.V == 0 {
		return fail("it has no format version")
	}
	if w.Seq == 0 {
		return fail("its sequence number is 0")
	}
	prev.Seq = w.Seq - 1
	if prev.Log, err = ParseLogID(w.Log); err != nil {
		return fail("the log's identity: %v", err)
	}
	if prev.Hash, err = parseHash(w.Prev); err != nil {
		return fail("the hash of the record before: %v", err)
	}
	if r, err = w.record(); err != nil {
		return fail("%v", err)
	}
	// One spelling only: what is shown to a reader is all that the line says.
	again, head := encode(prev, r)
	if !bytes.Equal(again, line) {
		return fail("it is spelled as no log would spell it")
	}
	return r, prev, head, nil
}

func (w wireRecord) record() (Record, error) {
	when, err := time.Parse(timeFormat, w.Time)
	if err != nil {
		return Record{}, errors.New("its time is not one")
	}
	return Record{
		Time: when, Event: w.Event, Identity: w.Identity, Store: w.Store, Operation: vault.Operation(w.Operation),
		Key: w.Key, Version: w.Version, Outcome: w.Outcome, Reason: w.Reason, Code: w.Code, Detail: w.Detail,
		Duration: time.Duration(w.Duration), RequestID: w.Request, VaultRequestID: w.VaultRequest, Count: w.Count,
	}, nil
}

// formatTime formats a time of the years 0 to 9999; another is no time that a
// clock shows, and becomes the zero time.
func formatTime(t time.Time) string {
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		t = time.Time{}
	}
	return t.Format(timeFormat)
}
