package row

import (
	"io"
	"sync"

	"github.com/blockseal/blockseal/keyring"
)

// Use keeps a store's engine open for users without a hold of the keyring, and tracks what has to
// be closed before the engine. It is safe for concurrent use; the zero Use is ready.
type Use struct {
	engine sync.RWMutex // read-locked by users of the engine, locked by Close
	closed bool

	mu   sync.Mutex
	open map[io.Closer]struct{} // views, batches and cursors
}

// Begin keeps the engine open until End, or returns ErrClosed.
func (u *Use) Begin() error {
	u.engine.RLock()
	if u.closed {
		u.engine.RUnlock()
		return keyring.ErrClosed
	}
	return nil
}

// TryBegin is Begin, but does not wait: it reports false if Close was called, which may be waiting for
// others.
func (u *Use) TryBegin() bool {
	if !u.engine.TryRLock() { // which fails for Close alone
		return false
	}
	if u.closed {
		u.engine.RUnlock()
		return false
	}
	return true
}

// End ends what Begin began.
func (u *Use) End() { u.engine.RUnlock() }

// Close waits for the users of the engine, refuses others, and calls release once.
func (u *Use) Close(release func() error) error {
	u.engine.Lock()
	defer u.engine.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	return release()
}

// Track has CloseAll close c. The caller has a hold.
func (u *Use) Track(c io.Closer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open == nil {
		u.open = map[io.Closer]struct{}{}
	}
	u.open[c] = struct{}{}
}

// Finish closes c, unless CloseAll has closed it.
func (u *Use) Finish(c io.Closer) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.open[c]; !ok {
		return nil
	}
	delete(u.open, c)
	return c.Close()
}

// Tracked reports whether c is open.
func (u *Use) Tracked(c io.Closer) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.open[c]
	return ok
}

// CloseAll closes all that is open. Nobody has a hold any more.
func (u *Use) CloseAll() (errs []error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.open {
		errs = append(errs, c.Close())
	}
	u.open = nil
	return errs
}
