package vaulttest

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// requireComplete requires an id of the subject's key with all three parts.
func (r *run) requireComplete(what string, id vault.KeyID) {
	r.T.Helper()
	if id.Vault == "" || id.Version == "" || id.Name != r.Key.Name {
		r.T.Fatalf("%s answered with id %q, want vault, name %q and version", what, id, r.Key.Name)
	}
	if r.Key.Vault != "" && id.Vault != r.Key.Vault {
		r.T.Fatalf("%s answered with vault %q, want %q", what, id.Vault, r.Key.Vault)
	}
	if err := id.Validate(); err != nil {
		r.T.Fatalf("%s answered with id %q: %v", what, id, err)
	}
}

func checkGet(r *run) {
	key := r.get(r.Key)
	r.requireComplete("GetKey", key.ID)
	if key.Public == nil || key.Public.N == nil || key.Public.N.BitLen() != 2048 {
		r.T.Fatalf("GetKey %s: no RSA-2048 public key", r.Key)
	}
	if !key.Enabled {
		r.T.Errorf("GetKey %s: not enabled; the subject's key must be usable", r.Key)
	}
	for _, op := range []vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey} {
		if !key.Permits(op) {
			r.T.Errorf("GetKey %s: Operations %v do not include %s", r.Key, key.Operations, op)
		}
	}
	pinned := r.get(key.ID)
	if pinned.ID != key.ID || !pinned.Public.Equal(key.Public) {
		r.T.Errorf("GetKey %s is another key than GetKey %s", key.ID, r.Key)
	}
	unnamed := key.ID
	unnamed.Vault = "" // "filled in by the vault"
	if got := r.get(unnamed); got.ID != key.ID {
		r.T.Errorf("GetKey %s answered with id %s, want %s", unnamed, got.ID, key.ID)
	}
}

func checkRoundTrip(r *run) {
	current := r.get(r.Key).ID
	ids := []vault.KeyID{r.Key, current}
	for n := 1; n <= vault.MaxSecret; n++ {
		// Every size, and unwrapping, which is slow, at some of them only.
		want := secret(n)
		w := r.wrap(ids[n%2], want)
		r.requireComplete("WrapKey", w.KeyID)
		if w.KeyID != current {
			r.T.Fatalf("WrapKey %s used %s, want the current version, %s", ids[n%2], w.KeyID, current)
		}
		if len(w.Ciphertext) != vault.WrappedSize {
			r.T.Fatalf("WrapKey: %d bytes of ciphertext, want %d", len(w.Ciphertext), vault.WrappedSize)
		}
		if n < 3 || n%16 == 0 || n > vault.MaxSecret-2 {
			r.unwrap(w, want)
		}
	}
	r.unwrap(r.wrap(r.Key, make([]byte, 32)), make([]byte, 32)) // zero bytes are bytes
}

func checkSecretSize(r *run) {
	for _, n := range []int{0, vault.MaxSecret + 1, 256, 1 << 16} {
		s := secret(n)
		err := r.tryWrap(r.Key, s)(r.T.Context())
		if err == nil {
			r.T.Errorf("WrapKey took a secret of %d bytes, want an error", n)
			continue
		}
		r.isMistake(fmt.Sprintf("WrapKey of %d bytes", n), err)
		r.checkRefusal(err, vault.OpWrapKey, r.Key, nil, s)
	}
}

func checkWrapDiffers(r *run) {
	s := secret(32)
	seen := map[string]bool{}
	for range 4 {
		w := r.wrap(r.Key, s)
		if seen[string(w.Ciphertext)] {
			r.T.Fatalf("WrapKey gave the same ciphertext twice; OAEP is randomised")
		}
		seen[string(w.Ciphertext)] = true
		if bytes.Contains(w.Ciphertext, s) {
			r.T.Fatalf("WrapKey returned the secret unencrypted")
		}
	}
}

func checkAlgorithm(r *run) {
	key := r.get(r.Key)
	want := secret(32)
	// Whoever has the public key can wrap; the vault must agree on the algorithm.
	local, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.Public, want, nil)
	if err != nil {
		r.T.Fatalf("encrypt to the public key of %s: %v", key.ID, err)
	}
	r.unwrap(vault.Wrapped{KeyID: key.ID, Ciphertext: local}, want)

	labelled, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.Public, want, []byte("label"))
	if err != nil {
		r.T.Fatalf("encrypt to the public key of %s: %v", key.ID, err)
	}
	w := vault.Wrapped{KeyID: key.ID, Ciphertext: labelled}
	r.refuses(vault.OpUnwrapKey, key.ID, vault.ErrBadCiphertext, r.tryUnwrap(w), want)

	var old []byte
	// Only to make what a vault must refuse; FIPS mode forbids SHA-1 otherwise.
	fips140.WithoutEnforcement(func() {
		old, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, key.Public, want, nil)
	})
	if err != nil {
		r.T.Fatalf("encrypt with SHA-1 to the public key of %s: %v", key.ID, err)
	}
	w = vault.Wrapped{KeyID: key.ID, Ciphertext: old}
	r.refuses(vault.OpUnwrapKey, key.ID, vault.ErrBadCiphertext, r.tryUnwrap(w), want)
}

func checkUnwrapVersion(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	w.KeyID.Version = ""
	r.refuses(vault.OpUnwrapKey, w.KeyID, nil, r.tryUnwrap(w), s)
	r.isMistake("UnwrapKey without a version", r.tryUnwrap(w)(r.T.Context()))
}

func checkAltered(r *run) {
	s := secret(32)
	good := r.wrap(r.Key, s)
	c := good.Ciphertext
	bad := []struct {
		what       string
		ciphertext []byte
	}{
		{"empty", nil},
		{"one byte", c[:1]},
		{"truncated by 1", c[:len(c)-1]},
		{"first byte missing", c[1:]},
		{"extended by 1", append(slices.Clone(c), 0)},
		{"extended in front", append([]byte{0}, c...)},
		{"twice", slices.Concat(c, c)},
		{"all zeros", make([]byte, len(c))},
		{"all ones", bytes.Repeat([]byte{0xff}, len(c))},
		{"the secret in clear", s},
	}
	for _, at := range []int{0, 1, 127, 254, 255} {
		flipped := slices.Clone(c)
		flipped[at] ^= 1
		bad = append(bad, struct {
			what       string
			ciphertext []byte
		}{fmt.Sprintf("byte %d flipped", at), flipped})
	}
	for _, b := range bad {
		w := vault.Wrapped{KeyID: good.KeyID, Ciphertext: b.ciphertext}
		err := r.tryUnwrap(w)(r.T.Context())
		if !errors.Is(err, vault.ErrBadCiphertext) {
			r.T.Errorf("UnwrapKey of an altered ciphertext (%s): error %v, want %q", b.what, err, vault.ErrBadCiphertext)
			continue
		}
		r.checkRefusal(err, vault.OpUnwrapKey, good.KeyID, vault.ErrBadCiphertext, s)
	}
	r.unwrap(good, s)
}

func checkUnknown(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)

	name := w.KeyID
	name.Name, name.Version = "no-such-key", ""
	r.refuses(vault.OpGet, name, vault.ErrKeyNotFound, r.tryGet(name))
	r.refuses(vault.OpWrapKey, name, vault.ErrKeyNotFound, r.tryWrap(name, s), s)
	name.Version = w.KeyID.Version
	r.refuses(vault.OpUnwrapKey, name, vault.ErrKeyNotFound, r.tryUnwrap(vault.Wrapped{KeyID: name, Ciphertext: w.Ciphertext}), s)

	version := w.KeyID
	version.Version = otherVersion(version.Version)
	r.refuses(vault.OpGet, version, vault.ErrKeyNotFound, r.tryGet(version))
	r.refuses(vault.OpWrapKey, version, vault.ErrKeyNotFound, r.tryWrap(version, s), s)
	r.refuses(vault.OpUnwrapKey, version, vault.ErrKeyNotFound, r.tryUnwrap(vault.Wrapped{KeyID: version, Ciphertext: w.Ciphertext}), s)
	r.unwrap(w, s)
}

// otherVersion returns a version of the same form that does not exist.
func otherVersion(v string) string {
	last := v[len(v)-1:]
	if last == "1" {
		return v[:len(v)-1] + "2"
	}
	return v[:len(v)-1] + "1"
}

func checkOtherVault(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	other := w.KeyID
	if strings.HasSuffix(other.Vault, "x") {
		other.Vault += "y"
	} else {
		other.Vault += "x"
	}
	r.refuses(vault.OpGet, other, vault.ErrKeyNotFound, r.tryGet(other))
	r.refuses(vault.OpWrapKey, other, vault.ErrKeyNotFound, r.tryWrap(other, s), s)
	r.refuses(vault.OpUnwrapKey, other, vault.ErrKeyNotFound, r.tryUnwrap(vault.Wrapped{KeyID: other, Ciphertext: w.Ciphertext}), s)
}

func checkContext(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	cancelled, cancel := context.WithCancel(r.T.Context())
	cancel()
	expired, cancel := context.WithDeadline(r.T.Context(), time.Unix(0, 0))
	defer cancel()
	for _, ctx := range []context.Context{cancelled, expired} {
		for _, c := range []struct {
			op   vault.Operation
			call func(context.Context) error
		}{
			{vault.OpGet, r.tryGet(r.Key)},
			{vault.OpWrapKey, r.tryWrap(r.Key, s)},
			{vault.OpUnwrapKey, r.tryUnwrap(w)},
		} {
			err := c.call(ctx)
			if err == nil {
				r.T.Errorf("%s went on after its context had ended (%v)", c.op, ctx.Err())
				continue
			}
			if vault.Denied(err) || !vault.Transient(err) {
				r.T.Errorf("%s with an ended context: Denied %v, Transient %v, want false, true: %v", c.op, vault.Denied(err), vault.Transient(err), err)
			}
			if !errors.Is(err, ctx.Err()) {
				r.T.Errorf("%s with an ended context: the error does not match %q: %v", c.op, ctx.Err(), err)
			}
		}
	}
	r.unwrap(w, s)
}

func checkAliasing(r *run) {
	want := secret(32)
	given := slices.Clone(want)
	w := r.wrap(r.Key, given)
	if !bytes.Equal(given, want) {
		r.T.Fatalf("WrapKey changed the caller's secret")
	}
	clear(given) // as callers do
	ciphertext := slices.Clone(w.Ciphertext)
	r.unwrap(w, want)
	if !bytes.Equal(w.Ciphertext, ciphertext) {
		r.T.Fatalf("UnwrapKey changed the caller's ciphertext")
	}

	first, err := r.Vault.UnwrapKey(r.T.Context(), w)
	if err != nil {
		r.T.Fatalf("UnwrapKey: %v", err)
	}
	if !bytes.Equal(first, want) {
		r.T.Fatalf("UnwrapKey: it returned another secret than was wrapped")
	}
	kept := r.wrap(r.Key, secret(32)) // a vault that reuses a buffer would now overwrite first
	if _, err := r.Vault.UnwrapKey(r.T.Context(), kept); err != nil {
		r.T.Fatalf("UnwrapKey: %v", err)
	}
	if !bytes.Equal(first, want) {
		r.T.Fatalf("UnwrapKey overwrote the secret it had returned before")
	}
	clear(first) // as callers do
	r.unwrap(w, want)

	w2 := r.wrap(r.Key, want)
	clear(w2.Ciphertext)
	r.unwrap(w, want)

	key := r.get(r.Key)
	before := slices.Clone(key.Operations)
	for i := range key.Operations {
		key.Operations[i] = "overwritten"
	}
	if got := r.get(r.Key).Operations; !slices.Equal(got, before) {
		r.T.Errorf("GetKey shares Operations between callers: %v, want %v", got, before)
	}
}

func checkConcurrent(r *run) {
	var wg sync.WaitGroup
	shared := secret(32)
	sharedWrap := r.wrap(r.Key, shared)
	for g := range 8 {
		wg.Go(func() {
			for n := range 4 {
				s := secret(1 + (g*37+n*11)%vault.MaxSecret)
				w, err := r.Vault.WrapKey(r.T.Context(), r.Key, s)
				if err != nil {
					r.T.Errorf("concurrent WrapKey: %v", err)
					return
				}
				for _, c := range []struct {
					w    vault.Wrapped
					want []byte
				}{{w, s}, {sharedWrap, shared}} {
					got, err := r.Vault.UnwrapKey(r.T.Context(), c.w)
					if err != nil || !bytes.Equal(got, c.want) {
						r.T.Errorf("concurrent UnwrapKey: another secret, or error %v", err)
						return
					}
					clear(got)
				}
				if key, err := r.Vault.GetKey(r.T.Context(), r.Key); err != nil || key.ID != w.KeyID {
					r.T.Errorf("concurrent GetKey: id %s, want %s, error %v", key.ID, w.KeyID, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
