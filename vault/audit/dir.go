package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/vault"
)

// A directory of a log holds files that follow one another, each named by the
// sequence number of its first record, so that their names sort as they follow:
//
//	audit-00000000000000000001.jsonl   records 1 to 311
//	audit-00000000000000000312.jsonl   records 312 on
//	lock                               locked while a process has the log open
//	torn, torn.new                     the rest of a record that is being cut off; see torn.go
//
// The chain runs on from file to file. Whole files may be moved away from the
// front, when they have been archived together with the head of their last
// record; what is left verifies from that head on ([VerifyOptions.After]). A
// file is never opened for writing again once the next one exists.
const (
	fileFormat = "audit-%020d.jsonl"
	lockName   = "lock"
)

// DefaultMaxFileSize is the size in bytes after which a file is not written
// further.
const DefaultMaxFileSize = 16 << 20

// DirOptions configure [OpenDir]. Nil is all defaults.
type DirOptions struct {
	// MaxFileSize is the most bytes that a file has, unless a single record has
	// more. The default is [DefaultMaxFileSize].
	MaxFileSize int64

	// Log is the identity that the log in the directory must have ([Head.Log]); with any
	// other log there, or none, OpenDir fails with an error that matches [ErrCorrupt]. The
	// default is that it may be any, and that a new one is begun in an empty directory.
	Log LogID

	// Clock tells the time of the log's own records. The default is the system's.
	Clock vault.Clock
}

// OpenDir opens the log in a directory of the local file system, which it
// creates (mode 0700) if it is missing, and continues its chain: it reads the
// last record, and writes one of [EventOpened]. Each record is synced. A second
// process, or a second OpenDir in this one, gets an error as long as the log is
// open.
//
// If the end of the last file is no whole line, the process or the machine
// stopped while writing it. No operation's result depends on such a record:
// with [Options.FailClosed] the result was withheld. The rest of a line is cut
// off, and kept in the Detail of the new record: up to [MaxField] bytes of it, which
// another crash on the way does not lose.
//
// OpenDir does not verify the whole chain; [Verify] does. If the last record is
// damaged it fails with an error that matches [ErrCorrupt], if it is of another format version
// with one that matches [ErrVersion], and changes nothing: move the directory away, for
// examination, to begin a new log.
func OpenDir(dir string, opts *DirOptions) (*Log, error) { return openDir(dir, opts, system{}) }

func openDir(dir string, opts *DirOptions, fs files) (*Log, error) {
	var o DirOptions
	if opts != nil {
		o = *opts
	}
	if o.MaxFileSize <= 0 {
		o.MaxFileSize = DefaultMaxFileSize
	}
	if err := fs.mkdir(dir); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("audit: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("audit: lock %s: %w", dir, err)
	}
	log, err := openLocked(dir, lock, &o, fs)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return log, nil
}

// openLocked takes over lock if it succeeds.
func openLocked(dir string, lock io.Closer, o *DirOptions, fs files) (*Log, error) {
	end, err := findEnd(dir)
	if err != nil {
		return nil, err
	}
	if o.Log != (LogID{}) && end.head.Log != o.Log {
		there := "no record of any log"
		if end.head.Log != (LogID{}) {
			there = "the log " + end.head.Log.String()
		}
		return nil, fmt.Errorf("%w: %s has %s, want the log %s", ErrCorrupt, dir, there, o.Log)
	}
	s := &dirSink{dir: dir, max: o.MaxFileSize, lock: lock, fs: fs}
	torn, err := keepTorn(fs, dir, end)
	if err != nil {
		return nil, fmt.Errorf("audit: keep an unfinished record of %s: %w", dir, err)
	}
	if end.file == "" {
		// The directory's own name, whoever made it: one that died may not have got to it.
		if err := fs.syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	} else {
		if s.file, err = fs.open(filepath.Join(dir, end.file), false); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		s.size = end.size
		if len(end.torn) > 0 {
			if err := errors.Join(s.file.Truncate(end.size), s.file.Sync()); err != nil {
				return nil, fmt.Errorf("audit: cut an unfinished record off %s: %w", end.file, errors.Join(err, s.file.Close()))
			}
		}
	}
	log := newLog(s, &LogOptions{After: end.head, Clock: o.Clock})
	opened := Record{Time: log.now(), Event: EventOpened, Count: uint64(len(torn)), Detail: string(torn)}
	err = log.Record(context.Background(), opened)
	if err == nil && len(torn) > 0 {
		err = fs.remove(filepath.Join(dir, tornName)) // it stands in the log now
	}
	if err != nil {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
		return nil, err
	}
	return log, nil
}

// dirSink writes records to the last file of a directory.
type dirSink struct {
	dir  string
	max  int64
	lock io.Closer
	fs   files

	file file  // the last one; nil before the first record
	size int64 // bytes of it that are synced
}

// append counts a record as taken when it is synced. What failed is written
// again at the same place: after a failed sync the operating system may have
// dropped what was written and say nothing of it a second time.
func (s *dirSink) append(_ context.Context, entries []entry) (int, error) {
	taken := 0
	for taken < len(entries) {
		if err := s.next(entries[taken]); err != nil {
			return taken, err
		}
		n, size := s.fitting(entries[taken:])
		var lines []byte
		for _, e := range entries[taken : taken+n] {
			lines = append(lines, e.line...)
		}
		if _, err := s.file.WriteAt(lines, s.size); err != nil {
			return taken, err
		}
		if err := s.file.Sync(); err != nil {
			return taken, err
		}
		s.size = size
		taken += n
	}
	return taken, nil
}

// fitting returns how many entries go into the file together, at least one, and
// the file's size after them.
func (s *dirSink) fitting(entries []entry) (n int, size int64) {
	size = s.size
	for n < len(entries) && (n == 0 || size+int64(len(entries[n].line)) <= s.max) {
		size += int64(len(entries[n].line))
		n++
	}
	return n, size
}

// next makes a new file if there is none yet, or if e does not fit into the one
// there is.
func (s *dirSink) next(e entry) error {
	if s.file != nil && (s.size == 0 || s.size+int64(len(e.line)) <= s.max) {
		return nil
	}
	name := fmt.Sprintf(fileFormat, e.head.Seq)
	f, err := s.fs.open(filepath.Join(s.dir, name), true)
	if err != nil {
		return err
	}
	// The name is durable before the record in the file is called durable.
	if err := s.fs.syncDir(s.dir); err != nil {
		return errors.Join(err, f.Close(), os.Remove(filepath.Join(s.dir, name)))
	}
	if s.file != nil {
		// Everything in it is synced: an error of Close changes nothing.
		_ = s.file.Close()
	}
	s.file, s.size = f, 0
	return nil
}

func (s *dirSink) close() error {
	var err error
	if s.file != nil {
		err = s.file.Close()
	}
	return errors.Join(err, s.lock.Close())
}

// Files returns the paths of the files of a log's directory, in the order of
// their records.
func Files(dir string) ([]string, error) {
	listed, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	var files []string
	for _, e := range listed {
		if _, ok := firstSeq(e.Name()); ok {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

// firstSeq returns the number in a file's name; ok is false for any other file.
func firstSeq(name string) (seq uint64, ok bool) {
	_, err := fmt.Sscanf(name, fileFormat, &seq)
	return seq, err == nil && fmt.Sprintf(fileFormat, seq) == name
}
