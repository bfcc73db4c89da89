package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
)

// ErrCorrupt says that a log is not what was written: a record was edited,
// inserted, removed or moved, or the log does not reach the head that was kept.
// The error is a [*CorruptError], except from OpenDir.
var ErrCorrupt = errors.New("audit: the log was altered")

// ErrTorn says that a log ends within a line: its writer is at work or was
// stopped there, or somebody cut it. Everything before is in order. It does not
// match ErrCorrupt.
var ErrTorn = errors.New("audit: the log ends with an unfinished record")

// ErrVersion says that a log begins with a record of a format version that this release does not
// know. Nothing is known of what it holds: it may be as it was written. It does not match
// ErrCorrupt. A record of another version behind one that is in order is ErrCorrupt: no log
// goes on in another version.
var ErrVersion = errors.New("unknown format version")

// CorruptError says where a log is not what was written. It matches
// [ErrCorrupt].
type CorruptError struct {
	Line   int64 // the line, counting from 1
	Offset int64 // where that begins, in bytes
	After  Head  // of the last record that is in order
	Reason string
}

// Error names the line, the last good record and what is wrong.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%v: line %d (at byte %d, after record %d): %s", ErrCorrupt, e.Line, e.Offset, e.After.Seq, e.Reason)
}

// Unwrap returns [ErrCorrupt].
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// VerifyOptions say what is known about a log. Nil is nothing.
type VerifyOptions struct {
	// After is the head that the first record must follow: that of the last
	// record archived away from the front. The default, the zero Head, is the
	// beginning of the chain.
	After Head

	// Head is a head that was kept: the log must contain that very record, and may
	// have gone on. One with the log's identity alone, and a Seq of 0, says which log it
	// must be. The default is none. Without one, a log whose end was removed, that was
	// rewritten as a whole, or that is another one altogether, verifies.
	Head Head
}

// Result is what [Verify] found.
type Result struct {
	Records uint64 `json:"records"`   // records in order
	Head    Head   `json:"head"`      // of the last of them: keep it, for the next time
	Lost    uint64 `json:"lost"`      // records that the log says were lost
	Torn    int    `json:"tornBytes"` // bytes of an unfinished record at the end
}

// Verify reads a log and checks that every record is as it was written, where it
// was written, and that none is missing between the first and the last. With
// files of a directory, give it [ReadDir]'s reader. It needs memory for one
// record, whatever the log's size.
//
// The error matches [ErrCorrupt], [ErrTorn] or [ErrVersion], or is r's. The Result tells of
// the part before the error. See the package documentation for what a log that
// verifies proves.
func Verify(r io.Reader, opts *VerifyOptions) (Result, error) {
	c := newChecker(r, opts)
	for {
		_, err := c.next()
		if err == io.EOF {
			return c.result, nil
		}
		if err != nil {
			return c.result, err
		}
	}
}

// Records returns the records of a log, each once it has been verified as
// [Verify] does. The last step may have an error, and then an empty record.
func Records(r io.Reader, opts *VerifyOptions) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		c := newChecker(r, opts)
		for {
			record, err := c.next()
			if err == io.EOF || !yield(record, err) || err != nil {
				return
			}
		}
	}
}

// checker reads a log and verifies it record by record.
type checker struct {
	in     *bufio.Reader
	kept   Head
	log    LogID // zero: any, until the first record says which
	result Result
	line   int64
	offset int64 // of the next line
}

func newChecker(r io.Reader, opts *VerifyOptions) *checker {
	c := &checker{in: bufio.NewReaderSize(r, maxLine)}
	if opts != nil {
		c.result.Head, c.kept = opts.After, opts.Head
		if c.log = c.kept.Log; c.log == (LogID{}) {
			c.log = opts.After.Log
		}
	}
	return c
}

// next returns the next record, or io.EOF at an end that is in order.
func (c *checker) next() (Record, error) {
	if begin := c.result.Head; c.line == 0 && begin.Log != (LogID{}) && begin.Log != c.log {
		return Record{}, c.corrupt("the kept head is one of the log %s, and it begins after one of the log %s", c.log, begin.Log)
	}
	if c.line == 0 && c.kept.Seq > 0 && c.kept.Seq <= c.result.Head.Seq && c.kept != c.result.Head {
		return Record{}, c.corrupt("the kept head %s does not lie behind %s, where the log begins", c.kept, c.result.Head)
	}
	line, err := c.in.ReadSlice('\n')
	c.line++
	switch {
	case err == io.EOF && len(line) == 0:
		return Record{}, c.end()
	case err == io.EOF:
		c.result.Torn = len(line)
		if err := c.end(); err != io.EOF {
			return Record{}, err
		}
		return Record{}, fmt.Errorf("%w: %d bytes after record %d", ErrTorn, len(line), c.result.Head.Seq)
	case errors.Is(err, bufio.ErrBufferFull):
		return Record{}, c.corrupt("it has more than %d bytes", maxLine)
	case err != nil:
		return Record{}, fmt.Errorf("audit: read the log: %w", err)
	}
	record, prev, head, err := decode(line)
	switch {
	case c.result.Records == 0 && errors.Is(err, ErrVersion):
		return Record{}, fmt.Errorf("audit: the log's first record: %w; verify it with the release that wrote it", err)
	case err != nil:
		return Record{}, c.corrupt("%v", err)
	case c.log != (LogID{}) && prev.Log != c.log:
		return Record{}, c.corrupt("it is a record of another log, %s instead of %s", prev.Log, c.log)
	case prev.Seq != c.result.Head.Seq:
		return Record{}, c.corrupt("it is record %d", head.Seq)
	case prev.Hash != c.result.Head.Hash:
		return Record{}, c.corrupt("it is record %d, but of another chain: it does not follow the record before it", head.Seq)
	case head.Seq == c.kept.Seq && head != c.kept:
		return Record{}, c.corrupt("record %d is not the one of the kept head", head.Seq)
	}
	c.offset += int64(len(line))
	c.result.Head, c.log = head, head.Log
	c.result.Records++
	if record.Event == EventLost {
		c.result.Lost += record.Count
	}
	return record, nil
}

// end returns io.EOF if the log may end here.
func (c *checker) end() error {
	if c.kept.Seq > c.result.Head.Seq {
		return c.corrupt("the log ends here, but went on to record %d when its head was kept", c.kept.Seq)
	}
	return io.EOF
}

func (c *checker) corrupt(format string, args ...any) error {
	return &CorruptError{Line: max(c.line, 1), Offset: c.offset, After: c.result.Head, Reason: fmt.Sprintf(format, args...)}
}
