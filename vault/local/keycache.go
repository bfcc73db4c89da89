package local

import (
	"crypto/rsa"
	"crypto/sha256"
	"sync"

	"github.com/blockseal/blockseal/internal/secret"
)

// keyCache holds private keys that were opened. Opening one anew for each unwrap
// would cost a fifth of an unwrap more, and leave one more set of copies in memory
// each time. The price is that the keys in use are in memory from their first unwrap
// until the version is disabled, deleted or purged, here or by another
// process as soon as this one notices, or until Close. They are then left to the
// garbage collector, which erases them in a program built with
// GOEXPERIMENT=runtimesecret and in no other: Go gives no access to all the copies
// that crypto/rsa makes of a private key, so that erasing some would be a promise
// not kept.
//
// Entries go by the digest of the sealed key, so that a version of the same id
// with another key behind it (purged, then restored from elsewhere) is another entry.
type keyCache struct {
	mu   sync.Mutex
	keys map[[sha256.Size]byte]*rsa.PrivateKey
}

func (k *keyCache) get(digest [sha256.Size]byte) *rsa.PrivateKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[digest]
}

func (k *keyCache) put(digest [sha256.Size]byte, key *rsa.PrivateKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = make(map[[sha256.Size]byte]*rsa.PrivateKey)
	}
	k.keys[digest] = key
}

// keep forgets every key that st does not permit the use of.
func (k *keyCache) keep(st *state) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) == 0 {
		return
	}
	usable := make(map[[sha256.Size]byte]bool)
	for _, key := range st.Keys {
		for _, v := range key.Versions {
			usable[v.digest] = v.Enabled && key.Deleted == 0
		}
	}
	for digest := range k.keys {
		if !usable[digest] {
			delete(k.keys, digest)
		}
	}
}

func (k *keyCache) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = nil
}

func (k *keyCache) len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.keys)
}

// private returns the private key of a version of a key.
func (c *core) private(name string, v *version) (*rsa.PrivateKey, error) {
	if key := c.keys.get(v.digest); key != nil {
		return key, nil
	}
	// All that parsing allocates, the key itself among it, is erased when the cache
	// lets go of the key and it is collected, in a program that is built for that.
	var key *rsa.PrivateKey
	var err error
	secret.Do(func() { key, err = openPrivate(c.master(), c.id, name, v) })
	if err != nil {
		return nil, err
	}
	c.keys.put(v.digest, key)
	// The state may have changed since v was found in it, and what no longer serves
	// may have been forgotten before this key came.
	c.keys.keep(c.snap.Load().state)
	return key, nil
}
