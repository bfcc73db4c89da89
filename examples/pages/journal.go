package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// slot is what a change writes for one page. Sealed is nil if only the record
// changes.
type slot struct {
	n      uint32
	record []byte
	sealed []byte
}

// journal holds one change from when it is decided until it is in the files, so that
// a crash in between leaves either all of it or none. It holds what the files hold,
// and nothing in clear.
//
//	SHA-256 of the rest, 32 | count, 4 | count x (page, 4 | 1 or 0 | record | sealed page, if 1)
//
// The hash tells a change that was written whole from one that was not; who could
// forge it could as well write the files.
type journal struct{ file *os.File }

func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{file}, nil
}

func (j *journal) write(change []slot) error {
	body := binary.BigEndian.AppendUint32(nil, uint32(len(change)))
	for _, s := range change {
		body = binary.BigEndian.AppendUint32(body, s.n)
		whole := byte(0)
		if s.sealed != nil {
			whole = 1
		}
		body = append(append(append(body, whole), s.record...), s.sealed...)
	}
	sum := sha256.Sum256(body)
	if _, err := j.file.WriteAt(append(sum[:], body...), 0); err != nil {
		return errors.Join(err, j.clear())
	}
	return j.file.Sync()
}

func (j *journal) clear() error { return errors.Join(j.file.Truncate(0), j.file.Sync()) }

// replay gives the change that is in the journal, if it is whole, to apply.
func (j *journal) replay(apply func([]slot) error) error {
	all, err := io.ReadAll(io.NewSectionReader(j.file, 0, 1<<40))
	if err != nil {
		return err
	}
	if len(all) > sha256.Size {
		sum := sha256.Sum256(all[sha256.Size:])
		if change, ok := decodeJournal(all[sha256.Size:]); ok && bytes.Equal(sum[:], all[:sha256.Size]) {
			if err := apply(change); err != nil {
				return err
			}
		}
	}
	return j.clear()
}

func decodeJournal(body []byte) (change []slot, ok bool) {
	take := func(n int) []byte {
		if len(body) < n {
			ok = false
			return make([]byte, n)
		}
		var b []byte
		b, body = body[:n:n], body[n:]
		return b
	}
	ok = true
	for range binary.BigEndian.Uint32(take(4)) {
		s := slot{n: binary.BigEndian.Uint32(take(4))}
		whole := take(1)[0] == 1
		s.record = take(recordSlot)
		if whole {
			s.sealed = take(pageSlot)
		}
		if !ok {
			return nil, false
		}
		change = append(change, s)
	}
	if !ok || len(body) != 0 {
		return nil, false
	}
	return change, true
}

func (j *journal) close() error { return j.file.Close() }
