package local

import (
	"context"
	"errors"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// errNothingToDo ends a change that turns out not to be needed.
var errNothingToDo = errors.New("nothing to do")

// Maintain does what is due for all keys: it rotates by their policies, gives notice
// of near expiry, and purges what was deleted when its retention is over. It returns
// the keys that it rotated, and the errors of those that it could not, joined.
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
	now, overdue := c.now(), false
	for _, k := range st.Keys {
		overdue = overdue || k.overdue(now)
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
	if overdue {
		// Every change purges what is overdue; this one does nothing else.
		errs = append(errs, a.do(ctx, OpRotate, id, func(*state, time.Time) error { return nil }))
	}
	return rotated, errors.Join(errs...)
}
