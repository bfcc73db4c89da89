package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// reporter is the part of [testing.T] that checks use, so that the suite's own
// tests can watch it fail.
type reporter interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// run is one part of the suite at work on its own subject.
type run struct {
	T reporter
	Subject
}

func (r *run) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}

// secret returns n random bytes.
func secret(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// get, wrap and unwrap are for calls that must succeed.

func (r *run) get(id vault.KeyID) vault.Key {
	r.T.Helper()
	key, err := r.Vault.GetKey(r.T.Context(), id)
	if err != nil {
		r.T.Fatalf("GetKey %s: %v", id, err)
	}
	return key
}

func (r *run) wrap(id vault.KeyID, secret []byte) vault.Wrapped {
	r.T.Helper()
	w, err := r.Vault.WrapKey(r.T.Context(), id, secret)
	if err != nil {
		r.T.Fatalf("WrapKey %s, %d bytes: %v", id, len(secret), err)
	}
	return w
}

func (r *run) unwrap(w vault.Wrapped, want []byte) {
	r.T.Helper()
	got, err := r.Vault.UnwrapKey(r.T.Context(), w)
	if err != nil {
		r.T.Fatalf("UnwrapKey %s: %v", w.KeyID, err)
	}
	if !bytes.Equal(got, want) {
		r.T.Fatalf("UnwrapKey %s: it returned another secret than was wrapped (%d bytes, want %d)", w.KeyID, len(got), len(want))
	}
}

// refuses calls the vault and requires a refusal of the given kind; nil is any
// error. secrets must not show in its text.
func (r *run) refuses(op vault.Operation, id vault.KeyID, kind error, call func(context.Context) error, secrets ...[]byte) {
	r.T.Helper()
	err := call(r.T.Context())
	if err == nil {
		r.T.Fatalf("%s %s succeeded, want an error", op, id)
	}
	r.checkRefusal(err, op, id, kind, secrets...)
}

// checkRefusal requires an error that matches kind alone, unless that is nil,
// and whose text says which operation on which key and nothing of a secret.
func (r *run) checkRefusal(err error, op vault.Operation, id vault.KeyID, kind error, secrets ...[]byte) {
	r.T.Helper()
	if kind != nil {
		if !errors.Is(err, kind) {
			r.T.Fatalf("%s %s: %v; want an error that matches %q", op, id, err, kind)
		}
		if other := vault.Kind(err); other != kind {
			r.T.Errorf("%s %s: the error also matches %q, want %q alone: %v", op, id, other, kind, err)
		}
		if vault.Denied(err) != vault.Denied(kind) || vault.Transient(err) != vault.Transient(kind) {
			r.T.Errorf("%s %s: Denied is %v and Transient %v, want %v and %v: %v", op, id,
				vault.Denied(err), vault.Transient(err), vault.Denied(kind), vault.Transient(kind), err)
		}
	}
	text := err.Error()
	if !strings.Contains(text, id.Name) {
		r.T.Errorf("%s %s: the error does not name the key: %s", op, id, text)
	}
	if !strings.Contains(text, string(op)) {
		r.T.Errorf("%s %s: the error does not name the operation: %s", op, id, text)
	}
	for _, s := range secrets {
		if leaks(text, s) {
			r.T.Errorf("%s %s: the error's text holds bytes of the secret", op, id)
		}
	}
}

// leaks reports whether text holds the first bytes of secret, raw or in an
// encoding that a program would print it in.
func leaks(text string, secret []byte) bool {
	const telling = 9 // long enough not to occur by chance, and 12 base64 digits without a remainder
	if len(secret) < telling {
		return false
	}
	head := secret[:telling]
	forms := []string{
		string(head),
		hex.EncodeToString(head),
		strings.ToUpper(hex.EncodeToString(head)),
		base64.StdEncoding.EncodeToString(head),
		base64.URLEncoding.EncodeToString(head),
		strings.Trim(fmt.Sprint(head), "[]"), // %v of a slice
	}
	return slices.ContainsFunc(forms, func(f string) bool { return strings.Contains(text, f) })
}

// tryGet, tryWrap and tryUnwrap are for calls that must be refused.

func (r *run) tryGet(id vault.KeyID) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := r.Vault.GetKey(ctx, id)
		return err
	}
}

func (r *run) tryWrap(id vault.KeyID, secret []byte) func(context.Context) error {
	return func(ctx context.Context) error {
		w, err := r.Vault.WrapKey(ctx, id, secret)
		if err != nil && w.Ciphertext != nil {
			r.T.Errorf("WrapKey %s returned a ciphertext with its error", id)
		}
		return err
	}
}

func (r *run) tryUnwrap(w vault.Wrapped) func(context.Context) error {
	return func(ctx context.Context) error {
		got, err := r.Vault.UnwrapKey(ctx, w)
		if err != nil && len(got) != 0 {
			r.T.Errorf("UnwrapKey %s returned %d bytes with its error", w.KeyID, len(got))
		}
		return err
	}
}
