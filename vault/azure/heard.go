package azure

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"sync"
)

// heard is what the connections of a sign-in came to, as net/http tells it. A credential
// tries several times before it says anything, which can be longer than a call has.
type heard struct {
	ctx context.Context

	mu        sync.Mutex
	last      error  // why the last connection was not made
	via       string // the address that was connected to; "" when that was of use
	encrypted bool   // TLS was begun on it
}

// trace returns ctx with h listening.
func (h *heard) trace(ctx context.Context) context.Context {
	h.ctx = ctx
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:           func(string) { h.locked(h.wanted) },
		DNSDone:           func(i httptrace.DNSDoneInfo) { h.failed(i.Err) },
		ConnectDone:       func(_, addr string, err error) { h.failed(err); h.connected(addr, err) },
		TLSHandshakeStart: func() { h.locked(func() { h.encrypted = true }) },
		GotConn:           func(httptrace.GotConnInfo) { h.locked(func() { h.via, h.last = "", nil }) },
	})
}

func (h *heard) locked(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// wanted notes that a connection is wanted. If one was wanted before, and something was
// connected to that never came to speak TLS, it was a proxy that did not let it through.
func (h *heard) wanted() {
	if h.via != "" && !h.encrypted {
		h.last = fmt.Errorf("a proxy at %s did not let it through", h.via)
	}
	h.via, h.encrypted = "", false
}

func (h *heard) connected(addr string, err error) {
	if err == nil {
		h.locked(func() { h.via = addr })
	}
}

// failed notes an error, unless it is that the time was up.
func (h *heard) failed(err error) {
	if err != nil && h.ctx.Err() == nil {
		h.locked(func() { h.last = err })
	}
}

func (h *heard) why() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}
