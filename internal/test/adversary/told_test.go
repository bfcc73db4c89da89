package adversary

import (
	"sync"
	"testing"
	"time"

	"github.com/blockseal/blockseal/keyring"
	"github.com/stretchr/testify/require"
)

// told collects the events of the stores that are opened from now on.
type told struct {
	mu     sync.Mutex
	events []keyring.Event
}

func (g *rig) listen() *told {
	l := &told{}
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, e)
	}
	return l
}

// await waits until so many stores have told that they are closed, which is the last that each
// tells: events come a while after what they are of.
func (l *told) await(t *testing.T, stores int) {
	t.Helper()
	require.Eventually(t, func() bool {
		n := 0
		for _, e := range l.of(keyring.StateChanged) {
			if e.To == keyring.Closed {
				n++
			}
		}
		return n >= stores
	}, time.Minute, time.Millisecond)
}

// of returns the events of a kind that have come.
func (l *told) of(kind keyring.EventKind) (out []keyring.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}
