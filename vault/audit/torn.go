package audit

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// What follows the last whole line of a log is evidence: of an operation that was under
// way when the process stopped, or of somebody who cut the log. It is cut off before the
// record that quotes it takes its place, and a crash between the two must not lose it. So
// it is put aside first:
//
//	torn.new  is written, synced, and renamed to
//	torn      8 bytes: seq of the record that will quote it | the bytes, up to [maxLine]
//
// and the directory synced. torn is removed when that record is durable. A torn that is
// there when the log is opened is one of a crash on the way; if its record is there, it was
// not removed any more.
const (
	tornName    = "torn"
	newTornName = "torn.new"
	tornHeader  = 8
)

// keepTorn returns the bytes that the next record is to quote, durable in the directory.
func keepTorn(fs files, dir string, e end) ([]byte, error) {
	kept, err := readTorn(dir, e.head.Seq+1)
	if err != nil {
		return nil, err
	}
	switch {
	case len(e.torn) == 0 && len(kept) == 0:
		return nil, fs.remove(filepath.Join(dir, tornName)) // one whose record is there
	case len(e.torn) == 0 || bytes.Equal(kept, e.torn):
		return kept, nil // put aside before, and cut off or not
	}
	// What is put aside was cut off, and then the record that was to quote it was torn.
	torn := append(kept, e.torn...)
	if len(torn) > maxLine {
		torn = torn[:maxLine]
	}
	return torn, writeTorn(fs, dir, e.head.Seq+1, torn)
}

// readTorn returns what was put aside for the record of a number, or nothing.
func readTorn(dir string, seq uint64) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, tornName))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(b) <= tornHeader || len(b) > tornHeader+maxLine || binary.BigEndian.Uint64(b) > seq:
		// It is renamed into place whole.
		return nil, fmt.Errorf("%w: %s is not what a log puts aside; look at it, and move it away", ErrCorrupt, filepath.Join(dir, tornName))
	case binary.BigEndian.Uint64(b) < seq:
		return nil, nil
	}
	return b[tornHeader:], nil
}

func writeTorn(fs files, dir string, seq uint64, torn []byte) (err error) {
	temp := filepath.Join(dir, newTornName)
	if err := fs.remove(temp); err != nil {
		return err
	}
	f, err := fs.open(temp, true)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(binary.BigEndian.AppendUint64(nil, seq), torn...), 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fs.rename(temp, filepath.Join(dir, tornName)); err != nil {
		return err
	}
	return fs.syncDir(dir)
}
