package sealfs

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/keyring"
)

// fileKey is the DEK of a file, shared by all that have the file open, under whatever name. The key
// is in memory only while the stretch of access lasts in which it was opened: what is asked for
// in the next one opens the record again.
type fileKey struct {
	fs      *FS
	id      fileID
	context []byte
	refs    int // guarded by FS.mu

	mu      sync.RWMutex
	record  []byte
	session uint64 // that the key was opened in; 0: there is no key
	aead    dek.AEAD
	// Of layout Pages: the key itself, those that were derived from it, and the page that was kept.
	raw  [dek.Size]byte
	runs map[[saltSize]byte]*dek.AEAD
	kept keptPage
}

// saltSize is the size of a salt in bytes. 2^-64 is the chance that two of 2^32 are the same.
const saltSize = 16

// maxRuns is how many derived keys stay in memory, of a file of pages.
const maxRuns = 64

// use calls op with the key, inside of a hold: a lock waits until op has returned, which
// computes, and does no I/O. Its error is op's, or matches keyring.ErrInaccessible. Any number of
// calls go on side by side.
func (k *fileKey) use(op func(a *dek.AEAD) error) error {
	h, err := k.fs.acquire()
	if err != nil {
		return err
	}
	defer func() { h.Release() }()
	for {
		k.mu.RLock()
		if k.session == h.For(inner.Block{}).Session() && k.session != 0 {
			err := op(&k.aead)
			k.mu.RUnlock()
			return err
		}
		k.mu.RUnlock()
		k.mu.Lock()
		err := k.open(&h)
		k.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// useAlone is use of one caller at a time, who may derive keys.
func (k *fileKey) useAlone(op func() error) error {
	h, err := k.fs.acquire()
	if err != nil {
		return err
	}
	defer func() { h.Release() }()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.open(&h); err != nil {
		return err
	}
	return op()
}

// open opens the record, unless the key is that of the hold's session. k.mu is held.
func (k *fileKey) open(h *keyring.Hold) error {
	if k.session == h.For(inner.Block{}).Session() && k.session != 0 {
		return nil
	}
	k.forget()
	var key dek.Key
	defer key.Destroy()
	var b keyring.Binding
	b.Set(k.context)
	if err := h.OpenDEK(background, &key, k.record, &b); err != nil {
		return ofKeyring(err)
	}
	return k.set(&key, h.For(inner.Block{}).Session())
}

// set takes an opened key. k.mu is held, or nobody else has k.
func (k *fileKey) set(key *dek.Key, session uint64) (err error) {
	k.forget()
	if k.aead, err = dek.NewAEAD(key.Bytes()); err != nil {
		return err
	}
	copy(k.raw[:], key.Bytes())
	k.session = session
	return nil
}

// forget overwrites the key. k.mu is held.
func (k *fileKey) forget() {
	k.session = 0
	k.aead.Destroy()
	clear(k.raw[:])
	for salt, a := range k.runs {
		a.Destroy()
		delete(k.runs, salt)
	}
	k.kept.drop()
}

// run returns the key of a run: HMAC-SHA-256 of a prefix and the run's salt, under the DEK. Many
// pages are sealed under one DEK in the life of a file, more than the 2^32 that random nonces
// allow; under the key of one run they are not. k.mu is held for writing.
func (k *fileKey) run(salt [saltSize]byte) (*dek.AEAD, error) {
	if a := k.runs[salt]; a != nil {
		return a, nil
	}
	if len(k.runs) >= maxRuns {
		for s, a := range k.runs { // any one: a file has few salts that are read often
			a.Destroy()
			delete(k.runs, s)
			break
		}
	}
	mac := hmac.New(sha256.New, k.raw[:])
	defer secret.WipeHMAC(mac) // which has the DEK
	mac.Write([]byte(runPrefix))
	mac.Write(salt[:])
	sum := mac.Sum(nil)
	defer clear(sum)
	a, err := dek.NewAEAD(sum)
	if err != nil {
		return nil, err
	}
	if k.runs == nil {
		k.runs = map[[saltSize]byte]*dek.AEAD{}
	}
	k.runs[salt] = &a
	return &a, nil
}

// runPrefix is what the key of a run is derived with, before its salt. On disk, and must not change.
const runPrefix = "blockseal sealfs run v1\x00"

// forgetEvery is how often, on the keyring's clock, keys are looked for that outlived the access
// in which they were opened.
const forgetEvery = time.Second

// share returns the key of a file that was just opened, with one more reference: the one that
// others have already, or k.
func (f *FS) share(k *fileKey) *fileKey {
	f.mu.Lock()
	defer f.mu.Unlock()
	if there := f.keys[k.id]; there != nil {
		k.forget()
		there.refs++
		return there
	}
	k.refs = 1
	f.keys[k.id] = k
	if !f.ticking {
		f.ticking = true
		f.ring.For(inner.Block{}).AfterFunc(forgetEvery, f.forgetKeys)
	}
	return k
}

// release gives a reference back.
func (k *fileKey) release() {
	k.fs.mu.Lock()
	k.refs--
	last := k.refs == 0
	if last {
		delete(k.fs.keys, k.id)
	}
	k.fs.mu.Unlock()
	if last {
		k.mu.Lock()
		k.forget()
		k.mu.Unlock()
	}
}

// forgetKeys overwrites the keys of all open files if there is no access, within a second of its
// end: the keyring tells nobody that it locks. As long as files are open it comes again.
func (f *FS) forgetKeys() {
	var session uint64
	h, err := f.acquire()
	if err == nil {
		session = h.For(inner.Block{}).Session()
		h.Release()
	}
	f.mu.Lock()
	keys := slices.Collect(maps.Values(f.keys))
	f.mu.Unlock()
	for _, k := range keys {
		k.mu.Lock()
		if k.session != session {
			k.forget()
		}
		k.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// After Close and Stop no key is opened any more.
	over := errors.Is(err, keyring.ErrClosed) || errors.Is(err, ErrStopped)
	if f.ticking = len(f.keys) > 0 && !over; f.ticking {
		f.ring.For(inner.Block{}).AfterFunc(forgetEvery, f.forgetKeys)
	}
}

// rewrapped says that a file has another record now.
func (f *FS) rewrapped(id fileID, record []byte) {
	f.mu.Lock()
	k := f.keys[id]
	f.mu.Unlock()
	if k != nil {
		k.mu.Lock()
		k.record = record
		k.mu.Unlock()
	}
}
