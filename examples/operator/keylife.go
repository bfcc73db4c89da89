package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func (a *app) keyRotate() *cobra.Command {
	return a.command("rotate NAME", "make a new current version", `Rotate makes a new current version of a key, with the properties of the one before. Old
versions go on unwrapping until they are disabled. Stores follow by themselves at
their next check, or with store rotate kek.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			return a.doKey(ctx, v, local.OpRotate, id, func(ctx context.Context) (vault.Key, error) {
				return v.admin().RotateKey(ctx, id.Name)
			})
		}))
}

// update changes a version's properties, records that, and shows it. With a guard it is
// a version that stores may need, and the one that is checked is the one that is
// changed.
func (a *app) update(ctx context.Context, v *opened, id vault.KeyID, u local.Update, what string, g *guard) error {
	var key vault.Key
	err := v.do(ctx, local.OpUpdate, id, what, func(ctx context.Context) (_ vault.KeyID, err error) {
		if g != nil {
			if id, err = v.pin(ctx, id); err == nil {
				err = g.check(ctx, v, id)
			}
		}
		if err == nil {
			key, err = v.admin().UpdateKey(ctx, id, u)
		}
		if err == nil {
			id = key.ID
		}
		return id, err
	})
	if err != nil {
		return err
	}
	return a.showKey(key)
}

func (a *app) keyEnable() *cobra.Command {
	return a.command("enable KEY", "let a key version be used again", `Enable undoes disable. A store that went Inaccessible comes back at its next check, or
with store revalidate.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseKey(args[0])
			if err != nil {
				return err
			}
			enabled := true
			return a.update(ctx, v, id, local.Update{Enabled: &enabled}, "enable", nil)
		}))
}

func (a *app) keyDisable() *cobra.Command {
	var g guard
	c := a.command("disable KEY", "forbid any use of a key version", `Disable forbids any use of a key version, until enable. A store that needs it goes
Inaccessible at its next check, within a minute.`+guardHelp,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseKey(args[0])
			if err != nil {
				return err
			}
			enabled := false
			return a.update(ctx, v, id, local.Update{Enabled: &enabled}, "disable", &g)
		}))
	g.add(c)
	return c
}

func (a *app) keyExpire() *cobra.Command {
	var g guard
	var at timeFlag
	c := a.command("expire KEY", "set when a key version expires", `Expire sets when a key version expires: --at, by default now. From then on it wraps
nothing, and a store on it goes Inaccessible. --at never takes the expiry away.

A moment that is over takes effect at once.`+guardHelp,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseKey(args[0])
			if err != nil {
				return err
			}
			if !at.set {
				at.t = time.Now()
			}
			var check *guard
			if !at.t.IsZero() && !at.t.After(time.Now()) {
				check = &g
			}
			return fromFlags(a.update(ctx, v, id, local.Update{Expires: &at.t}, "expire: "+shown(at.t), check))
		}))
	g.add(c)
	c.Flags().Var(&at, "at", "when "+timeHelp+"; default now")
	return c
}

func (a *app) keyDelete() *cobra.Command {
	var g guard
	c := a.command("delete NAME", "delete a key, until it is recovered or purged", `Delete deletes a key with all its versions. It can be recovered until the vault's
retention is over, and its name is not free before it is purged.`+guardHelp,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			var purgeAt time.Time
			err = v.do(ctx, local.OpDelete, id, "", func(ctx context.Context) (_ vault.KeyID, err error) {
				if err = g.check(ctx, v, id); err == nil {
					purgeAt, err = v.admin().DeleteKey(ctx, id.Name)
				}
				return vault.KeyID{}, err
			})
			if err != nil {
				return err
			}
			return a.show(map[string]any{"name": id.Name, "purgeAt": date(purgeAt)}, func(t *table) {
				t.row("deleted", id.Name)
				t.row("recoverable until", purgeAt)
			})
		}))
	g.add(c)
	return c
}

func (a *app) keyRecover() *cobra.Command {
	return a.command("recover NAME", "undo delete", "Recover undoes delete: the key's versions are as they were.",
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			return a.doKey(ctx, v, local.OpRecover, id, func(ctx context.Context) (vault.Key, error) {
				return v.admin().RecoverKey(ctx, id.Name)
			})
		}))
}

func (a *app) keyPurge() *cobra.Command {
	var g guard
	c := a.command("purge NAME", "destroy a deleted key for good", `Purge destroys a deleted key with all its versions. What was wrapped by it can be opened
by nobody, unless there is a backup of the key.`+guardHelp,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			err = v.do(ctx, local.OpPurge, id, "", func(ctx context.Context) (vault.KeyID, error) {
				if err := g.check(ctx, v, id); err != nil {
					return vault.KeyID{}, err
				}
				return vault.KeyID{}, v.admin().PurgeKey(ctx, id.Name)
			})
			if err != nil {
				return err
			}
			return a.show(map[string]string{"purged": id.Name}, func(t *table) { t.row("purged", id.Name) })
		}))
	g.add(c)
	return c
}
