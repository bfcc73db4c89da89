package pebble

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	logStep   = 4 << 20
	logSuffix = ".log"
)

// logFile allocates a log's disk space in two steps. Pebble allocates 1.1 times the size of a memtable
// when a log begins, here about 70 MiB, so that a sync need not write the file's extents too. Each
// store would occupy that, even an empty or closed one. So a log's first write allocates 4 MiB, and the
// rest comes at once when half of them are written. More pieces of the disk would cost more: the inode
// of an ext4 file holds four extents, one of which a write needs for a moment, and a file that had more
// keeps them in a block of its own, which each sync writes too. With a step for each 4 MiB a synced Put
// of 4 KiB took 1.25 times as long.
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

// grow allocates the first step, and the rest of what Pebble has asked for once a write comes near
// the end of what was allocated.
func (f *logFile) grow() error {
	for f.allocated < f.wanted && f.allocated < f.written+logStep/2 {
		n := f.wanted - f.allocated
		if f.allocated == 0 {
			n = min(n, logStep)
		}
		if err := f.File.Preallocate(f.allocated, n); err != nil {
			return err
		}
		f.allocated += n
	}
	return nil
}

// Write implements [vfs.File]. Pebble asks for the disk only with the second write, and what the first
// one took by itself would lie apart.
func (f *logFile) Write(p []byte) (int, error) {
	if f.allocated == 0 {
		f.wanted = max(f.wanted, logStep)
		_ = f.grow()
	}
	n, err := f.File.Write(p)
	f.written += int64(n)
	if err == nil {
		_ = f.grow() // the next write reports a full disk; Pebble ignores this error too
	}
	return n, err
}
