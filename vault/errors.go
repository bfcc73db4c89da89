package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// What a vault answers when it does not do as asked. Match with [errors.Is];
// every layer of blockseal keeps them findable.
var (
	ErrKeyNotFound    = errors.New("key not found")              // no such key or key version
	ErrKeyDeleted     = errors.New("key deleted")                // soft-deleted: recoverable until purged
	ErrKeyDisabled    = errors.New("key disabled")               // Enabled is false
	ErrKeyExpired     = errors.New("key expired")                // at or after Expires
	ErrKeyNotYetValid = errors.New("key not yet valid")          // before NotBefore
	ErrAccessDenied   = errors.New("access denied")              // permission, key operation, firewall, private endpoint
	ErrWrongTenant    = errors.New("wrong tenant")               // the token is for another directory
	ErrUnsupportedKey = errors.New("unsupported key")            // not an acceptable RSA-2048 key, or not the key it was
	ErrBadCiphertext  = errors.New("ciphertext not of this key") // this key version did not make it, or it was altered
	ErrThrottled      = errors.New("throttled")                  // too many requests; see [RetryAfter]
	ErrUnavailable    = errors.New("vault unavailable")          // no answer, or the service's own failure; a vault whose name no longer resolves, too
)

// What an administrator of a vault is answered beside these. It says nothing about the right
// to use a key: it is neither [Denied] nor [Transient].
var (
	// ErrKeyExists says that there is a key of the name under which one was to be made,
	// imported or restored, and that it stays as it is.
	ErrKeyExists = errors.New("key exists")
)

// denials are the answers that say no. The order is the one in which [Kind]
// looks for them.
func denials() [9]error {
	return [9]error{
		ErrKeyNotFound, ErrKeyDeleted, ErrKeyDisabled, ErrKeyExpired, ErrKeyNotYetValid,
		ErrAccessDenied, ErrWrongTenant, ErrUnsupportedKey, ErrBadCiphertext,
	}
}

// Denied reports whether err says that the vault answered, and the answer is no:
// the key or the right to use it is gone, and what was opened with it must be
// closed now.
func Denied(err error) bool {
	for _, d := range denials() {
		if errors.Is(err, d) {
			return true
		}
	}
	return false
}

// Transient reports whether err says that the vault did not answer, so that
// nothing is known about the key: [ErrThrottled], [ErrUnavailable], or a
// context that ended first. An error that also carries a denial is not
// transient.
//
// An error that is neither Denied nor Transient is not the vault's: treat it
// like Transient, which grants nothing beyond what was already granted.
func Transient(err error) bool {
	if err == nil || Denied(err) {
		return false
	}
	return errors.Is(err, ErrThrottled) || errors.Is(err, ErrUnavailable) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// Kind returns the sentinel of this package that err matches, or nil.
func Kind(err error) error {
	for _, d := range denials() {
		if errors.Is(err, d) {
			return d
		}
	}
	for _, t := range [...]error{ErrThrottled, ErrUnavailable, ErrKeyExists} {
		if errors.Is(err, t) {
			return t
		}
	}
	return nil
}

// RetryAfter returns how long the vault asked to be left alone, or 0 if err
// does not say.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// Error is a vault's refusal or failure with what a person needs to act on it.
// It never carries key material, plaintext, ciphertext or tokens.
type Error struct {
	Op         Operation     // what was asked
	Key        KeyID         // of which key; the version may be empty
	Kind       error         // one of the sentinels of this package
	Detail     string        // what to look at or do, a clause without a final stop; may be empty
	Code       string        // the vault's own code, such as "Forbidden/KeyDisabled"; may be empty
	RequestID  string        // the vault's name for the request; may be empty
	RetryAfter time.Duration // with ErrThrottled, if the vault said; else 0
	Err        error         // the cause below, such as a network error; may be nil
}

// Error returns one line: operation, key, kind, detail, code, request id, cause.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "vault: %s %s: %v", e.Op, e.Key, e.Kind)
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, " (retry after %v)", e.RetryAfter)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, " [%s]", e.Code)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " [request %s]", e.RequestID)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}
