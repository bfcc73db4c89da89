package cli

import (
	"io"
	"sync"
)

// Shared returns a writer that several goroutines may write to, each Write whole: a
// command's own output and its logger's.
func Shared(w io.Writer) io.Writer { return &shared{w: w} }

type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
