package pgserver

import (
	"errors"
	"testing"
)

// Run starts a server for a test, and skips the test where there is none on this machine.
func Run(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := Start(settings...)
	if errors.Is(err, ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}
