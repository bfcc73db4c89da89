package vaulttest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Fault is something that goes wrong with calls to a [Vault]. The first four
// fields say with which calls, the others what. Several may be combined: a call
// is first delayed, then hangs or is stuck, then fails with Err or is answered
// wrongly.
type Fault struct {
	Op    vault.Operation // which operation; "" is any
	Key   string          // which key, by name; "" is any
	Nth   int             // from the n-th matching call from now on, 1 being the next; 0 is the next too
	Times int             // how many calls, from the n-th on; 0 is one if Nth is set, else every call

	// Err fails the call. A [*vault.Error] is returned as a copy, with Op and Key
	// filled in if they are empty; a sentinel of package vault becomes the Kind
	// of one; anything else is the cause of an ErrUnavailable.
	Err error

	Hang  bool          // the call does not return before its context ends, or the fault is removed
	Stuck bool          // the call does not return before the fault is removed, whatever its context says
	Delay time.Duration // the call takes so long, by the vault's clock; its context may end it sooner

	Plaintext     []byte               // UnwrapKey answers this in place of the secret; nil is the secret
	MutateKey     func(*vault.Key)     // GetKey's answer is passed through it
	MutateWrapped func(*vault.Wrapped) // WrapKey's answer is passed through it
}

// activeFault is a Fault that was injected.
type activeFault struct {
	Fault
	seen    int           // matching calls so far; guarded by Vault.mu
	removed chan struct{} // closed when the fault is removed
}

// Inject adds a fault. Faults apply in the order in which they were added, until
// one fails the call. remove ends the fault, and releases the calls that it
// holds: they go on, to fail with Err if it is set and else to be answered. It
// may be called more than once.
func (v *Vault) Inject(f Fault) (remove func()) {
	a := &activeFault{Fault: f, removed: make(chan struct{})}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults = append(v.faults, a)
	return sync.OnceFunc(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.faults = slices.DeleteFunc(v.faults, func(have *activeFault) bool { return have == a })
		close(a.removed)
	})
}

// SetOutage makes every call fail with err, which is treated like [Fault.Err],
// until SetOutage(nil).
func (v *Vault) SetOutage(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.outage = err
}

// Waiting returns how many calls are held now by a fault's Hang, Stuck or Delay. The
// timer of a Delay is set by then, so that the clock can be moved.
func (v *Vault) Waiting() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.waiting
}

// begin counts a call and lets the faults act on it that need not know its
// answer; those that apply are returned, for the answer. Then come outage and
// permission.
func (v *Vault) begin(ctx context.Context, op vault.Operation, id vault.KeyID) ([]*activeFault, error) {
	if err := ctx.Err(); err != nil {
		return nil, v.fail(op, id, err)
	}
	faults := v.arrive(op, id)
	for _, f := range faults {
		if err := v.hold(ctx, f); err != nil {
			return nil, v.fail(op, id, err)
		}
		if f.Err != nil {
			return nil, v.fail(op, id, f.Err)
		}
	}
	v.mu.Lock()
	outage, revoked := v.outage, v.revoked[op]
	v.mu.Unlock()
	if outage != nil {
		return nil, v.fail(op, id, outage)
	}
	if revoked {
		return nil, v.fail(op, id, AccessDeniedByRBAC())
	}
	return faults, nil
}

// arrive counts a call and returns the faults that apply to it.
func (v *Vault) arrive(op vault.Operation, id vault.KeyID) []*activeFault {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch op {
	case vault.OpGet:
		v.calls.Get++
	case vault.OpWrapKey:
		v.calls.Wrap++
	case vault.OpUnwrapKey:
		v.calls.Unwrap++
	}
	var apply []*activeFault
	for _, f := range v.faults {
		if (f.Op != "" && f.Op != op) || (f.Key != "" && f.Key != id.Name) {
			continue
		}
		f.seen++
		if f.applies() {
			apply = append(apply, f)
		}
	}
	return apply
}

// applies reports whether the fault is for the matching call counted last.
func (f *activeFault) applies() bool {
	first := max(f.Nth, 1)
	times := f.Times
	if times == 0 && f.Nth > 0 {
		times = 1
	}
	return f.seen >= first && (times == 0 || f.seen < first+times)
}

// hold keeps a call waiting as the fault says.
func (v *Vault) hold(ctx context.Context, f *activeFault) error {
	if f.Delay <= 0 && !f.Hang && !f.Stuck {
		return nil
	}
	over := make(chan struct{})
	if f.Delay > 0 {
		// Set before the call is seen to wait: who has seen that moves the clock.
		stop := v.clock.AfterFunc(f.Delay, func() { close(over) })
		defer stop()
	}
	v.addWaiting(1)
	defer v.addWaiting(-1)
	if f.Delay > 0 {
		select {
		case <-over:
		case <-f.removed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.Stuck {
		<-f.removed
	} else if f.Hang {
		select {
		case <-f.removed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (v *Vault) addWaiting(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waiting += n
}

// fail makes the error of a call out of what a test or a context gave.
func (v *Vault) fail(op vault.Operation, id vault.KeyID, err error) error {
	if id.Vault == "" {
		id.Vault = v.name
	}
	e := &vault.Error{Kind: vault.ErrUnavailable, Err: err}
	if given, ok := err.(*vault.Error); ok {
		c := *given
		e = &c
	} else if kind := vault.Kind(err); kind != nil {
		e.Kind = kind
		if err == kind {
			e.Err = nil // the sentinel itself: nothing more to say
		}
	}
	if e.Op == "" {
		e.Op = op
	}
	if e.Key == (vault.KeyID{}) {
		e.Key = id
	}
	return e
}
