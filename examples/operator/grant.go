package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// noGrants is what a Key Vault has in their place.
const noGrants = "it has no grants of this tool's; who may do what is said by role assignments (az role assignment create; docs/azure.md)"

func (a *app) grantCommand() *cobra.Command {
	c := a.group("grant", "who may do what with the vault's keys", `Grant says what identities may do, for all keys of the vault. Only the owner makes
grants. They take effect with the next call, also in other processes.

What a store needs, data for short:
  `+shown(local.DataPlane())+`
What administers keys, control for short:
  `+shown(local.ControlPlane()))
	a.vault.add(c, "", "the vault")
	a.audit.add(c)
	c.AddCommand(a.grantAdd(), a.grantRemove(), a.grantList())
	return c
}

// permissions parses OPERATION arguments.
func permissions(args []string) (ops []local.Permission, err error) {
	for _, arg := range args {
		switch {
		case arg == "data":
			ops = append(ops, local.DataPlane()...)
		case arg == "control":
			ops = append(ops, local.ControlPlane()...)
		case slices.Contains(local.Permissions(), local.Permission(arg)):
			ops = append(ops, local.Permission(arg))
		default:
			return nil, usagef("there is no operation %q; there are: %s, and data and control for short", arg, shown(local.Permissions()))
		}
	}
	return ops, nil
}

func completeGrant(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	out := []string{"data", "control"}
	for _, p := range local.Permissions() {
		out = append(out, string(p))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) grantAdd() *cobra.Command {
	c := a.command("add IDENTITY OPERATION...", "permit operations to an identity",
		`Add permits operations to an identity, besides what it is permitted already. It exists
from its first grant on.`,
		a.ownersOnly(noGrants, func(ctx context.Context, v *opened, args []string) error {
			ops, err := permissions(args[1:])
			if err != nil {
				return err
			}
			return a.regrant(ctx, v, opGrant, args[0], shown(ops), func(ctx context.Context) error { return v.Grant(ctx, args[0], ops...) })
		}))
	c.ValidArgsFunction = completeGrant
	return c
}

func (a *app) grantRemove() *cobra.Command {
	c := a.command("remove IDENTITY [OPERATION...]", "take operations from an identity",
		"Remove takes operations from an identity or, without any, all that it has.",
		a.ownersOnly(noGrants, func(ctx context.Context, v *opened, args []string) error {
			ops, err := permissions(args[1:])
			if err != nil {
				return err
			}
			what := shown(ops)
			if len(ops) == 0 {
				what = "everything"
			}
			return a.regrant(ctx, v, opRevoke, args[0], what, func(ctx context.Context) error { return v.Revoke(ctx, args[0], ops...) })
		}))
	c.ValidArgsFunction = completeGrant
	return c
}

// regrant runs and records a change of grants, and shows what the identity has then.
func (a *app) regrant(ctx context.Context, v *opened, op vault.Operation, identity, what string, f func(context.Context) error) error {
	var all []local.IdentityInfo
	err := v.do(ctx, op, v.all(), fmt.Sprintf("%s: %s", identity, what), func(ctx context.Context) (_ vault.KeyID, err error) {
		if err = f(ctx); err == nil {
			all, err = v.Identities(ctx)
		}
		return vault.KeyID{}, err
	})
	if err != nil {
		return fromFlags(err)
	}
	return a.showGrants(slices.DeleteFunc(all, func(i local.IdentityInfo) bool { return i.Name != identity }))
}

func (a *app) showGrants(all []local.IdentityInfo) error {
	type view struct {
		Identity   string             `json:"identity"`
		Operations []local.Permission `json:"operations"`
	}
	views := []view{}
	for _, i := range all {
		views = append(views, view{i.Name, i.Grants})
	}
	return a.show(views, func(t *table) {
		t.row("IDENTITY", "OPERATIONS")
		for _, w := range views {
			t.row(w.Identity, w.Operations)
		}
	})
}

func (a *app) grantList() *cobra.Command {
	return a.command("list", "list the identities and what they may do", "List lists the identities that are granted something.",
		a.ownersOnly(noGrants, func(ctx context.Context, v *opened, _ []string) error {
			var all []local.IdentityInfo
			err := v.do(ctx, opGrants, v.all(), "", func(ctx context.Context) (_ vault.KeyID, err error) {
				all, err = v.Identities(ctx)
				return vault.KeyID{}, err
			})
			if err != nil {
				return err
			}
			return a.showGrants(all)
		}))
}
