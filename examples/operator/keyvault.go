package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// A vault is a file vault, in a directory, or an Azure Key Vault or managed HSM, by its
// URL. The commands on keys speak to both in the file vault's terms; here are the few
// things in which Key Vault differs.

func isKeyVault(name string) bool { return strings.HasPrefix(name, "https://") }

// controlPlane is what the commands on keys ask of a vault. A file vault's administrator
// has it, and keyVault.
type controlPlane interface {
	CreateKey(ctx context.Context, name string, o *local.KeyOptions) (vault.Key, error)
	ImportFile(ctx context.Context, name string, data, password []byte, o *local.KeyOptions) (vault.Key, error)
	RotateKey(ctx context.Context, name string) (vault.Key, error)
	UpdateKey(ctx context.Context, id vault.KeyID, u local.Update) (vault.Key, error)
	DeleteKey(ctx context.Context, name string) (purgeAt time.Time, err error)
	RecoverKey(ctx context.Context, name string) (vault.Key, error)
	PurgeKey(ctx context.Context, name string) error
	BackupKey(ctx context.Context, name string) ([]byte, error)
	RestoreKey(ctx context.Context, backup []byte) (vault.Key, error)
	ListKeys(ctx context.Context) ([]local.KeyInfo, error)
	ListDeleted(ctx context.Context) ([]local.KeyInfo, error)
	Versions(ctx context.Context, name string) ([]local.KeyVersion, error)
	SetRotationPolicy(ctx context.Context, name string, p local.RotationPolicy) error
}

// signedIn is who calls a Key Vault, in the audit log: what the credential says, which
// this tool does not look into. It has a space, which no identity's name has.
const signedIn = "signed-in caller"

// keyVault is a Key Vault as a controlPlane.
type keyVault struct {
	store *azure.Vault
	admin *azure.Admin
	hsm   bool // new keys are made in the vault's HSM
}

var _ controlPlane = (*keyVault)(nil)

// signIn returns the credential and the options of a Key Vault's clients: what azidentity
// finds (a managed identity, a workload identity, AZURE_CLIENT_ID and its like, "az login").
func (a *app) signIn(vaultURL string) (azcore.TokenCredential, *azure.Options, error) {
	var cred azidentity.DefaultAzureCredentialOptions
	var opts azure.Options
	if a.getenv("BLOCKSEAL_TEST_VAULT") == "1" {
		// For tests alone: what a client checks of Azure and loopback cannot have is that the
		// authority is one that Microsoft knows, and that the vault is of Key Vault's domain.
		u, err := url.Parse(vaultURL)
		if err != nil || !net.ParseIP(u.Hostname()).IsLoopback() {
			return nil, nil, usagef("BLOCKSEAL_TEST_VAULT is for a vault on loopback, which %s is not: against another it would send tokens to whoever asks", vaultURL)
		}
		cred.DisableInstanceDiscovery = true
		opts.ClientOptions.DisableChallengeResourceVerification = true
	}
	c, err := azidentity.NewDefaultAzureCredential(&cred)
	return c, &opts, err
}

// keyVault makes the clients of a Key Vault. Nothing is asked of it yet.
func (s *session) keyVault(f *vaultFlags) (*opened, error) {
	if f.identity != "" {
		return nil, usagef("--%sidentity is for file vaults: a Key Vault knows the caller by its sign-in, and the identity is the credential's", f.prefix)
	}
	if f.file != "" {
		return nil, usagef("--%spassphrase-file is for file vaults: a Key Vault has no passphrase", f.prefix)
	}
	base, err := s.app.storesBase(f)
	if err != nil {
		return nil, err
	}
	connect := s.app.connect
	if connect == nil {
		connect = s.app.signIn
	}
	cred, opts, err := connect(f.dir)
	if err != nil {
		return nil, err
	}
	v := &keyVault{}
	if v.store, err = azure.New(f.dir, cred, opts); err != nil {
		return nil, usageError{err}
	}
	if v.admin, err = azure.NewAdmin(f.dir, cred, opts); err != nil {
		return nil, usageError{err}
	}
	return &opened{azure: v, session: s, dir: base, identity: signedIn}, nil
}

// storesBase is the path that a vault's list of known stores is named by: a file vault's
// directory, and for a Key Vault, which has none here, its host's name in
// $BLOCKSEAL_STATE.
func (a *app) storesBase(f *vaultFlags) (string, error) {
	name, err := a.vaultDir(f)
	if err != nil || !isKeyVault(name) {
		return name, err
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" {
		return "", usagef("%s is not the URL of a Key Vault", name)
	}
	dir := a.getenv("BLOCKSEAL_STATE")
	if dir == "" {
		if dir, err = os.UserConfigDir(); err != nil {
			return "", usagef("where is the list of the stores of %s? set BLOCKSEAL_STATE to a directory: %v", name, err)
		}
		dir = filepath.Join(dir, "blockseal")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.Join(dir, strings.ReplaceAll(strings.ToLower(u.Host), ":", "_")), nil
}

func (k *keyVault) options(o *local.KeyOptions) *azure.KeyOptions {
	return &azure.KeyOptions{HSM: k.hsm, Disabled: o.Disabled, NotBefore: o.NotBefore, Expires: o.Expires, Operations: o.Operations, NewVersion: o.NewVersion}
}

// made sets the policy of a key that was made with one.
func (k *keyVault) made(ctx context.Context, key vault.Key, o *local.KeyOptions) (vault.Key, error) {
	if o.Policy == nil {
		return key, nil
	}
	if err := k.SetRotationPolicy(ctx, key.ID.Name, *o.Policy); err != nil {
		return key, fmt.Errorf("the version %s was made, and the key's rotation policy was not set; try key policy: %w", key.ID, err)
	}
	return key, nil
}

func (k *keyVault) CreateKey(ctx context.Context, name string, o *local.KeyOptions) (vault.Key, error) {
	key, err := k.admin.CreateKey(ctx, name, k.options(o))
	if err != nil {
		return key, err
	}
	return k.made(ctx, key, o)
}

func (k *keyVault) ImportFile(ctx context.Context, name string, data, password []byte, o *local.KeyOptions) (vault.Key, error) {
	key, err := k.admin.ImportFile(ctx, name, data, password, k.options(o))
	if err != nil {
		return key, err
	}
	return k.made(ctx, key, o)
}

func (k *keyVault) RotateKey(ctx context.Context, name string) (vault.Key, error) {
	return k.admin.RotateKey(ctx, name)
}

func (k *keyVault) UpdateKey(ctx context.Context, id vault.KeyID, u local.Update) (vault.Key, error) {
	return k.admin.UpdateKey(ctx, id, azure.Update{Enabled: u.Enabled, NotBefore: u.NotBefore, Expires: u.Expires, Operations: u.Operations})
}

func (k *keyVault) DeleteKey(ctx context.Context, name string) (time.Time, error) {
	return k.admin.DeleteKey(ctx, name)
}

func (k *keyVault) RecoverKey(ctx context.Context, name string) (vault.Key, error) {
	return k.admin.RecoverKey(ctx, name)
}

func (k *keyVault) PurgeKey(ctx context.Context, name string) error {
	return k.admin.PurgeKey(ctx, name)
}

func (k *keyVault) BackupKey(ctx context.Context, name string) ([]byte, error) {
	return k.admin.BackupKey(ctx, name)
}

func (k *keyVault) RestoreKey(ctx context.Context, backup []byte) (vault.Key, error) {
	return k.admin.RestoreKey(ctx, backup)
}

// listed is what Key Vault lists of a version: properties, without the key.
func listed(i azure.KeyInfo) local.KeyVersion {
	return local.KeyVersion{Key: vault.Key{ID: i.ID, Enabled: i.Enabled, NotBefore: i.NotBefore, Expires: i.Expires, Created: i.Created}, Updated: i.Updated}
}

// ListKeys asks for each key's versions, too: Key Vault's list of keys does not say which is
// the current one.
func (k *keyVault) ListKeys(ctx context.Context) ([]local.KeyInfo, error) {
	keys, err := k.admin.ListKeys(ctx)
	if err != nil {
		return nil, err
	}
	all := []local.KeyInfo{}
	for _, i := range keys {
		versions, err := k.Versions(ctx, i.ID.Name)
		if err != nil {
			return nil, err
		}
		policy, err := k.policy(ctx, i.ID.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, local.KeyInfo{Current: versions[len(versions)-1], Versions: len(versions), Policy: policy})
	}
	return all, nil
}

// ListDeleted cannot say how many versions a key has: Key Vault lists none of a deleted
// one.
func (k *keyVault) ListDeleted(ctx context.Context) ([]local.KeyInfo, error) {
	keys, err := k.admin.ListDeleted(ctx)
	if err != nil {
		return nil, err
	}
	all := []local.KeyInfo{}
	for _, i := range keys {
		all = append(all, local.KeyInfo{Current: listed(i), Deleted: i.Deleted, PurgeAt: i.PurgeAt})
	}
	return all, nil
}

// Versions asks for each version, whose operations and public half are in no list, and for
// the current one: of the same second, the list does not say which is newer.
func (k *keyVault) Versions(ctx context.Context, name string) ([]local.KeyVersion, error) {
	infos, err := k.admin.Versions(ctx, name)
	if err != nil {
		return nil, err
	}
	current, err := k.admin.GetKey(ctx, vault.KeyID{Name: name})
	if err != nil {
		return nil, err
	}
	all := []local.KeyVersion{}
	for _, i := range infos {
		v := listed(i)
		if v.Key, err = k.admin.GetKey(ctx, i.ID); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if i := slices.IndexFunc(all, func(v local.KeyVersion) bool { return v.ID == current.ID }); i >= 0 {
		last := all[i]
		all = append(slices.Delete(all, i, i+1), last)
	}
	return all, nil
}

func (k *keyVault) policy(ctx context.Context, name string) (local.RotationPolicy, error) {
	p, err := k.admin.RotationPolicy(ctx, name)
	return local.RotationPolicy(p), err
}

func (k *keyVault) SetRotationPolicy(ctx context.Context, name string, p local.RotationPolicy) error {
	if p.NotifyBefore < 0 {
		return usagef("a Key Vault gives notice before an expiry, as an event: --notify-before cannot be negative")
	}
	return k.admin.SetRotationPolicy(ctx, name, azure.RotationPolicy(p))
}

// notOfKeyVaults refuses a command that a Key Vault has no part in; why says what there is
// instead.
func notOfKeyVaults(vault, why string) error {
	return usagef("%s is a Key Vault: %s", vault, why)
}
