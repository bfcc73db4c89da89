package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault/azure"
)

func (a *app) keyPreflight() *cobra.Command {
	var opts azure.PreflightOptions
	var horizon daysFlag
	c := a.command("preflight KEY", "look whether a Key Vault's key can serve a store", `Preflight signs in to the Key Vault and looks at what a store needs: that the key is there,
is RSA-2048, in date and enabled, that it wraps and unwraps for the caller, that a deleted
key can be recovered and nobody can purge it at once. It makes no change, and wraps 32
random bytes. Exit status 1 if a check fails.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			if v.azure == nil {
				return usagef("preflight is for Key Vaults; of a file vault, store init and store state say what is wrong")
			}
			id, err := v.parseKey(args[0])
			if err != nil {
				return err
			}
			opts.ExpiryHorizon = horizon.d
			report := v.azure.store.Preflight(ctx, id, &opts)
			if a.json {
				err = a.show(report, nil)
			} else {
				_, err = fmt.Fprint(a.out, report)
			}
			if err == nil && !report.OK() {
				return errors.Join(errSilent, fmt.Errorf("the key cannot serve"))
			}
			return err
		}))
	f := c.Flags()
	f.StringVar(&opts.Tenant, "tenant", "", "the `id` of the tenant that the vault should be in (default: any)")
	f.Var(&horizon, "expiry-horizon", "how long the key should still be in date (default 30d)")
	f.DurationVar(&opts.Slow, "slow", 0, "how long a call should take at most (default 1s)")
	f.BoolVar(&opts.AllowPurge, "allow-purge", false, "only warn of a vault without purge protection, where one call destroys all data under the key")
	return c
}
