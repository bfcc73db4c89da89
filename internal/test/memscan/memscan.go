//go:build linux

// Package memscan looks for secrets in the memory of another process, for tests
// that hold what the library promises about erasing keys.
package memscan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Needle is something to look for.
type Needle struct {
	Name  string
	Bytes []byte
}

// chunk is how much is read at a time.
const chunk = 1 << 20

// Search reads all memory that the process may write to, its heap, stacks and data,
// and returns how often each needle is in it. The process must be a child of the
// caller's, or the caller privileged, and should be at rest.
func Search(pid int, needles []Needle) (map[string]int, error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer mem.Close()

	found := map[string]int{}
	lines := bufio.NewScanner(maps)
	regions := 0
	for lines.Scan() {
		var start, end uint64
		var perms string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &perms); err != nil {
			return nil, fmt.Errorf("memscan: %q: %w", lines.Text(), err)
		}
		if !strings.HasPrefix(perms, "rw") || strings.Contains(lines.Text(), "[v") {
			continue
		}
		regions++
		if err := searchRegion(mem, int64(start), int64(end), needles, found); err != nil {
			return nil, err
		}
	}
	if regions == 0 {
		return nil, errors.New("memscan: the process has no writable memory; has it ended?")
	}
	return found, lines.Err()
}

func searchRegion(mem io.ReaderAt, start, end int64, needles []Needle, found map[string]int) error {
	longest := 0
	for _, n := range needles {
		longest = max(longest, len(n.Bytes))
	}
	buf := make([]byte, chunk+longest)
	for at := start; at < end; at += chunk {
		b := buf[:min(int64(len(buf)), end-at)]
		n, err := mem.ReadAt(b, at)
		if err != nil && n == 0 {
			return nil // a guard page, or memory that was never touched
		}
		b = b[:n]
		for _, needle := range needles {
			for off := 0; ; {
				i := bytes.Index(b[off:], needle.Bytes)
				// What begins in the overlap is counted with the next chunk.
				if i < 0 || off+i >= chunk {
					break
				}
				found[needle.Name]++
				off += i + 1
			}
		}
	}
	return nil
}
