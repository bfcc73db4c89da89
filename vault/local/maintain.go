package local

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// errNothingToDo ends a change that turns out not to be needed.
var errNothingToDo = errors.New("nothing to do")

// Maintain does what is due for all keys: it rotates by their policies, gives notice
// of near expiry, and purges what was deleted when its retention is over. It returns
// the keys that it rotated, and the errors of those that it could not, joined.
//
// A retention is over when the clock is past its end and the vault has seen it pass: it
// counts the time between one change of the vault, or Maintain, and the next, a day at the
// most. So a clock that jumps ahead purges nothing, and a deleted key is kept for longer
// than its retention where Maintain is not called each day. Nothing but Maintain and
// PurgeKey purges.
//
// A program that keeps a vault open needs no Maintain for the keys that it uses
// without a version: they are attended to when they are used. For others, and for a
// vault that is open only now and then, call it at start and once a day, from as many
// processes as there are.
func (a *Administrator) Maintain(ctx context.Context) (rotated []vault.KeyID, err error) {
	c, id := a.core, vault.KeyID{}
	st, err := a.begin(ctx, OpRotate, &id)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	var errs []error
	now := c.now()
	for _, k := range st.Keys {
		if k.due(now) {
			before := k.current().ID
			after, err := c.rotateDue(ctx, k.Name)
			if err != nil {
				errs = append(errs, err)
				c.emit(Event{Kind: RotationFailed, Key: vault.KeyID{Vault: c.name, Name: k.Name}, Err: err})
			} else {
				k = after
				if v := k.current().ID; v != before {
					rotated = append(rotated, vault.KeyID{Vault: c.name, Name: k.Name, Version: v})
				}
			}
		}
		c.notify(k, now)
	}
	return rotated, errors.Join(append(errs, a.purgeOver(ctx, st, id, now))...)
}

// purgeOver counts the time that has passed for deleted keys, and purges those whose
// retention is over.
func (a *Administrator) purgeOver(ctx context.Context, st *state, id vault.KeyID, now time.Time) error {
	counted := st.clone()
	counted.look(now)
	if !st.mustLook(now) && !slices.ContainsFunc(counted.Keys, func(k *key) bool { return k.over(now) }) {
		return nil
	}
	var purged []string
	err := a.do(ctx, OpRotate, id, func(st *state, now time.Time) error {
		purged = st.dropOver(now) // the count is every change's
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range purged {
		a.core.emit(Event{Kind: KeyPurged, Key: vault.KeyID{Vault: a.core.name, Name: name}})
	}
	return nil
}
