package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// Vault is an open vault, in its owner's hands: who knows the passphrase. It does
// everything an [Administrator] does and, as a [vault.Vault], everything an
// [Identity] does, without needing a grant for it, and what no grant gives: making
// grants, changing the passphrase, handing out the backup secret.
//
// A Vault and all handles made from it are safe for concurrent use. Close ends
// them all.
type Vault struct {
	*Administrator
	data Identity
}

var _ vault.Vault = (*Vault)(nil)

// Create makes a vault in dir, which must be empty or not exist (it is then made,
// mode 0700), and opens it. A vault that is there already is left alone; the error
// matches [ErrExists]. The passphrase has at least 1 byte and is taken as the bytes
// it is; the caller clears it.
//
// Whoever has a copy of the directory can try passphrases against it for as long
// as they like: take one that withstands that. A [KDF] that makes trying cheap is
// refused, with an error that matches [ErrWeakKDF].
func Create(dir string, passphrase []byte, opts *Options) (v *Vault, err error) {
	o := opts.withDefaults()
	fail := func(err error) (*Vault, error) { return nil, fmt.Errorf("local: create %s: %w", dir, err) }
	if err := o.validate(); err != nil {
		return fail(err)
	}
	if len(passphrase) == 0 {
		return fail(fmt.Errorf("the passphrase is empty: %w", ErrInvalid))
	}
	// Whatever the working directory becomes.
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	c := &core{dir: directory{path: abs, fs: o.files, hook: o.hook}, opts: o, masters: []*masterKey{new(masterKey)}}
	if err := c.chooseID(); err != nil {
		return fail(err)
	}
	master := c.masters[0]
	rand.Read(master[:])
	defer func() {
		if err != nil {
			clear(master[:])
		}
	}()
	h, st, err := c.begin(passphrase)
	if err != nil {
		return fail(err)
	}
	b, err := encodeVault(h, master[:], st)
	if err != nil {
		return fail(err)
	}
	if err := c.dir.prepare(); err != nil {
		return fail(err)
	}
	lock, err := c.dir.lock(context.Background(), o.LockWait)
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	// Again, now that no other process can be making one.
	if err := c.dir.checkEmpty(); err != nil {
		return fail(err)
	}
	if err := errors.Join(c.dir.replace(b), o.files.syncDir(filepath.Dir(abs))); err != nil {
		return fail(err)
	}
	s, err := c.load(nil)
	if err != nil {
		return fail(err)
	}
	c.snap.Store(s)
	return newVault(c), nil
}

func (c *core) chooseID() error {
	if c.opts.ID == "" {
		rand.Read(c.id[:])
	} else if digits, ok := strings.CutPrefix(c.opts.ID, idPrefix); !ok || !validVersion(digits) {
		return fmt.Errorf("options: ID %q, want %q and 32 lower-case hexadecimal digits: %w", c.opts.ID, idPrefix, ErrInvalid)
	} else if _, err := hex.Decode(c.id[:], []byte(digits)); err != nil {
		return err
	}
	c.name = vaultName16(c.id)
	return nil
}

// begin returns the header and the state of a new vault.
func (c *core) begin(passphrase []byte) (*header, *state, error) {
	h := &header{id: c.id, kdf: c.opts.KDF, generation: 1}
	rand.Read(h.salt[:])
	if err := h.sealMaster(passphrase, c.masters[0][:]); err != nil {
		return nil, nil, err
	}
	secret := make([]byte, BackupSecretSize)
	defer clear(secret)
	if copy(secret, c.opts.BackupSecret) == 0 {
		rand.Read(secret)
	}
	c.opts.BackupSecret = nil
	return h, &state{
		Created:         c.now().Unix(),
		Seen:            c.now().Unix(),
		RetentionDays:   c.opts.RetentionDays,
		PurgeProtection: c.opts.PurgeProtection,
		BackupSecret:    seal(c.masters[0][:], secret, backupSecretAAD(c.id)),
		Keys:            []*key{},
		Identities:      []*identity{},
	}, nil
}

// Open opens the vault in dir. The error matches [ErrNotVault], [ErrVersion],
// [ErrCorrupt], [ErrWrongPassphrase], [ErrWeakKDF] or [ErrFIPS]; nothing is changed. Any number of
// processes may have a vault open; a directory that cannot be written to will do
// for reading. The caller clears the passphrase.
func Open(dir string, passphrase []byte, opts *Options) (*Vault, error) {
	fail := func(err error) (*Vault, error) { return nil, fmt.Errorf("local: open %s: %w", dir, err) }
	abs, err := filepath.Abs(dir) // see Create
	if err != nil {
		return fail(err)
	}
	o := opts.withDefaults()
	o.BackupSecret = nil
	c := &core{dir: directory{path: abs, fs: o.files}, opts: o}
	f, info, b, err := c.dir.read()
	if errors.Is(err, os.ErrNotExist) {
		return fail(fmt.Errorf("there is no file %q: %w: %w", vaultName, ErrNotVault, err))
	}
	if err != nil {
		return fail(err)
	}
	s := &snapshot{file: f, info: info, sum: sha256.Sum256(b)}
	if err := c.unlock(s, passphrase, b); err != nil {
		s.close()
		c.destroyMasters(everyMaster)
		return fail(err)
	}
	if !holdOpen {
		s.close()
		s.file = nil
	}
	c.snap.Store(s)
	return newVault(c), nil
}

// unlock opens with the passphrase what was read.
func (c *core) unlock(s *snapshot, passphrase, b []byte) (err error) {
	if s.header, err = decodeHeader(b); err != nil {
		return err
	}
	if err := s.header.kdf.admit(&c.opts); err != nil {
		return err
	}
	master, err := s.header.openMaster(passphrase)
	if err != nil {
		return err
	}
	c.masters = []*masterKey{master}
	c.id = s.header.id
	c.name = vaultName16(c.id)
	return c.openBody(s, nil, b)
}

func newVault(c *core) *Vault {
	return &Vault{Administrator: &Administrator{c, ""}, data: Identity{c, ""}}
}

// ID returns the vault's name for itself, "local:" and 32 hexadecimal digits: the
// Vault part of the id of each of its keys.
func (v *Vault) ID() string { return v.core.name }

// Close waits for the operations that are under way, destroys the master key and
// forgets the private keys in memory. Every later call, with any handle made from
// v, answers with an error that matches [ErrClosed]. A second Close does nothing.
func (v *Vault) Close() error {
	c := v.core
	c.gate.Lock()
	defer c.gate.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.destroyMasters(everyMaster)
	c.keys.clear()
	c.snap.Load().close()
	return nil
}

// GetKey implements [vault.Vault].
func (v *Vault) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	return v.data.GetKey(ctx, id)
}

// KeyVersions implements [vault.VersionLister].
func (v *Vault) KeyVersions(ctx context.Context, id vault.KeyID) ([]vault.KeyID, error) {
	return v.data.KeyVersions(ctx, id)
}

// WrapKey implements [vault.Vault].
func (v *Vault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	return v.data.WrapKey(ctx, id, secret)
}

// UnwrapKey implements [vault.Vault].
func (v *Vault) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	return v.data.UnwrapKey(ctx, w)
}
