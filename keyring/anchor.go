package keyring

import (
	"context"
	"crypto/subtle"
	"fmt"
)

// Point is a moment in the life of a keyring and of the database on top of it, of which
// an [Anchor] keeps the latest that is known to be durable: nothing older is acceptable
// from then on. A zero field says nothing. It is no secret.
type Point struct {
	// Fingerprint as [Keyring.Fingerprint] returns it. Nobody without an opened
	// document can make another with this fingerprint.
	Fingerprint string `json:"fingerprint"`
	// Generation of the keyring document: each save is one more.
	Generation uint64 `json:"generation"`
	// Sequence counts the changes of the database on top; see [Keyring.Advance]. A
	// keyring alone leaves it at 0.
	Sequence uint64 `json:"sequence"`
}

// String returns the point on one line.
func (p Point) String() string {
	if p == (Point{}) {
		return "nothing"
	}
	fingerprint := p.Fingerprint
	if fingerprint == "" {
		fingerprint = "any"
	}
	return fmt.Sprintf("fingerprint %s, generation %d, sequence %d", fingerprint, p.Generation, p.Sequence)
}

// Advanced returns p moved forward to another point: the larger of each number. It is
// what an [Anchor] that holds p keeps after Advance. A point without a fingerprint, and
// one with another fingerprint than p's, is refused with [ErrUnexpected].
func (p Point) Advanced(to Point) (Point, error) {
	switch {
	case to.Fingerprint == "":
		return p, fmt.Errorf("keyring: an anchor is not advanced to a point without a fingerprint: %w", ErrUnexpected)
	case p.Fingerprint != "" && !sameText(p.Fingerprint, to.Fingerprint):
		return p, fmt.Errorf("keyring: the anchor is that of the store with fingerprint %s, not of %s: %w",
			p.Fingerprint, to.Fingerprint, ErrUnexpected)
	}
	return Point{to.Fingerprint, max(p.Generation, to.Generation), max(p.Sequence, to.Sequence)}, nil
}

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// Anchor keeps, outside of the disk that a keyring lies on, what is the least acceptable
// of it, so that a keyring, or a store, that was put back to an earlier state is refused.
// [FileAnchor] keeps it in a file on another disk; [Expect] is fixed. Package anchortest
// has the conformance suite for others.
//
// What an anchor is worth is what it takes to set it back: an attacker who can write
// both the store's disk and the anchor gains nothing from the one and loses nothing to
// the other.
//
// Its methods are safe for concurrent use, in several processes too. They are given up
// after 10 seconds; one that ignores its context is left behind, and not called again
// before it comes back.
type Anchor interface {
	// Load returns what is kept: the zero Point if nothing is. Damage and an outage
	// are errors, and never taken for nothing.
	Load(ctx context.Context) (Point, error)
	// Advance moves what is kept forward, as [Point.Advanced] says, durably before it
	// returns. A number that is smaller than the one kept is no error, and is not
	// written. A point with another fingerprint is refused with an error that matches
	// [ErrUnexpected]. After an error what was kept, or the new point, is kept.
	Advance(ctx context.Context, to Point) error
}

// Expect is an [Anchor] that does not move: what a program knows of a keyring from
// elsewhere, such as its configuration. Zero fields are not checked.
type Expect Point

// Load implements [Anchor].
func (e Expect) Load(context.Context) (Point, error) { return Point(e), nil }

// Advance implements [Anchor]. It changes nothing.
func (e Expect) Advance(ctx context.Context, to Point) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := Point(e).Advanced(to)
	return err
}
