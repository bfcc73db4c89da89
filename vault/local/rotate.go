package local

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// RotationPolicy says when a key gets a new current version by itself. All times
// are in whole seconds, the rest is cut off. The zero policy does nothing but give
// notice of expiry.
//
// The vault has no process of its own. It acts when a key is asked for without a
// version (so, with a store on it, within a minute), and in
// [Administrator.Maintain]; see there. It acts only while the current version is
// enabled and in date, so that a key that was disabled, or that was let expire, never
// comes back by itself.
type RotationPolicy struct {
	// RotateAfter rotates when the current version is that old, at least 1 hour.
	// Default: never.
	RotateAfter time.Duration `json:"rotateAfter,omitzero"`
	// RotateBeforeExpiry rotates when the current version expires within that time,
	// at least 1 hour. Default: never.
	RotateBeforeExpiry time.Duration `json:"rotateBeforeExpiry,omitzero"`
	// ExpiresAfter is when new versions expire, from their creation on; longer than
	// RotateBeforeExpiry. Default: never, or as the version's own options say.
	ExpiresAfter time.Duration `json:"expiresAfter,omitzero"`
	// NotifyBefore is how long before the current version's expiry notice is given
	// ([KeyNearExpiry]), and again at 7 days and at 1 day. Default: 30 days; negative:
	// no notices.
	NotifyBefore time.Duration `json:"notifyBefore,omitzero"`
}

const minRotation = time.Hour

func (p *RotationPolicy) encode() (*policy, error) {
	e := &policy{
		RotateAfter:        int64(p.RotateAfter / time.Second),
		RotateBeforeExpiry: int64(p.RotateBeforeExpiry / time.Second),
		ExpiresAfter:       int64(p.ExpiresAfter / time.Second),
		NotifyBefore:       int64(p.NotifyBefore / time.Second),
	}
	if p.NotifyBefore < 0 {
		e.NotifyBefore = -1
	}
	return e, e.validate()
}

func (p *policy) validate() error {
	const least = int64(minRotation / time.Second)
	const most = 1 << 33 // seconds: 272 years, within time.Duration
	for _, s := range []int64{p.RotateAfter, p.RotateBeforeExpiry, p.ExpiresAfter} {
		if s != 0 && s < least || s > most {
			return fmt.Errorf("a rotation policy has a time of %d seconds, want 0 or %d to %d", s, least, int64(most))
		}
	}
	if p.NotifyBefore < -1 || p.NotifyBefore > most {
		return fmt.Errorf("a rotation policy gives notice %d seconds before, want at most %d", p.NotifyBefore, int64(most))
	}
	if p.ExpiresAfter != 0 && p.ExpiresAfter <= p.RotateBeforeExpiry {
		return fmt.Errorf("a rotation policy rotates %d seconds before expiry, but versions expire after %d", p.RotateBeforeExpiry, p.ExpiresAfter)
	}
	return nil
}

func (p *policy) decode() RotationPolicy {
	if p == nil {
		return RotationPolicy{}
	}
	return RotationPolicy{
		RotateAfter:        seconds(p.RotateAfter),
		RotateBeforeExpiry: seconds(p.RotateBeforeExpiry),
		ExpiresAfter:       seconds(p.ExpiresAfter),
		NotifyBefore:       seconds(p.NotifyBefore),
	}
}

func seconds(s int64) time.Duration { return time.Duration(s) * time.Second }

// expiry returns when a version made now expires, or 0.
func (p *policy) expiry(now time.Time) int64 {
	if p == nil || p.ExpiresAfter == 0 {
		return 0
	}
	return now.Unix() + p.ExpiresAfter
}

// notifyBefore returns how long before expiry notice is given, or 0.
func (p *policy) notifyBefore() time.Duration {
	switch {
	case p == nil || p.NotifyBefore == 0:
		return DefaultNotifyBefore
	case p.NotifyBefore < 0:
		return 0
	}
	return seconds(p.NotifyBefore)
}

// due reports whether the policy asks for a new version now.
func (k *key) due(now time.Time) bool {
	p, v := k.Policy, k.current()
	if p == nil || k.Deleted != 0 || !v.Enabled || v.expired(now) || now.Unix() < v.NotBefore {
		return false
	}
	return p.RotateAfter != 0 && now.Unix()-v.Created >= p.RotateAfter ||
		p.RotateBeforeExpiry != 0 && v.Expires != 0 && v.Expires-now.Unix() <= p.RotateBeforeExpiry
}

// SetRotationPolicy replaces a key's rotation policy. The versions it has keep the
// expiry they have.
func (a *Administrator) SetRotationPolicy(ctx context.Context, name string, p RotationPolicy) error {
	c, id := a.core, vault.KeyID{Name: name}
	if _, err := a.begin(ctx, OpUpdate, &id); err != nil {
		return err
	}
	defer c.leave()
	encoded, err := p.encode()
	if err != nil {
		return c.invalid(OpUpdate, id, err)
	}
	return a.do(ctx, OpUpdate, id, func(st *state, now time.Time) error {
		k, err := c.lookup(st, OpUpdate, &id)
		if err != nil {
			return err
		}
		k.Policy = nil
		if *encoded != (policy{}) {
			k.Policy = encoded
		}
		return nil
	})
}

// RotateKey gives a key a new current version with a fresh key pair: enabled, with
// the operations of the version before it, and the expiry that the key's policy
// says. Old versions stay as they are, and go on unwrapping what they wrapped.
func (a *Administrator) RotateKey(ctx context.Context, name string) (vault.Key, error) {
	c, id := a.core, vault.KeyID{Name: name}
	st, err := a.begin(ctx, OpRotate, &id)
	if err != nil {
		return vault.Key{}, err
	}
	defer c.leave()
	if _, err := c.lookup(st, OpRotate, &id); err != nil {
		return vault.Key{}, err
	}
	v := &version{Enabled: true}
	if err := c.fill(v, OpRotate, id, c.opts.generate); err != nil {
		return vault.Key{}, err
	}
	err = a.do(ctx, OpRotate, id, func(st *state, now time.Time) error {
		k, err := c.lookup(st, OpRotate, &id)
		if err != nil {
			return err
		}
		k.succeed(v, now)
		return nil
	})
	if err != nil {
		return vault.Key{}, err
	}
	return v.describe(id), nil
}

// succeed makes v, which has its key pair, the current version.
func (k *key) succeed(v *version, now time.Time) {
	v.Operations = slices.Clone(k.current().Operations)
	v.Created, v.Updated = now.Unix(), now.Unix()
	v.Expires = k.Policy.expiry(now)
	k.Versions = append(k.Versions, v)
}

// retries keeps a rotation that fails from being tried again at every call.
type retries struct {
	mu    sync.Mutex
	after map[string]time.Time
}

const retryPause = time.Minute

// allow reports whether name may be tried now, and keeps it for a while from
// being tried again.
func (r *retries) allow(name string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A clock that was set back must not put the next try off for long.
	if at, ok := r.after[name]; ok && now.Before(at) && at.Sub(now) <= retryPause {
		return false
	}
	if r.after == nil {
		r.after = make(map[string]time.Time)
	}
	r.after[name] = now.Add(retryPause)
	return true
}

func (r *retries) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.after, name)
}

// attend does for a key, whose current version is asked for, what is due: notice of
// expiry, and rotation. It returns the key as it is then. A rotation that cannot be
// made, such as in a directory that is read-only, is an event and not an error: the
// version there is serves.
func (c *core) attend(ctx context.Context, k *key) *key {
	now := c.now()
	if k.due(now) && c.retries.allow(k.Name, now) {
		if rotated, err := c.rotateDue(ctx, k.Name); err != nil {
			c.emit(Event{Kind: RotationFailed, Key: vault.KeyID{Vault: c.name, Name: k.Name}, Err: err})
		} else {
			c.retries.forget(k.Name)
			k = rotated
		}
	}
	c.notify(k, now)
	return k
}

func (c *core) notify(k *key, now time.Time) {
	v := k.current()
	if v.Expires == 0 || !v.Enabled || k.Deleted != 0 {
		return
	}
	left := time.Unix(v.Expires, 0).Sub(now)
	if left > 0 && c.notices.due(v, k.Policy.notifyBefore(), left) {
		c.emit(Event{Kind: KeyNearExpiry, Key: vault.KeyID{Vault: c.name, Name: k.Name, Version: v.ID}, Left: left})
	}
}

// rotateDue rotates a key if its policy still asks for it once the lock is held: of
// several processes that notice, one acts. It returns the key as it is then.
func (c *core) rotateDue(ctx context.Context, name string) (*key, error) {
	id := vault.KeyID{Vault: c.name, Name: name}
	acted := false
	// The key pair is made under the lock, so that others who wait find it done.
	err := c.change(ctx, OpRotate, id, c.opts.LockWait, func(st *state, now time.Time) error {
		k := st.key(name)
		if k == nil || !k.due(now) {
			return errNothingToDo
		}
		v := &version{Enabled: true}
		if err := c.fill(v, OpRotate, id, c.opts.generate); err != nil {
			return err
		}
		k.succeed(v, now)
		id.Version, acted = v.ID, true
		return nil
	})
	if err != nil && err != errNothingToDo {
		return nil, err
	}
	if acted {
		c.emit(Event{Kind: KeyRotated, Key: id})
	}
	st, err := c.current()
	if err != nil {
		return nil, err
	}
	k := st.key(name)
	if k == nil || k.Deleted != 0 {
		return nil, fmt.Errorf("the key was deleted meanwhile: %w", vault.ErrKeyDeleted)
	}
	return k, nil
}
