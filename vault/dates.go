package vault

import (
	"fmt"
	"time"
)

// clockTolerance is how far a machine's clock may be from the vault's before an error says
// so: more than an answer takes, and than clocks that are looked after differ by.
const clockTolerance = 5 * time.Minute

// InDate returns an error that matches [ErrKeyExpired] or [ErrKeyNotYetValid] if the version
// is not in date at now, the time by this machine's clock. Every refusal for a date has its
// text from here: the date, the time that was assumed, and that the clock may be wrong. If
// the vault said what time it is (Key.VaultTime), the text says which of the two is ahead;
// nothing is decided by that, because whoever can answer for a vault could then make a key
// younger.
func (k Key) InDate(op Operation, now time.Time) error {
	date, kind := k.outOfDate(now)
	if kind == nil {
		return nil
	}
	return &Error{Op: op, Key: k.ID, Kind: kind, Detail: date + k.assumed(now)}
}

// Expired is the error of InDate for a version whose expiry passed at some moment until now,
// by whichever clock.
func (k Key) Expired(op Operation, now time.Time) error {
	return &Error{Op: op, Key: k.ID, Kind: ErrKeyExpired, Detail: expiredAt + utc(k.Expires) + k.assumed(now)}
}

// WhyRefused is InDate for a version that the vault has just refused, perhaps for its dates:
// a version may also be out of date by the vault's clock alone.
func (k Key) WhyRefused(op Operation, now time.Time) error {
	if err := k.InDate(op, now); err != nil || k.VaultTime.IsZero() {
		return err
	}
	date, kind := k.outOfDate(k.VaultTime)
	if kind == nil {
		return nil
	}
	return &Error{Op: op, Key: k.ID, Kind: kind, Detail: fmt.Sprintf(
		"%s by the vault's clock, at %s; by this machine's clock it is %s, and the version is in date: that clock is wrong",
		date, utc(k.VaultTime), utc(now))}
}

const expiredAt = "it expired at "

// outOfDate returns the date, and which error it is, or nil. Dates are wall time: without a
// monotonic reading they are compared as such.
func (k Key) outOfDate(now time.Time) (date string, kind error) {
	now = now.Round(0)
	switch {
	case !k.NotBefore.IsZero() && now.Before(k.NotBefore.Round(0)):
		return "it is valid from " + utc(k.NotBefore), ErrKeyNotYetValid
	case !k.Expires.IsZero() && !now.Before(k.Expires.Round(0)):
		return expiredAt + utc(k.Expires), ErrKeyExpired
	}
	return "", nil
}

// assumed says what time it was taken to be, and what speaks for and against that.
func (k Key) assumed(now time.Time) string {
	text := "; the time was taken to be " + utc(now) + " by this machine's clock, "
	if k.VaultTime.IsZero() {
		return text + "which may be wrong"
	}
	off := now.Round(0).Sub(k.VaultTime.Round(0))
	switch {
	case off.Abs() < clockTolerance:
		return text + "which agrees with the vault's"
	case off > 0:
		return text + fmt.Sprintf("which is %s ahead of the vault's: by that it is %s; set the clock", span(off), utc(k.VaultTime))
	}
	return text + fmt.Sprintf("which is %s behind the vault's: by that it is %s; set the clock", span(-off), utc(k.VaultTime))
}

func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.Round(time.Second).String()
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
