package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/blockseal/blockseal/vault"
)

// maxStuck is how many calls may be stuck in a vault that ignores its context
// before no more are made.
const maxStuck = 8

// callCounts counts the keyring's calls to its vault; see Stats.
type callCounts struct {
	get, wrap, unwrap, failed atomic.Uint64
	stuck                     atomic.Int32

	ended              [3]callEnds // by opIndex
	checks             checkEnds
	dekHits, dekMisses atomic.Uint64
}

func (c *callCounts) of(op vault.Operation) *atomic.Uint64 {
	switch op {
	case vault.OpWrapKey:
		return &c.wrap
	case vault.OpUnwrapKey:
		return &c.unwrap
	}
	return &c.get
}

// Calls is how often a keyring called its vault, by operation, and how many of
// the calls failed.
type Calls struct {
	Get    uint64 `json:"get"`
	Wrap   uint64 `json:"wrap"`
	Unwrap uint64 `json:"unwrap"`
	Failed uint64 `json:"failed"`
}

// VaultCalls returns the counts since the keyring was opened.
func (r *Keyring) VaultCalls() Calls {
	c := &r.calls
	return Calls{Get: c.get.Load(), Wrap: c.wrap.Load(), Unwrap: c.unwrap.Load(), Failed: c.failed.Load()}
}

var errNoAnswer = errors.New("no answer in time")

// vaultCall makes one call to the vault, bounded by VaultTimeout, by ctx and by
// Close. A vault that ignores its context is left behind: f goes on, on its own
// goroutine, and its late answer goes to discard and nowhere else.
func vaultCall[T any](ctx context.Context, r *Keyring, op vault.Operation, id vault.KeyID,
	f func(context.Context) (T, error), discard func(T)) (T, error) {
	if r.calls.stuck.Load() >= maxStuck {
		r.calls.ended[opIndex(op)].notMade.Add(1)
		var zero T
		return zero, &vault.Error{Op: op, Key: id, Kind: vault.ErrUnavailable,
			Detail: fmt.Sprintf("no answer within %v to any of %d calls, which its client still holds; it was not asked again", r.opts.VaultTimeout, maxStuck)}
	}
	r.calls.of(op).Add(1)
	start := r.clock.Elapsed()
	v, err := bounded(ctx, r, f, discard)
	r.calls.ended[opIndex(op)].add(r.clock.Elapsed()-start, err)
	if err == nil {
		return v, nil
	}
	r.calls.failed.Add(1)
	if errors.Is(err, errNoAnswer) {
		err = &vault.Error{Op: op, Key: id, Kind: vault.ErrUnavailable,
			Detail: fmt.Sprintf("no answer within %v, the keyring's Options.VaultTimeout", r.opts.VaultTimeout)}
	}
	return v, err
}

func bounded[T any](ctx context.Context, r *Keyring, f func(context.Context) (T, error), discard func(T)) (T, error) {
	var zero T
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(ErrClosed) })()
	defer r.clock.AfterFunc(r.opts.VaultTimeout, func() { cancel(errNoAnswer) })()

	type result struct {
		v   T
		err error
	}
	answered, left := make(chan result), make(chan struct{})
	go func() {
		v, err := f(ctx)
		select {
		case answered <- result{v, err}:
		case <-left:
			discard(v)
			r.calls.stuck.Add(-1)
		}
	}()
	select {
	case res := <-answered:
		if res.err != nil && errors.Is(context.Cause(ctx), errNoAnswer) && !vault.Denied(res.err) {
			return res.v, errNoAnswer
		}
		return res.v, res.err
	case <-ctx.Done():
		r.calls.stuck.Add(1)
		close(left)
		return zero, context.Cause(ctx)
	}
}

// clearBytes discards a secret that came too late.
func clearBytes(b []byte) { clear(b) }
