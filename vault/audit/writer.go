package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
)

// NewLog returns a log that writes lines to w and, if w has a method Sync() error
// as an [*os.File] does, syncs after each record. Nothing else may write to w.
//
// A new chain begins, unless [LogOptions.After] continues one.
func NewLog(w io.Writer, opts *LogOptions) *Log {
	s := &writerSink{w: w}
	if f, ok := w.(interface{ Sync() error }); ok {
		s.sync = f.Sync
	}
	return newLog(s, opts)
}

type writerSink struct {
	w       io.Writer
	sync    func() error // nil: it cannot
	partial int          // bytes of the next line that were written already
}

// append goes on where a short write ended, so that no line is left unfinished
// before the next.
func (s *writerSink) append(_ context.Context, entries []entry) (int, error) {
	for i, e := range entries {
		rest := e.line[s.partial:]
		n, err := s.w.Write(rest)
		if n < 0 || n > len(rest) {
			n = len(rest)
			err = errors.Join(err, errors.New("the writer returned an impossible count"))
		}
		if n < len(rest) {
			s.partial += n
			if err == nil {
				err = io.ErrShortWrite
			}
			return i, fmt.Errorf("write record %d: %w", e.head.Seq, err)
		}
		s.partial = 0
		if err != nil {
			return i + 1, fmt.Errorf("write record %d: %w", e.head.Seq, err)
		}
	}
	if s.sync == nil {
		return len(entries), nil
	}
	// Pipes and terminals are files that cannot be synced, and say EINVAL.
	if err := s.sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return len(entries), fmt.Errorf("sync: %w", err)
	}
	return len(entries), nil
}

func (s *writerSink) close() error { return nil }
