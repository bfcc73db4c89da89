package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// policyFlags change a rotation policy.
type policyFlags struct {
	after, beforeExpiry, expires, notify daysFlag
	clear                                bool
}

func (p *policyFlags) add(c *cobra.Command) {
	c.Flags().Var(&p.after, "rotate-after", "rotate when the current version is so old, such as 90d; at least 1h")
	c.Flags().Var(&p.beforeExpiry, "rotate-before-expiry", "rotate when the current version expires within so long; at least 1h")
	c.Flags().Var(&p.expires, "expires-after", "new versions expire so long after they are made")
	c.Flags().Var(&p.notify, "notify-before", "give notice so long before expiry (default 30d; negative: never)")
}

// given returns what the command line changes of the policy, or "".
func (p *policyFlags) given(c *cobra.Command) string {
	var parts []string
	if p.clear {
		parts = append(parts, "clear")
	}
	for _, name := range []string{"rotate-after", "rotate-before-expiry", "expires-after", "notify-before"} {
		if f := c.Flags().Lookup(name); f.Changed {
			parts = append(parts, name+" "+f.Value.String())
		}
	}
	return strings.Join(parts, ", ")
}

// onto returns the policy old with what the command line changes.
func (p *policyFlags) onto(c *cobra.Command, old local.RotationPolicy) local.RotationPolicy {
	if p.clear {
		old = local.RotationPolicy{}
	}
	f := c.Flags()
	if f.Changed("rotate-after") {
		old.RotateAfter = p.after.d
	}
	if f.Changed("rotate-before-expiry") {
		old.RotateBeforeExpiry = p.beforeExpiry.d
	}
	if f.Changed("expires-after") {
		old.ExpiresAfter = p.expires.d
	}
	if f.Changed("notify-before") {
		old.NotifyBefore = p.notify.d
	}
	return old
}

type policyView struct {
	RotateAfter        string `json:"rotateAfter,omitempty"`
	RotateBeforeExpiry string `json:"rotateBeforeExpiry,omitempty"`
	ExpiresAfter       string `json:"expiresAfter,omitempty"`
	NotifyBefore       string `json:"notifyBefore,omitempty"`
}

func viewPolicy(p local.RotationPolicy) *policyView {
	s := func(f daysFlag) string { return f.String() }
	return &policyView{s(daysFlag{p.RotateAfter}), s(daysFlag{p.RotateBeforeExpiry}), s(daysFlag{p.ExpiresAfter}), s(daysFlag{p.NotifyBefore})}
}

// String is the policy in one line.
func (p *policyView) String() string {
	var parts []string
	add := func(what, d string) {
		if d != "" {
			parts = append(parts, what+" "+d)
		}
	}
	add("after", p.RotateAfter)
	add("before expiry", p.RotateBeforeExpiry)
	if len(parts) == 0 {
		parts = append(parts, "by hand")
	}
	add("new versions expire after", p.ExpiresAfter)
	add("notice before expiry", p.NotifyBefore)
	return strings.Join(parts, ", ")
}

// policy returns a key's rotation policy.
func (v *opened) policy(ctx context.Context, name string) (local.RotationPolicy, error) {
	if v.azure != nil {
		return v.azure.policy(ctx, name)
	}
	keys, err := v.admin().ListKeys(ctx)
	if err != nil {
		return local.RotationPolicy{}, err
	}
	for _, k := range keys {
		if k.Current.ID.Name == name {
			return k.Policy, nil
		}
	}
	return local.RotationPolicy{}, &vault.Error{Op: local.OpList, Key: vault.KeyID{Vault: v.ID(), Name: name}, Kind: vault.ErrKeyNotFound}
}

func (a *app) keyPolicy() *cobra.Command {
	var flags policyFlags
	var c *cobra.Command
	c = a.command("policy NAME", "show or change a key's rotation policy", `Policy shows a key's rotation policy, after changing what flags say. A vault has no
process of its own: what is due happens when a store asks for the key without a
version, and in vault maintain.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			op, what := local.OpList, ""
			if change := flags.given(c); change != "" {
				op, what = local.OpUpdate, "rotation policy: "+change
			}
			var p local.RotationPolicy
			err = v.do(ctx, op, id, what, func(ctx context.Context) (_ vault.KeyID, err error) {
				if p, err = v.policy(ctx, id.Name); err == nil && op == local.OpUpdate {
					if err = v.admin().SetRotationPolicy(ctx, id.Name, flags.onto(c, p)); err == nil {
						p, err = v.policy(ctx, id.Name)
					}
				}
				return vault.KeyID{}, err
			})
			if err != nil {
				return fromFlags(err)
			}
			w := viewPolicy(p)
			return a.show(w, func(t *table) { t.row("rotation", w) })
		}))
	flags.add(c)
	c.Flags().BoolVar(&flags.clear, "clear", false, "begin with no policy")
	return c
}
