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
//	SHA-256 of size and change, 32 | size of the change, 8 | change
//	change: count, 4 | count x (page, 4 | 1 or 0 | record | sealed page, if 1)
//
// The hash tells a change that was written whole from one that was not; who could
// forge it could as well write the files. The size leaves out what an earlier, longer
// change may have left behind.
type journal struct{ file storage }

// storage is what a journal needs of an os.File.
type storage interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

const journalHead = sha256.Size + 8

func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &journal{file}, nil
}

// write makes a change durable. After an error all of it, a part or nothing may be
// there.
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
	rest := append(binary.BigEndian.AppendUint64(nil, uint64(len(body))), body...)
	sum := sha256.Sum256(rest)
	if _, err := j.file.WriteAt(append(sum[:], rest...), 0); err != nil {
		return err
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
	if change, ok := decodeJournal(wholeChange(all)); ok {
		if err := apply(change); err != nil {
			return err
		}
	}
	return j.clear()
}

// wholeChange returns the change that a journal holds, or nil if it is not whole.
func wholeChange(all []byte) []byte {
	if len(all) < journalHead {
		return nil
	}
	size := binary.BigEndian.Uint64(all[sha256.Size:])
	if size > uint64(len(all)-journalHead) {
		return nil
	}
	all = all[:journalHead+size]
	if sum := sha256.Sum256(all[sha256.Size:]); !bytes.Equal(sum[:], all[:sha256.Size]) {
		return nil
	}
	return all[journalHead:]
}

// decodeJournal reads a change.
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
