package pebble

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	logStep   = 4 << 20
	logSuffix = ".log"
)

// logFile allocates a log's disk space in steps. Pebble allocates 1.1 times the size of a memtable
// when a log begins, here about 70 MiB, so that a sync need not write the file's extents too. Each
// store would occupy that, even an empty or closed one. A call for each 4 MiB does the same for
// syncs, and makes no write longer.
type logFile struct {
	vfs.File
	written, allocated, wanted int64
}

func inSteps(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, logSuffix) {
		return f, err
	}
	return &logFile{File: f}, nil
}

// Preallocate implements [vfs.File]. Pebble calls it before it writes what is at the offset.
func (f *logFile) Preallocate(offset, length int64) error {
	f.wanted = offset + length
	return f.grow()
}

// grow allocates the next step, as far as Pebble has asked for it.
func (f *logFile) grow() error {
	for f.allocated < f.wanted && f.allocated < f.written+logStep/2 {
		n := min(logStep, f.wanted-f.allocated)
		if err := f.File.Preallocate(f.allocated, n); err != nil {
			return err
		}
		f.allocated += n
	}
	return nil
}

// Write implements [vfs.File].
func (f *logFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.written += int64(n)
	if err == nil {
		_ = f.grow() // the next write reports a full disk; Pebble ignores this error too
	}
	return n, err
}
