// Package anchortest is the conformance suite for implementations of [keyring.Anchor]:
// whoever writes one runs it in a test.
//
//	func TestConformance(t *testing.T) {
//		anchortest.Run(t, func(t *testing.T) func() keyring.Anchor {
//			place := newPlace(t) // empty
//			return func() keyring.Anchor { return New(place) }
//		})
//	}
//
// What a suite cannot see is whether Advance returned before the machine would have kept
// it: that is for the implementation's own tests.
package anchortest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/blockseal/blockseal/keyring"
)

// Run runs the suite. place makes an empty place to keep a point in, each time another, and
// returns what opens it: as often as it is called, as several processes would, each time
// with a handle of its own.
func Run(t *testing.T, place func(t *testing.T) (open func() keyring.Anchor)) {
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			if err := r.check(t.Context(), place(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// rule is one of the things that an anchor promises.
type rule struct {
	name  string
	check func(ctx context.Context, open func() keyring.Anchor) error
}

func rules() []rule {
	return []rule{
		{"an empty one holds nothing", empty},
		{"it keeps what it was advanced to", keeps},
		{"each number only grows", forward},
		{"another fingerprint is refused", refusesAnother},
		{"a point without a fingerprint is refused", refusesNone},
		{"what is kept outlives its handle", durable},
		{"handles see each other's points", shared},
		{"advances at once lose nothing", concurrent},
		{"a context that ended changes nothing", ended},
	}
}

var (
	mine   = strings.Repeat("0123456789abcdef", 4)
	theirs = strings.Repeat("fedcba9876543210", 4)
)

func at(generation, sequence uint64) keyring.Point {
	return keyring.Point{Fingerprint: mine, Generation: generation, Sequence: sequence}
}

// holds checks what an anchor returns.
func holds(ctx context.Context, a keyring.Anchor, want keyring.Point) error {
	got, err := a.Load(ctx)
	if err != nil {
		return fmt.Errorf("a Load failed: %w", err)
	}
	if got != want {
		return fmt.Errorf("a Load returned %v, want %v", got, want)
	}
	return nil
}

func advance(ctx context.Context, a keyring.Anchor, to keyring.Point) error {
	if err := a.Advance(ctx, to); err != nil {
		return fmt.Errorf("an Advance to %v failed: %w", to, err)
	}
	return nil
}

func empty(ctx context.Context, open func() keyring.Anchor) error {
	return holds(ctx, open(), keyring.Point{})
}

func keeps(ctx context.Context, open func() keyring.Anchor) error {
	a := open()
	for _, p := range []keyring.Point{at(1, 0), at(1, 1), at(2, 1), at(1<<63+5, 1<<64-1)} {
		if err := errors.Join(advance(ctx, a, p), holds(ctx, a, p)); err != nil {
			return err
		}
		if err := errors.Join(advance(ctx, a, p), holds(ctx, a, p)); err != nil {
			return fmt.Errorf("a second time: %w", err)
		}
	}
	return nil
}

// forward: a number that is smaller is no error, and keeps the other from nothing.
func forward(ctx context.Context, open func() keyring.Anchor) error {
	a := open()
	for _, step := range []struct{ to, want keyring.Point }{
		{at(5, 50), at(5, 50)}, {at(4, 40), at(5, 50)}, {at(0, 0), at(5, 50)},
		{at(4, 60), at(5, 60)}, {at(6, 50), at(6, 60)}, {at(6, 60), at(6, 60)},
	} {
		if err := errors.Join(advance(ctx, a, step.to), holds(ctx, a, step.want), holds(ctx, open(), step.want)); err != nil {
			return fmt.Errorf("after %v: %w", step.to, err)
		}
	}
	return nil
}

// refused checks that a point is refused and leaves what is kept.
func refused(ctx context.Context, a keyring.Anchor, to, kept keyring.Point) error {
	err := a.Advance(ctx, to)
	if err == nil {
		return fmt.Errorf("an Advance to %v succeeded, where %v is kept", to, kept)
	}
	if !errors.Is(err, keyring.ErrUnexpected) {
		return fmt.Errorf("the error of Advance to %v does not match keyring.ErrUnexpected: %w", to, err)
	}
	return holds(ctx, a, kept)
}

func refusesAnother(ctx context.Context, open func() keyring.Anchor) error {
	a, kept := open(), at(5, 50)
	if err := advance(ctx, a, kept); err != nil {
		return err
	}
	for _, p := range []keyring.Point{{Fingerprint: theirs, Generation: 6, Sequence: 60}, {Fingerprint: theirs, Generation: 4, Sequence: 40}} {
		if err := errors.Join(refused(ctx, a, p, kept), refused(ctx, open(), p, kept)); err != nil {
			return err
		}
	}
	return nil
}

func refusesNone(ctx context.Context, open func() keyring.Anchor) error {
	// An empty anchor may refuse it in any way.
	if err := open().Advance(ctx, keyring.Point{Generation: 1}); err == nil {
		return errors.New("an empty anchor was advanced to a point without a fingerprint")
	}
	if err := advance(ctx, open(), at(5, 50)); err != nil {
		return err
	}
	err := open().Advance(ctx, keyring.Point{Generation: 6, Sequence: 60})
	if err == nil {
		return errors.New("an Advance to a point without a fingerprint succeeded")
	}
	return holds(ctx, open(), at(5, 50))
}

func durable(ctx context.Context, open func() keyring.Anchor) error {
	for i := range uint64(3) {
		if err := advance(ctx, open(), at(i+1, 10*i)); err != nil {
			return err
		}
		if err := holds(ctx, open(), at(i+1, 10*i)); err != nil {
			return fmt.Errorf("opened again: %w", err)
		}
	}
	return nil
}

func shared(ctx context.Context, open func() keyring.Anchor) error {
	one, other := open(), open()
	return errors.Join(
		advance(ctx, one, at(1, 10)), holds(ctx, other, at(1, 10)),
		advance(ctx, other, at(2, 5)), holds(ctx, one, at(2, 10)),
		advance(ctx, one, at(1, 20)), holds(ctx, other, at(2, 20)))
}

// concurrent: several advance one number each, those of one number through one handle and
// those of the other through another. What a call was acknowledged for is there, whatever the
// others do.
func concurrent(ctx context.Context, open func() keyring.Anchor) error {
	const workers, steps = 4, 12
	handles := []keyring.Anchor{open(), open()}
	errs := make(chan error, workers)
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			a := handles[w%2]
			for i := range uint64(steps) {
				p := at(i*workers+w+1, 1)
				if w%2 == 1 {
					p = at(1, i*workers+w+1)
				}
				err := advance(ctx, a, p)
				got, load := a.Load(ctx)
				if err == nil && load == nil && (got.Generation < p.Generation || got.Sequence < p.Sequence) {
					err = fmt.Errorf("after Advance to %v, Load returned %v", p, got)
				}
				if err = errors.Join(err, load); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		return err
	}
	return holds(ctx, open(), at((steps-1)*workers+workers-1, (steps-1)*workers+workers))
}

func ended(ctx context.Context, open func() keyring.Anchor) error {
	if err := advance(ctx, open(), at(1, 1)); err != nil {
		return err
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := open().Advance(over, at(2, 2)); err == nil {
		return errors.New("an Advance succeeded with a context that had ended")
	}
	return holds(ctx, open(), at(1, 1))
}
