package local

import (
	"context"
	"crypto/rsa"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// WithGenerate puts another source of key pairs in place of rsa.GenerateKey, which
// takes up to a second.
func WithGenerate(o Options, f func() (*rsa.PrivateKey, error)) *Options {
	o.generate = f
	return &o
}

// Steps returns the names of the steps of a change, in order.
func Steps() []string {
	var names []string
	for _, s := range steps() {
		names = append(names, string(s))
	}
	return names
}

// SetHook makes f be called before each step of every change of v.
func SetHook(v *Vault, f func(step string) error) {
	v.core.dir.hook = func(s step) error { return f(string(s)) }
}

// Cached returns how many private keys v has in memory.
func Cached(v *Vault) int { return v.core.keys.len() }

// Master returns the memory of v's master key.
func Master(v *Vault) []byte { return v.core.master() }

// WithHook makes f be called before each step of Create.
func WithHook(o Options, f func(step string) error) *Options {
	o.hook = func(s step) error { return f(string(s)) }
	return &o
}

// Recode returns the header and the body of a vault file as this release writes what
// it read from it.
func Recode(file, master []byte) (head, body []byte, err error) {
	h, err := decodeHeader(file)
	if err != nil {
		return nil, nil, err
	}
	st, err := decodeBody(&h, master, file)
	if err != nil {
		return nil, nil, err
	}
	body, err = st.encode()
	return h.encode(), body, err
}

// Forget forgets the private keys in memory.
func Forget(v *Vault) { v.core.keys.clear() }

// SyncDir is what makes the names in a directory durable.
func SyncDir(dir string) error { return system{}.syncDir(dir) }

// Change makes a change as an administrator does, with before called when the permission
// was looked at and the lock is not yet held.
func Change(a *Administrator, before func()) error {
	id := vault.KeyID{}
	if _, err := a.begin(context.Background(), OpUpdate, &id); err != nil {
		return err
	}
	defer a.core.leave()
	before()
	return a.do(context.Background(), OpUpdate, id, func(*state, time.Time) error { return nil })
}
