package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"github.com/blockseal/blockseal/keyring"
)

// slot is what a change writes: a page.
type slot struct {
	n    uint32
	page []byte
}

// journal holds one change from when it is decided until it is in the file, so that
// a crash in between leaves either all of it or none. It is sealed as the file is.
//
//	SHA-256 of size and change, 32 | size of the change, 8 | change
//	change: count, 4 | count x (number, 4 | page)
//
// The hash tells a change that was written whole from one that a crash cut off, of which any part may be
// there. The size leaves out what an earlier, longer change may have left behind.
//
// What it does not tell apart is a change that was cut off before its sync, and one that was synced, is half in
// the file because of a crash, and then rotted in the journal: both are a page of the journal that does not
// authenticate. It takes both for the first, which a crash leaves every day, and drops the change. After the
// second some pages of that change are new and others old, and each of them authenticates. Only a second
// sync, of a mark that the journal is whole, before the first page is written, would tell them apart: it
// doubles what a change waits for the disk. A program for which that is worth it writes the mark; one with a
// checksum of its own over what must be consistent notices too.
type journal struct{ file storage }

// storage is what a journal needs of a sealfs.File.
type storage interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

const journalHead = sha256.Size + 8

// write makes a change durable. After an error all of it, a part or nothing may be
// there.
func (j *journal) write(change []slot) error {
	body := binary.BigEndian.AppendUint32(nil, uint32(len(change)))
	for _, s := range change {
		body = append(binary.BigEndian.AppendUint32(body, s.n), s.page...)
	}
	rest := append(binary.BigEndian.AppendUint64(nil, uint64(len(body))), body...)
	sum := sha256.Sum256(rest)
	if _, err := j.file.WriteAt(append(sum[:], rest...), 0); err != nil {
		return err
	}
	return j.file.Sync()
}

// clear is durable when it returns, as a Truncate of sealfs is.
func (j *journal) clear() error { return j.file.Truncate(0) }

// replay gives the change that is in the journal, if it is whole, to apply.
func (j *journal) replay(apply func([]slot) error) error {
	all, err := io.ReadAll(io.NewSectionReader(j.file, 0, 1<<40))
	if errors.Is(err, keyring.ErrCorrupt) {
		// Torn: it was never synced, so that nothing of it is in the file. See journal for the other reading.
		all, err = nil, nil
	}
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
	if len(body) < 4 {
		return nil, false
	}
	count := binary.BigEndian.Uint32(body)
	body = body[4:]
	if uint64(len(body)) != uint64(count)*(4+PageSize) {
		return nil, false
	}
	for ; len(body) > 0; body = body[4+PageSize:] {
		change = append(change, slot{binary.BigEndian.Uint32(body), body[4 : 4+PageSize : 4+PageSize]})
	}
	return change, true
}
