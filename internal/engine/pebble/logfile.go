package pebble

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logStep is how much of the disk a log takes ahead of what is written to it, in bytes.
const logStep = 4 << 20

// logFile takes the disk that a log needs step by step. Pebble asks the file system for 1.1
// times the size of a memtable when a log begins, here about 70 MiB, so that a sync need not
// write the file's extents as well; that is what each store would take, also one that is empty,
// and one that is closed. One call for each 4 MiB serves the same, and no write is longer for it.
type logFile struct {
	vfs.File
	written, taken, wanted int64
}

// inSteps returns a file that was just created or is written anew, and takes the disk in steps
// if it is a log.
func inSteps(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &logFile{File: f}, nil
}

// Preallocate implements [vfs.File]. Pebble calls it before it writes what is at the offset.
func (f *logFile) Preallocate(offset, length int64) error {
	f.wanted = offset + length
	return f.take()
}

// take takes the next step, as far as Pebble has asked for it.
func (f *logFile) take() error {
	for f.taken < f.wanted && f.taken < f.written+logStep/2 {
		n := min(logStep, f.wanted-f.taken)
		if err := f.File.Preallocate(f.taken, n); err != nil {
			return err
		}
		f.taken += n
	}
	return nil
}

// Write implements [vfs.File].
func (f *logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.written += int64(n)
	if err == nil {
		_ = f.take() // what the disk has no room for, the next write says; Pebble ignores it too
	}
	return n, err
}
