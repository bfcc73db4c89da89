package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// end is where a directory's log goes on.
type end struct {
	file string // the name of the last file; "" if there is none
	size int64  // of its whole lines, in bytes
	torn []byte // what follows them
	head Head   // of the last record, which may be in the file before
}

// findEnd reads the last record of a directory's log. It changes nothing.
func findEnd(dir string) (end, error) {
	files, err := Files(dir)
	if err != nil || len(files) == 0 {
		return end{}, err
	}
	last := files[len(files)-1]
	e, found, err := readEnd(last)
	if err != nil {
		return end{}, err
	}
	if !found {
		// A file without a whole record: the process stopped when it had made it.
		e.head = Head{}
		if len(files) > 1 {
			before, whole, err := readEnd(files[len(files)-2])
			if err != nil {
				return end{}, err
			}
			if !whole || len(before.torn) > 0 {
				return end{}, damaged(files[len(files)-2], "it does not end with a whole record although another file follows")
			}
			e.head = before.head
		}
		if seq, _ := firstSeq(e.file); seq != e.head.Seq+1 {
			return end{}, damaged(last, fmt.Sprintf("it has no records, and by its name should follow record %d, not %d", seq-1, e.head.Seq))
		}
	}
	return e, nil
}

// readEnd reads the last whole line of a file. found is false if there is none.
func readEnd(path string) (e end, found bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return end{}, false, fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return end{}, false, fmt.Errorf("audit: %w", err)
	}
	// The last line, an unfinished one, and the line feed before them.
	tail := make([]byte, min(info.Size(), 2*maxLine+1))
	from := info.Size() - int64(len(tail))
	if _, err := f.ReadAt(tail, from); err != nil && err != io.EOF {
		return end{}, false, fmt.Errorf("audit: %w", err)
	}
	e.file = filepath.Base(path)
	whole := bytes.LastIndexByte(tail, '\n') + 1
	e.size, e.torn = from+int64(whole), tail[whole:]
	if len(e.torn) > maxLine || (whole == 0 && from > 0) {
		return end{}, false, damaged(path, "its end is no record")
	}
	if whole == 0 {
		return e, false, nil
	}
	line := tail[bytes.LastIndexByte(tail[:whole-1], '\n')+1 : whole]
	_, _, head, err := decode(line)
	if errors.Is(err, ErrVersion) {
		return end{}, false, fmt.Errorf("audit: %s: its last record: %w; verify the log with the release that wrote it, and move its directory away to begin a new one", path, err)
	}
	if err != nil {
		return end{}, false, damaged(path, "its last record: "+err.Error())
	}
	e.head = head
	return e, true, nil
}

func damaged(path, why string) error {
	return fmt.Errorf("%w: %s: %s; verify the log, and move its directory away to begin a new one", ErrCorrupt, path, why)
}
