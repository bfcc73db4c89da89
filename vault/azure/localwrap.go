package azure

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// localKeys holds the public keys that WrapKey encrypts with in this process.
type localKeys struct {
	flights *flights[vault.KeyID, localKey]
	mu      sync.Mutex
	cached  map[vault.KeyID]localKey // by the id that was asked for, with a version or without
	proven  map[vault.KeyID][sha256.Size]byte
}

// localKey is a key version that the vault has shown that it unwraps for.
type localKey struct {
	vault.Key
	asked time.Duration // when GetKey was sent
}

func newLocalKeys(clock vault.Clock) *localKeys {
	return &localKeys{
		flights: newFlights[vault.KeyID, localKey](clock),
		cached:  map[vault.KeyID]localKey{},
		proven:  map[vault.KeyID][sha256.Size]byte{},
	}
}

// forget drops what is known of a key, so that the next wrap asks the vault.
func (l *localKeys) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.cached {
		if id.Name == name {
			delete(l.cached, id)
		}
	}
	for id := range l.proven {
		if id.Name == name {
			delete(l.proven, id)
		}
	}
}

func (l *localKeys) get(id vault.KeyID, now, age time.Duration) (localKey, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.cached[id]
	return k, ok && now-k.asked < age
}

func (l *localKeys) isProven(id vault.KeyID, fp [sha256.Size]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ok := l.proven[id]
	return ok && have == fp
}

func (l *localKeys) put(id vault.KeyID, k localKey, fp [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cached) >= maxKnown || len(l.proven) >= maxKnown {
		clear(l.cached)
		clear(l.proven)
	}
	l.cached[id] = k
	l.proven[k.ID] = fp
}

// wrapLocally encrypts to a public key that the vault has been seen to hold the
// private half of.
func (v *Vault) wrapLocally(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	if err := ctx.Err(); err != nil { // as of a call that asks the vault
		return vault.Wrapped{}, v.noted(vault.OpWrapKey, id, err)
	}
	clock := v.opts.Clock
	k, ok := v.local.get(id, clock.Elapsed(), v.opts.LocalWrapAge)
	if !ok {
		var err error
		k, err = v.local.flights.do(ctx, id, nil, func(ctx context.Context, _ *call) (localKey, error) {
			// All wraps depend on these few calls.
			return v.admit(vault.WithPriority(ctx), id)
		}, func(k localKey) localKey { return k }, nil)
		if err != nil {
			return vault.Wrapped{}, v.noted(vault.OpWrapKey, id, notAdmitted(id, err))
		}
	}
	if err := inUse(vault.OpWrapKey, k.Key, clock.Now()); err != nil {
		v.local.forget(id.Name)
		return vault.Wrapped{}, err
	}
	c, err := encrypt(&k.Key, secret)
	if err != nil {
		return vault.Wrapped{}, err
	}
	return vault.Wrapped{KeyID: k.ID, Ciphertext: c}, nil
}

// notAdmitted returns the error of a question that was put for a wrap as one of the wrap:
// that is what the caller asked for. The question stands in the text.
func notAdmitted(id vault.KeyID, err error) error {
	asked, ok := errors.AsType[*vault.Error](err)
	if !ok || asked.Op == vault.OpWrapKey {
		return err
	}
	e := *asked
	e.Op, e.Key = vault.OpWrapKey, id
	e.Detail = fmt.Sprintf("asked to %s %s, to wrap locally", asked.Op, asked.Key)
	if asked.Detail != "" {
		e.Detail += ": " + asked.Detail
	}
	return &e
}

// admit asks the vault for a key and, the first time that it sees a version, has it
// unwrap something that was wrapped here.
func (v *Vault) admit(ctx context.Context, id vault.KeyID) (localKey, error) {
	asked := v.opts.Clock.Elapsed()
	key, err := v.GetKey(ctx, id)
	if err != nil {
		return localKey{}, err
	}
	if err := usable(vault.OpWrapKey, key, v.opts.Clock.Now()); err != nil {
		return localKey{}, err
	}
	fp := fingerprint(key.Public)
	if !v.local.isProven(key.ID, fp) {
		probe := make([]byte, 32)
		rand.Read(probe)
		c, err := encrypt(&key, probe)
		if err != nil {
			return localKey{}, err
		}
		got, err := v.UnwrapKey(ctx, vault.Wrapped{KeyID: key.ID, Ciphertext: c})
		defer clear(got)
		if err != nil {
			return localKey{}, err
		}
		if subtle.ConstantTimeCompare(got, probe) != 1 {
			return localKey{}, refuse(vault.OpWrapKey, key.ID, vault.ErrUnsupportedKey, "the vault unwraps to another secret than was wrapped with its public key")
		}
	}
	k := localKey{Key: key, asked: asked}
	k.VaultTime = time.Time{} // which it was
	v.local.put(id, k, fp)
	return k, nil
}

func encrypt(key *vault.Key, secret []byte) ([]byte, error) {
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.Public, secret, nil)
	if err != nil {
		return nil, &vault.Error{Op: vault.OpWrapKey, Key: key.ID, Kind: vault.ErrUnsupportedKey, Err: err}
	}
	return c, nil
}
