package vaulttest

import (
	"context"
	"errors"
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// isMistake requires an error that is the caller's own: it closes no store, as a denial would,
// and is not worth another try.
func (r *run) isMistake(what string, err error) {
	r.T.Helper()
	if kind := vault.Kind(err); kind != nil || vault.Denied(err) || vault.Transient(err) {
		r.T.Errorf("%s: the error is %q, Denied %v, Transient %v; want one of no kind, for a mistake of the caller's: %v",
			what, kind, vault.Denied(err), vault.Transient(err), err)
	}
}

// hostile returns parts of ids that no key can have, by what is wrong with them, made from
// one that a key has. A vault that tidies them up, or puts them into a path, a query or a
// log, comes to another key than was named, or to the same one under two names.
func hostile(good string) map[string]string {
	return map[string]string{
		"dots":               "..",
		"a path upwards":     "../" + good,
		"a path to itself":   good + "/../" + good,
		"a part more":        good + "/" + good,
		"a slash in front":   "/" + good,
		"a slash at the end": good + "/",
		"a backslash":        good + `\`,
		"a NUL":              good + "\x00",
		"a NUL and more":     good + "\x00.txt",
		"a line feed":        good + "\n",
		"a space in front":   " " + good,
		"a space at the end": good + " ",
		"a percent escape":   good + "%2f..",
		"an escaped NUL":     good + "%00",
		"a query":            good + "?x=1",
		"a fragment":         good + "#x",
		"a look-alike":       "\u0430" + good, // Cyrillic a
		"a wide digit":       good + "\uff11",
		"a joiner":           good + "\u200d",
		"text backwards":     "\u202e" + good,
		"no text":            good + "\xff",
		"a quote":            good + "'--",
		"a wildcard":         good[:len(good)-1] + "*",
		"300 bytes":          good + strings.Repeat("x", 300-len(good)),
	}
}

func checkHostileIDs(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	names := hostile(w.KeyID.Name)
	names["an empty name"] = ""
	for what, name := range names {
		r.refusesID("a name with "+what, vault.KeyID{Vault: w.KeyID.Vault, Name: name}, w, s)
		r.refusesID("a name with "+what, vault.KeyID{Vault: w.KeyID.Vault, Name: name, Version: w.KeyID.Version}, w, s)
	}
	for what, version := range hostile(w.KeyID.Version) {
		r.refusesID("a version with "+what, vault.KeyID{Vault: w.KeyID.Vault, Name: w.KeyID.Name, Version: version}, w, s)
	}
	r.unwrap(w, s)
}

// refusesID requires that all three operations refuse an id, as a mistake or because there is
// no such key, in a text that shows what it is.
func (r *run) refusesID(what string, id vault.KeyID, w vault.Wrapped, s []byte) {
	r.T.Helper()
	for op, call := range map[vault.Operation]func(context.Context) error{
		vault.OpGet:       r.tryGet(id),
		vault.OpWrapKey:   r.tryWrap(id, s),
		vault.OpUnwrapKey: r.tryUnwrap(vault.Wrapped{KeyID: id, Ciphertext: w.Ciphertext}),
	} {
		err := call(r.T.Context())
		if err == nil {
			r.T.Errorf("%s of %s succeeded, want an error: %s", op, what, id)
			continue
		}
		if !errors.Is(err, vault.ErrKeyNotFound) {
			r.isMistake(string(op)+" of "+what, err)
		}
		if i := strings.IndexFunc(err.Error(), func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 {
			r.T.Errorf("%s of %s: the error's text has the id's bytes as they are, at %d; quote them: %+q", op, what, i, err)
		}
		if leaks(err.Error(), s) {
			r.T.Errorf("%s of %s: the error's text holds bytes of the secret", op, what)
		}
	}
}
