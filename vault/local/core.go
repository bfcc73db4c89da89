package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// core is an open vault: what all handles of one Create or Open share.
//
// Operations read an immutable snapshot of the vault's state, and ask the file
// system with one stat whether there is a newer one. A change takes the lock,
// reads the newest state, changes a copy, writes it, and only then shows it.
type core struct {
	dir  directory
	opts Options
	id   [idSize]byte
	name string // "local:" and id in hexadecimal

	// gate is held for reading by every operation, and for writing by Close, so
	// that nothing is destroyed while it is used.
	gate   sync.RWMutex
	closed bool

	loading sync.Mutex // held by the one that reads the file
	// masters are the master keys that the file may be under: one, but for the time of a
	// ChangePassphrase, and after one whose outcome could not be read back. Guarded by
	// loading; they are destroyed only while gate is held for writing.
	masters []*masterKey
	snap    atomic.Pointer[snapshot]
	keys    keyCache
	notices notices
	retries retries
}

// masterKey is what the body and the private keys are sealed under. It is behind a
// pointer because package fmt, given a handle in an unexported field of some struct,
// prints what is in it and calls no method; pointers in it print as addresses.
type masterKey [keySize]byte

// snapshot is the vault's state as it was read from one file.
type snapshot struct {
	// file stays open, where the system permits it, so that its inode number is
	// not given to another file: os.SameFile is then certain.
	file   *os.File
	info   os.FileInfo
	header header
	sum    [sha256.Size]byte // of the whole file
	state  *state
	master *masterKey // what the body and all that is sealed in it opened under
}

func (s *snapshot) is(info os.FileInfo) bool {
	return os.SameFile(s.info, info) && s.info.Size() == info.Size() && s.info.ModTime().Equal(info.ModTime())
}

func (s *snapshot) close() {
	if s != nil && s.file != nil {
		// It was only read: an error of Close has no meaning.
		_ = s.file.Close()
	}
}

const idPrefix = "local:"

func vaultName16(id [idSize]byte) string { return idPrefix + hex.EncodeToString(id[:]) }

func (c *core) now() time.Time { return c.opts.Clock.Now() }

// enter begins an operation on a key; without an error, leave ends it.
func (c *core) enter(ctx context.Context, op Permission, id vault.KeyID) error {
	if err := ctx.Err(); err != nil {
		return c.unavailable(op, id, err)
	}
	c.gate.RLock()
	if c.closed {
		c.gate.RUnlock()
		return c.unavailable(op, id, ErrClosed)
	}
	return nil
}

func (c *core) leave() { c.gate.RUnlock() }

// unavailable is the answer when the state cannot be read or written.
func (c *core) unavailable(op Permission, id vault.KeyID, err error) error {
	return &vault.Error{Op: op, Key: id, Kind: vault.ErrUnavailable, Err: err}
}

// current returns the newest state there is.
func (c *core) current() (*state, error) {
	s := c.snap.Load()
	info, err := os.Stat(c.dir.file())
	if err == nil && s.is(info) {
		return s.state, nil
	}
	s, err = c.reload()
	if err != nil {
		return nil, err
	}
	return s.state, nil
}

// master returns the master key of the state that was read last. It is destroyed by
// Close, ChangePassphrase and Unlock alone, which wait for who holds the gate.
func (c *core) master() []byte { return c.snap.Load().master[:] }

// reload reads the file, unless another call has just done so.
func (c *core) reload() (*snapshot, error) {
	c.loading.Lock()
	defer c.loading.Unlock()
	old := c.snap.Load()
	if info, err := os.Stat(c.dir.file()); err == nil && old.is(info) {
		return old, nil
	}
	return c.replace(old)
}

// reread reads the file, whatever it seems to be: for a change, which must not be
// made to an old state even where holdOpen is false.
func (c *core) reread() (*snapshot, error) {
	c.loading.Lock()
	defer c.loading.Unlock()
	return c.replace(c.snap.Load())
}

// replace makes what is in the file the snapshot. The caller holds loading.
func (c *core) replace(old *snapshot) (*snapshot, error) {
	s, err := c.load(old)
	if err != nil {
		return nil, fmt.Errorf("read the vault in %s: %w", c.dir.path, err)
	}
	c.snap.Store(s)
	old.close()
	c.keys.keep(s.state)
	return s, nil
}

func (c *core) load(old *snapshot) (*snapshot, error) {
	f, info, b, err := c.dir.read()
	if err != nil {
		return nil, err
	}
	s := &snapshot{info: info, sum: sha256.Sum256(b)}
	if s.header, err = decodeHeader(b); err == nil {
		switch {
		case s.header.id != c.id:
			err = fmt.Errorf("there is another vault now, %s: open it to use it: %w", vaultName16(s.header.id), ErrNotVault)
		case old != nil && s.header.generation < old.header.generation:
			err = fmt.Errorf("its generation is %d and was %d: %w", s.header.generation, old.header.generation, ErrRolledBack)
		case old != nil && s.header.generation == old.header.generation && s.sum != old.sum:
			// An older state was put back, and changed by somebody who had not seen this one.
			err = fmt.Errorf("there is another state of the generation %d: %w", s.header.generation, ErrRolledBack)
		default:
			err = c.openBody(s, old, b)
		}
	}
	if err != nil || !holdOpen {
		err = errors.Join(err, f.Close())
	} else {
		s.file = f
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openBody fills in the state of a snapshot, under the master key that opens it. The
// caller holds loading, or has the only handle.
func (c *core) openBody(s, old *snapshot, b []byte) (err error) {
	for _, m := range c.masters {
		if s.state, err = decodeBody(&s.header, m[:], b); err == nil {
			s.master = m
			return nil
		}
	}
	if old != nil && s.header.master != old.header.master {
		return fmt.Errorf("the passphrase was changed since: call Unlock with the new one, or open the vault again: %w", ErrWrongPassphrase)
	}
	return err
}

// change makes one change of the state: it locks, reads the newest state, calls f
// with a copy of it and writes that. An error of f changes nothing, and is
// returned as it is.
func (c *core) change(ctx context.Context, op Permission, id vault.KeyID, wait time.Duration, f func(st *state, now time.Time) error) error {
	return c.rewrite(ctx, op, id, wait, func(_ *header, st *state, now time.Time, master *masterKey) (*masterKey, error) {
		return master, f(st, now)
	})
}

// rewriting is a change of the header and the state, which are sealed under master. It
// returns the master key that the new file is sealed under.
type rewriting func(h *header, st *state, now time.Time, master *masterKey) (*masterKey, error)

// rewrite is change for the header too.
func (c *core) rewrite(ctx context.Context, op Permission, id vault.KeyID, wait time.Duration, f rewriting) error {
	fail := func(err error) error {
		return c.unavailable(op, id, fmt.Errorf("change the vault in %s: %w", c.dir.path, err))
	}
	lock, err := c.dir.lock(ctx, wait)
	if err != nil {
		return fail(err)
	}
	// The lock ends with its file, whatever Close says.
	defer lock.Close()
	old, err := c.reread()
	if err != nil {
		return fail(err)
	}
	h, st, now := old.header, old.state.clone(), c.now()
	st.look(now)
	master, err := f(&h, st, now, old.master)
	if err != nil {
		return err
	}
	h.generation++
	b, err := encodeVault(&h, master[:], st)
	if err != nil {
		return fail(err)
	}
	// The old file is given up only for one that reads, down to each private key.
	read, err := decodeBody(&h, master[:], b)
	if err == nil {
		err = read.proveSealed(master[:], c.id)
	}
	if err != nil {
		return fail(err)
	}
	written := c.dir.replace(b)
	// Whatever the outcome, what is on the disk is what counts.
	if _, err := c.reload(); err != nil {
		return fail(errors.Join(written, err))
	}
	if written != nil {
		return fail(written)
	}
	return nil
}
