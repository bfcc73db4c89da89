package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func (a *app) keyCommand() *cobra.Command {
	c := a.group("key", "a key's life, from import to purge", `Key administers the keys of a vault, as its owner or, with --identity, as somebody who
was granted that operation. A KEY is NAME, NAME/VERSION or a whole key identifier;
without a version, the current one is meant.`)
	a.vault.add(c, "", "the vault")
	a.audit.add(c)
	c.AddCommand(a.keyCreate(), a.keyImport(), a.keyList(), a.keyShow(), a.keyPublic(), a.keyRotate(), a.keyPolicy(),
		a.keyPreflight(), a.keyEnable(), a.keyDisable(), a.keyExpire(), a.keyDelete(), a.keyRecover(), a.keyPurge(), a.keyBackup(), a.keyRestore())
	return c
}

// parseKey parses a KEY argument.
func (v *opened) parseKey(arg string) (id vault.KeyID, err error) {
	if strings.Contains(arg, "/keys/") {
		if id, err = vault.ParseKeyID(arg); err != nil {
			return id, usageError{err}
		}
		if id.Vault != "" && id.Vault != v.ID() {
			return id, usagef("%s is a key of another vault than %s", arg, v.ID())
		}
	} else {
		id.Name, id.Version, _ = strings.Cut(arg, "/")
	}
	id.Vault = v.ID()
	if err := id.Validate(); err != nil {
		return id, usageError{err}
	}
	return id, nil
}

// parseName parses a KEY argument that can have no version.
func (v *opened) parseName(arg string) (vault.KeyID, error) {
	id, err := v.parseKey(arg)
	if err == nil && id.Version != "" {
		err = usagef("%s: all versions of the key are meant, so give its name alone", arg)
	}
	return id, err
}

// pin puts the current version into an id that has none, so that what is checked
// is what is changed.
func (v *opened) pin(ctx context.Context, id vault.KeyID) (vault.KeyID, error) {
	if id.Version != "" {
		return id, nil
	}
	if v.azure != nil {
		key, err := v.azure.admin.GetKey(ctx, id)
		return key.ID, err
	}
	versions, err := v.Versions(ctx, id.Name)
	if err != nil {
		return id, err
	}
	return versions[len(versions)-1].ID, nil
}

// versionView is a key version as JSON. It has no key material but the public half's
// fingerprint: SHA-256 of its SubjectPublicKeyInfo.
type versionView struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Version     string            `json:"version"`
	State       string            `json:"state"`
	Enabled     bool              `json:"enabled"`
	NotBefore   *time.Time        `json:"notBefore"`
	Expires     *time.Time        `json:"expires"`
	Created     *time.Time        `json:"created,omitempty"`
	Updated     *time.Time        `json:"updated,omitempty"`
	Operations  []vault.Operation `json:"operations"`
	Fingerprint string            `json:"fingerprint,omitempty"`
}

func viewVersion(k local.KeyVersion) versionView {
	w := versionView{ID: k.ID.String(), Name: k.ID.Name, Version: k.ID.Version, State: "usable", Enabled: k.Enabled,
		NotBefore: date(k.NotBefore), Expires: date(k.Expires), Created: date(k.Created), Updated: date(k.Updated), Operations: k.Operations}
	now := time.Now()
	switch {
	case !k.Enabled:
		w.State = "disabled"
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		w.State = "expired"
	case now.Before(k.NotBefore):
		w.State = "not yet valid"
	case k.Permits(local.OpImport):
		w.State = "import only"
	}
	if k.Public != nil { // a Key Vault's list of deleted keys has none
		if f, err := kek.Fingerprint(k.Public); err == nil {
			w.Fingerprint = hex.EncodeToString(f[:])
		}
	}
	return w
}

// showKey shows a version that an operation returned.
func (a *app) showKey(k vault.Key) error {
	w := viewVersion(local.KeyVersion{Key: k})
	return a.show(w, func(t *table) {
		t.row("key", w.Name)
		t.row("version", w.Version)
		t.row("state", w.State)
		t.row("not before", w.NotBefore)
		t.row("expires", w.Expires)
		t.row("operations", w.Operations)
		t.row("fingerprint", w.Fingerprint)
	})
}

// keyFlags are the properties of a new version.
type keyFlags struct {
	notBefore, expires timeFlag
	disabled           bool
	importOnly         bool
	hsm                bool
	newVersion         bool
	policy             policyFlags
}

func (k *keyFlags) add(c *cobra.Command, importing bool) {
	c.Flags().Var(&k.notBefore, "not-before", "from when on the version wraps "+timeHelp)
	c.Flags().Var(&k.expires, "expires", "when the version expires "+timeHelp)
	c.Flags().BoolVar(&k.disabled, "disabled", false, "make the version disabled")
	c.Flags().BoolVar(&k.newVersion, "new-version", false, "make a new current version of a key that exists; stores on the key follow")
	c.Flags().BoolVar(&k.hsm, "hsm", false, "put the key into the HSM of a Key Vault (always so in a managed HSM, and for a .byok file)")
	if !importing {
		c.Flags().BoolVar(&k.importOnly, "import-only", false, "make a key that a .byok file can be made for, and that is good for nothing else")
	}
	k.policy.add(c)
}

func (k *keyFlags) options(c *cobra.Command, v *opened) (*local.KeyOptions, error) {
	switch {
	case v.azure != nil:
		v.azure.hsm = k.hsm || k.importOnly || strings.Contains(v.ID(), ".managedhsm.")
	case k.hsm:
		return nil, usagef("--hsm is for Key Vaults: a file vault has no HSM")
	}
	o := &local.KeyOptions{NotBefore: k.notBefore.t, Expires: k.expires.t, Disabled: k.disabled, NewVersion: k.newVersion}
	if k.importOnly {
		o.Operations = []vault.Operation{local.OpImport}
	}
	if k.policy.given(c) != "" {
		p := k.policy.onto(c, local.RotationPolicy{})
		o.Policy = &p
	}
	return o, fromFlags(o.Validate())
}

func (a *app) keyCreate() *cobra.Command {
	var flags keyFlags
	var c *cobra.Command
	c = a.command("create NAME", "make a key", `Create makes a key with a fresh RSA-2048 key pair in the vault. The private half never
leaves the vault but in a key backup.

A name that is taken is refused. key rotate makes a new version with the properties of the
one before, and --new-version one with the properties that are given here; stores on the
key follow to it at their next check.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			o, err := flags.options(c, v)
			if err != nil {
				return err
			}
			return fromFlags(a.doKey(ctx, v, local.OpCreate, id, func(ctx context.Context) (vault.Key, error) {
				return v.admin().CreateKey(ctx, id.Name, o)
			}))
		}))
	flags.add(c, false)
	return c
}

// doKey runs and records an operation that returns a key, and shows the key.
func (a *app) doKey(ctx context.Context, v *opened, op vault.Operation, id vault.KeyID, f func(context.Context) (vault.Key, error)) error {
	var key vault.Key
	err := v.do(ctx, op, id, "", func(ctx context.Context) (_ vault.KeyID, err error) {
		key, err = f(ctx)
		return key.ID, err
	})
	if errors.Is(err, vault.ErrKeyExists) && op != local.OpRestore {
		return fmt.Errorf("%w; see key show %s; for a new version, key rotate %s, or --new-version", err, id.Name, id.Name)
	}
	if err != nil {
		return err
	}
	return a.showKey(key)
}

type keyView struct {
	Name     string      `json:"name"`
	Versions int         `json:"versions,omitempty"` // 0: a Key Vault does not say, of a deleted key
	Current  versionView `json:"current"`
	Policy   *policyView `json:"policy"`
	Deleted  *time.Time  `json:"deleted,omitempty"`
	PurgeAt  *time.Time  `json:"purgeAt,omitempty"`
}

func viewKey(k local.KeyInfo) keyView {
	return keyView{k.Current.ID.Name, k.Versions, viewVersion(k.Current), viewPolicy(k.Policy), date(k.Deleted), date(k.PurgeAt)}
}

func (a *app) keyList() *cobra.Command {
	var deleted bool
	c := a.command("list", "list the vault's keys", `List lists the keys that are not deleted or, with --deleted, those that can be
recovered.`,
		a.withVault(func(ctx context.Context, v *opened, _ []string) error {
			list := v.admin().ListKeys
			if deleted {
				list = v.admin().ListDeleted
			}
			var keys []local.KeyInfo
			err := v.do(ctx, local.OpList, v.all(), "", func(ctx context.Context) (_ vault.KeyID, err error) {
				keys, err = list(ctx)
				return vault.KeyID{}, err
			})
			if err != nil {
				return err
			}
			views := []keyView{}
			for _, k := range keys {
				views = append(views, viewKey(k))
			}
			return a.show(views, func(t *table) {
				if deleted {
					t.row("NAME", "VERSIONS", "DELETED", "PURGED AT")
				} else {
					t.row("NAME", "VERSIONS", "CURRENT", "STATE", "EXPIRES")
				}
				for _, k := range views {
					if deleted {
						versions := "-"
						if k.Versions > 0 {
							versions = fmt.Sprint(k.Versions)
						}
						t.row(k.Name, versions, k.Deleted, k.PurgeAt)
					} else {
						t.row(k.Name, k.Versions, t.id(k.Current.Version), k.Current.State, k.Current.Expires)
					}
				}
			})
		}))
	c.Flags().BoolVar(&deleted, "deleted", false, "list the deleted keys")
	return c
}

func (a *app) keyShow() *cobra.Command {
	return a.command("show NAME", "show a key with all its versions", `Show shows a key's versions, the current one last: their dates, states, operations, and
the fingerprints of their public halves (SHA-256 of the SubjectPublicKeyInfo).`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseName(args[0])
			if err != nil {
				return err
			}
			var versions []local.KeyVersion
			var policy local.RotationPolicy
			err = v.do(ctx, local.OpList, id, "", func(ctx context.Context) (_ vault.KeyID, err error) {
				if versions, err = v.admin().Versions(ctx, id.Name); err == nil {
					policy, err = v.policy(ctx, id.Name)
				}
				return vault.KeyID{}, err
			})
			if err != nil {
				return err
			}
			view := struct {
				Name     string        `json:"name"`
				Vault    string        `json:"vault"`
				Versions []versionView `json:"versions"`
				Policy   *policyView   `json:"policy"`
			}{Name: id.Name, Vault: id.Vault, Policy: viewPolicy(policy)}
			for _, k := range versions {
				view.Versions = append(view.Versions, viewVersion(k))
			}
			return a.show(view, func(t *table) {
				t.row("key", view.Name)
				t.row("vault", view.Vault)
				t.row("rotation", view.Policy)
				for i, k := range view.Versions {
					current := ""
					if i == len(view.Versions)-1 {
						current = ", current"
					}
					t.row()
					t.row("version", k.Version+current)
					t.row("  state", k.State)
					t.row("  created", k.Created)
					t.row("  updated", k.Updated)
					t.row("  not before", k.NotBefore)
					t.row("  expires", k.Expires)
					t.row("  operations", k.Operations)
					t.row("  fingerprint", k.Fingerprint)
				}
			})
		}))
}

func (a *app) keyPublic() *cobra.Command {
	var out string
	c := a.command("public KEY", "write a key's public half", `Public writes the public half of a key version as PEM (SubjectPublicKeyInfo): for a
.byok tool, which encrypts to an import-only key, or to compare.`,
		a.withVault(func(ctx context.Context, v *opened, args []string) error {
			id, err := v.parseKey(args[0])
			if err != nil {
				return err
			}
			key, err := v.data("").GetKey(ctx, id)
			if err != nil {
				return err
			}
			der, err := x509.MarshalPKIXPublicKey(key.Public)
			if err != nil {
				return err
			}
			text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
			if out != "" {
				if err := os.WriteFile(out, text, 0o644); err != nil {
					return err
				}
				return a.show(map[string]string{"id": key.ID.String(), "file": out}, func(t *table) { t.row("public key", out) })
			}
			if a.json {
				return a.show(map[string]string{"id": key.ID.String(), "pem": string(text)}, nil)
			}
			_, err = fmt.Fprintf(a.out, "%s", text)
			return err
		}))
	c.Flags().StringVar(&out, "out", "", "write it to this `file` (default: standard output)")
	return c
}
