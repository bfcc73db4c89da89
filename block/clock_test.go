package block_test

import (
	"sync"
	"testing"
	"time"

	"github.com/blockseal/blockseal/vault/vaulttest"
)

// watchedClock knows who waits on it. What is done can be seen before who did it waits
// for the next; a clock that is moved in between is moved too early, and the wait then
// has no end.
type watchedClock struct {
	*vaulttest.Clock
	mu    sync.Mutex
	armed map[time.Duration]int
}

func (c *watchedClock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	stop = c.Clock.AfterFunc(d, f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed[d]++
	return stop
}

// waited waits until somebody has begun a wait of d for the nth time.
func (c *watchedClock) waited(t testing.TB, d time.Duration, n int) {
	t.Helper()
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.armed[d] >= n
	}, "somebody waits for "+d.String())
}

// watch has the rig's stores wait on a watched clock from the next open on.
func (g *rig) watch() *watchedClock {
	c := &watchedClock{Clock: g.clock, armed: map[time.Duration]int{}}
	g.opts.Keyring.Clock = c
	return c
}
