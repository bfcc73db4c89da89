package audit

import (
	"fmt"
	"io"
	"os"
)

// ReadDir returns a reader of all files of a log's directory, one after the
// other. A log that is being written may be read; its last line may then be
// unfinished.
func ReadDir(dir string) (io.ReadCloser, error) {
	files, err := Files(dir)
	if err != nil {
		return nil, err
	}
	return &dirReader{files: files}, nil
}

// dirReader opens one file at a time.
type dirReader struct {
	files   []string
	current *os.File
}

func (d *dirReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if d.current == nil {
			if len(d.files) == 0 {
				return 0, io.EOF
			}
			f, err := os.Open(d.files[0])
			if err != nil {
				return 0, fmt.Errorf("audit: %w", err)
			}
			d.current, d.files = f, d.files[1:]
		}
		n, err := d.current.Read(p)
		if n > 0 || (err != nil && err != io.EOF) {
			return n, err
		}
		if err == io.EOF {
			if err := d.Close(); err != nil {
				return 0, err
			}
		}
	}
}

func (d *dirReader) Close() error {
	if d.current == nil {
		return nil
	}
	err := d.current.Close()
	d.current = nil
	return err
}
