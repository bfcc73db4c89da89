package keyring

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// anchorTimeout bounds each use of the anchor. It is not more than a vault's call takes
// by default: what waits for it is Open, Close, and changes of the document on request.
const anchorTimeout = 10 * time.Second

// anchoring is what a keyring does with its anchor.
//
// The anchor never runs ahead of what is durable: it is advanced to a document that
// was saved, and to a sequence number of which the database on top has said so. It may
// lag, which makes it a weaker bound and no false one. Hence a failure to advance it
// undoes nothing and stops nothing: it is told, and tried again. It is never advanced
// under a hold or a lock of the keyring's, so that an anchor that hangs cannot keep a
// keyring from locking.
type anchoring struct {
	// turn admits one call of Advance at a time, and is given back when that has
	// returned, however late.
	turn chan struct{}
	// soon is whether a goroutine is about to look what is due.
	soon atomic.Bool

	least Point // what the anchor held at Open; never changes
	// What follows is guarded by Keyring.mu.
	at       Point  // what it is known to hold
	sequence uint64 // what the database on top has said is durable
	err      error  // why the last attempt to advance it failed
}

var errAnchorSlow = fmt.Errorf("the anchor did not answer within %v", anchorTimeout)

// withAnchor runs f, bounded by anchorTimeout, by ctx and by the end of closed, if that is
// not nil. If f ignores its context it is left behind.
func withAnchor(ctx context.Context, clock vault.Clock, closed context.Context, f func(context.Context) error) error {
	return within(ctx, clock, anchorTimeout, errAnchorSlow, closed, f)
}

// within runs f, bounded by a time, after which the error is slow, by ctx and by the end of
// closed, if that is not nil. If f ignores its context it is left behind.
func within(ctx context.Context, clock vault.Clock, d time.Duration, slow error, closed context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if closed != nil {
		defer context.AfterFunc(closed, func() { cancel(fmt.Errorf("keyring: %w", ErrClosed)) })()
	}
	defer clock.AfterFunc(d, func() { cancel(slow) })()
	answer := make(chan error, 1)
	go func() { answer <- f(ctx) }()
	select {
	case err := <-answer:
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	case <-ctx.Done():
		select {
		case err := <-answer: // which came with the end of the time
			if err == nil {
				return nil
			}
		default:
		}
		return context.Cause(ctx)
	}
}

// loadAnchor returns what the anchor of the options holds. Without it nothing is opened:
// an anchor that whoever puts back a store can also unplug would be worth nothing.
func loadAnchor(ctx context.Context, o *Options) (Point, error) {
	if o.Anchor == nil {
		return Point{}, nil
	}
	got := make(chan Point, 1) // not a variable: an anchor that is left behind may come back
	err := withAnchor(ctx, o.Clock, nil, func(ctx context.Context) error {
		p, err := o.Anchor.Load(ctx)
		got <- p
		return err
	})
	if err != nil {
		return Point{}, fmt.Errorf("the anchor: %w", err)
	}
	return <-got, nil
}

// howToAccept ends what is said of a keyring that is older than its anchor.
const howToAccept = "; to accept an older copy on purpose, give it an empty anchor: move the file of a FileAnchor away"

// expected checks an opened document against what the anchor held at Open.
func (r *Keyring) expected(got string, generation uint64) error {
	least := r.anchoring.least
	if least.Fingerprint != "" && !sameText(got, least.Fingerprint) {
		return fmt.Errorf("keyring: the fingerprint is %s, not %s: another store's keyring, or a forged one: %w", got, least.Fingerprint, ErrUnexpected)
	}
	return generationExpected(generation, least)
}

// generationExpected looks at a generation, which may be what a document says in clear:
// of one that is too small nothing else needs to be known.
func generationExpected(generation uint64, least Point) error {
	if generation >= least.Generation {
		return nil
	}
	return fmt.Errorf("keyring: the generation is %d, at least %d was expected: an older copy was put in its place: %w"+howToAccept,
		generation, least.Generation, ErrUnexpected)
}

// Anchored returns what Options.Anchor held when the keyring was opened. A database on
// top that counts its changes ([Keyring.Advance]) compares its own sequence number with Sequence
// before it serves anything.
func (r *Keyring) Anchored() Point { return r.anchoring.least }

// Advance says that the database on top is durable up to and including a sequence
// number, and moves the anchor there, and to the present document. A crash at any moment
// from now on must leave at least that, or the next Open refuses what it left. It returns
// why the anchor was not advanced, which is also an event and in the state, and tried
// again at the next change of the document, at checks, and at Close; it need not stop
// anything. Without an anchor it does nothing. A smaller number than before changes
// nothing. It must not be called inside a hold. Errors: [ErrClosed], [ErrReadOnly],
// [ErrUnexpected], the anchor's own.
func (r *Keyring) Advance(ctx context.Context, sequence uint64) error {
	if r.opts.ReadOnly {
		return fmt.Errorf("keyring: advance the anchor: %w", ErrReadOnly)
	}
	if r.closed.Load() {
		return fmt.Errorf("keyring: advance the anchor: %w", ErrClosed)
	}
	r.mu.Lock()
	r.anchoring.sequence = max(r.anchoring.sequence, sequence)
	r.mu.Unlock()
	return r.anchorNow(ctx)
}

// anchorDue returns where the anchor is to be, and whether it is not known to be there. The
// document was saved, and was opened: before, nothing that it says is believed.
func (r *Keyring) anchorDue() (to Point, due bool) {
	if r.opts.Anchor == nil || r.opts.ReadOnly {
		return Point{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	to = Point{r.fingerprint, r.generation, r.anchoring.sequence}
	at := r.anchoring.at
	return to, to.Fingerprint != "" && (at.Fingerprint == "" || to.Generation > at.Generation || to.Sequence > at.Sequence)
}

// anchorNow brings the anchor to where it is to be, and waits for that. Nothing is held.
func (r *Keyring) anchorNow(ctx context.Context) error {
	if _, due := r.anchorDue(); !due {
		return nil
	}
	return r.advanceAnchor(ctx, func() {})
}

// advanceAnchor waits for the turn, calls inTurn, and looks then what is due.
func (r *Keyring) advanceAnchor(ctx context.Context, inTurn func()) error {
	turn := r.anchoring.turn
	err := withAnchor(ctx, r.clock, r.ctx, func(ctx context.Context) error {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-turn }()
		inTurn()
		to, due := r.anchorDue()
		if !due {
			return nil // whoever had the turn before did the work
		}
		err := r.opts.Anchor.Advance(ctx, to)
		if err == nil {
			r.anchored(to)
		}
		return err
	})
	if err == nil {
		return nil
	}
	to, _ := r.anchorDue()
	err = fmt.Errorf("keyring: the anchor was not advanced to generation %d and sequence %d, and lags behind: %w", to.Generation, to.Sequence, err)
	switch {
	case r.ctx.Err() != nil: // closed
	case ctx.Err() != nil:
		r.anchorSoon() // the caller gave up, who has nothing to do with the anchor
	default:
		r.notAnchored(err)
	}
	return err
}

// anchored notes that the anchor holds a point, however late its answer came.
func (r *Keyring) anchored(at Point) {
	r.mu.Lock()
	a := &r.anchoring
	a.at = Point{at.Fingerprint, max(a.at.Generation, at.Generation), max(a.at.Sequence, at.Sequence)}
	back := a.err != nil
	a.err = nil
	r.mu.Unlock()
	if back {
		r.emit(Event{Kind: AnchorAdvanced, Detail: at.String()})
	}
}

// notAnchored notes that it was not advanced, and tells so once.
func (r *Keyring) notAnchored(err error) {
	r.mu.Lock()
	news := r.anchoring.err == nil
	r.anchoring.err = err
	r.mu.Unlock()
	if news {
		r.emit(Event{Kind: AnchorNotAdvanced, Err: err})
	}
}

// thenAnchor ends a change of the document that somebody asked for, which failed with err or
// was saved: the anchor is advanced before it is acknowledged, or has told why not. The
// change stands in either case.
func (r *Keyring) thenAnchor(ctx context.Context, err error) error {
	if err == nil {
		_ = r.anchorNow(ctx)
	}
	return err
}

// anchorSoon is anchorNow for those who hold something: on a goroutine of its own, of
// which one waits for its turn at the most.
func (r *Keyring) anchorSoon() {
	soon := &r.anchoring.soon
	if _, due := r.anchorDue(); !due || !soon.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer soon.Store(false)
		// From its turn on it does not see what becomes due. Its error has been told.
		_ = r.advanceAnchor(r.ctx, func() { soon.Store(false) })
	}()
}
