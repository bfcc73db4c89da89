package vaulttest

import (
	"context"
	"crypto/rsa"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// adminRun is one part of the suite for administrators at work on its own subject.
type adminRun struct {
	*run // of the data plane
	AdminSubject
	pool *keyPool // for imports
}

func newAdminRun(t reporter, s AdminSubject) *adminRun {
	if s.Many == 0 {
		s.Many = 30
	}
	return &adminRun{run: &run{T: t, Subject: Subject{Vault: s.Vault, Now: s.Now}}, AdminSubject: s, pool: newKeyPool()}
}

func (r *adminRun) ctx() context.Context { return r.T.Context() }

// make makes a key, and makeVersion a new version of one, in the way that is quick if there
// is one.
func (r *adminRun) make(name string) vault.Key        { r.T.Helper(); return r.quickly(name, false) }
func (r *adminRun) makeVersion(name string) vault.Key { r.T.Helper(); return r.quickly(name, true) }

func (r *adminRun) quickly(name string, newVersion bool) vault.Key {
	r.T.Helper()
	var k vault.Key
	var err error
	if r.Import == nil {
		k, err = r.Create(r.ctx(), name, newVersion)
	} else {
		k, err = r.Import(r.ctx(), name, r.pool.next(), newVersion)
	}
	r.did("make", name, err)
	return k
}

func (r *adminRun) create(name string) vault.Key {
	r.T.Helper()
	k, err := r.Create(r.ctx(), name, false)
	if err != nil {
		r.T.Fatalf("create %s: %v", name, err)
	}
	return k
}

func (r *adminRun) update(id vault.KeyID, u AdminUpdate) vault.Key {
	r.T.Helper()
	k, err := r.Update(r.ctx(), id, u)
	if err != nil {
		r.T.Fatalf("update %s: %v", id, err)
	}
	r.shows(id, k)
	return k
}

func (r *adminRun) setEnabled(id vault.KeyID, enabled bool) {
	r.T.Helper()
	if k := r.update(id, AdminUpdate{Enabled: &enabled}); k.Enabled != enabled {
		r.T.Fatalf("update %s: Enabled was to be %v, and the answer has %v", id, enabled, k.Enabled)
	}
}

// did requires that a call succeeded.
func (r *adminRun) did(what, name string, err error) {
	r.T.Helper()
	if err != nil {
		r.T.Fatalf("%s %s: %v", what, name, err)
	}
}

// shows requires that what an operation answered is what the data plane shows, under
// the id that was meant.
func (r *adminRun) shows(id vault.KeyID, k vault.Key) {
	r.T.Helper()
	if k.ID.Vault == "" || k.ID.Name != id.Name || k.ID.Version == "" || id.Version != "" && k.ID.Version != id.Version {
		r.T.Fatalf("the answer for %s is about %s, want vault, name and version of it", id, k.ID)
	}
	got := r.get(k.ID)
	if !got.Public.Equal(k.Public) {
		r.T.Fatalf("%s: the answer has another public key than GetKey", k.ID)
	}
	if got.Enabled != k.Enabled || !got.NotBefore.Equal(k.NotBefore) || !got.Expires.Equal(k.Expires) {
		r.T.Fatalf("%s: the answer has enabled %v, not before %v, expires %v, and GetKey %v, %v, %v", k.ID,
			k.Enabled, k.NotBefore, k.Expires, got.Enabled, got.NotBefore, got.Expires)
	}
}

// works requires that a version wraps and unwraps.
func (r *adminRun) works(id vault.KeyID) {
	r.T.Helper()
	s := secret(32)
	r.unwrap(r.wrap(id, s), s)
}

// isCurrent requires that a version is the one that is meant without a version.
func (r *adminRun) isCurrent(id vault.KeyID) {
	r.T.Helper()
	if got := r.get(id.Versionless()).ID; got != id {
		r.T.Fatalf("the current version of %s is %s, want %s", id.Name, got.Version, id.Version)
	}
}

// no requires that an operation was refused, with an error that names the key and
// matches one of the kinds; without any, it matches what it likes.
func (r *adminRun) no(what, name string, err error, kinds ...error) {
	r.T.Helper()
	if err == nil {
		r.T.Fatalf("%s %s succeeded, want an error", what, name)
	}
	if len(kinds) > 0 && !slices.ContainsFunc(kinds, func(k error) bool { return errors.Is(err, k) }) {
		r.T.Fatalf("%s %s: %v; want an error that matches %q", what, name, err, kinds[0])
	}
	if name != "" && !strings.Contains(err.Error(), name) {
		r.T.Errorf("%s %s: the error does not name the key: %v", what, name, err)
	}
}

// gone requires that the data plane refuses a version because it is deleted, or not there.
// Key Vault's cannot tell the two apart.
func (r *adminRun) gone(w vault.Wrapped, kinds ...error) {
	r.T.Helper()
	for what, call := range map[string]func(context.Context) error{
		"get": r.tryGet(w.KeyID), "wrap": r.tryWrap(w.KeyID, secret(16)), "unwrap": r.tryUnwrap(w),
	} {
		r.no(what, w.KeyID.Name, call(r.ctx()), kinds...)
	}
}

// lists requires that a list has exactly some items, each once.
func lists[T interface {
	comparable
	String() string
}](r *adminRun, what string, list func(context.Context) ([]T, error), want []T) {
	r.T.Helper()
	got, err := list(r.ctx())
	if err != nil {
		r.T.Fatalf("list %s: %v", what, err)
	}
	count := map[T]int{}
	for _, x := range got {
		count[x]++
	}
	for _, x := range want {
		if count[x] != 1 {
			r.T.Fatalf("%s: %s is listed %d times, want once; %d items, want %d", what, x, count[x], len(got), len(want))
		}
	}
	if len(got) != len(want) {
		r.T.Fatalf("%s: %d items are listed, want %d", what, len(got), len(want))
	}
}

// named is a name that says itself, for lists.
type named string

func (n named) String() string { return string(n) }

func names(list func(context.Context) ([]string, error)) func(context.Context) ([]named, error) {
	return func(ctx context.Context) ([]named, error) {
		all, err := list(ctx)
		out := make([]named, 0, len(all))
		for _, x := range all {
			out = append(out, named(x))
		}
		return out, err
	}
}

// inSeconds is a moment some time from now, as vaults keep it.
func (r *adminRun) inSeconds(d time.Duration) time.Time {
	return r.now().Add(d).UTC().Truncate(time.Second)
}

// unfit are key pairs that no KEK may have.
func unfit(good *rsa.PrivateKey) map[string]*rsa.PrivateKey {
	wrong := *good
	wrong.Primes = slices.Clone(good.Primes)
	wrong.Primes[0] = good.Primes[1]
	wrong.Precomputed = rsa.PrecomputedValues{}
	return map[string]*rsa.PrivateKey{"whose primes are not the modulus'": &wrong}
}
