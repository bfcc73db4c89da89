package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// emulate is use with a server on loopback in the place of Azure, and two identities:
// the store's, which may use the key, and the administrator's, which may not.
func emulate(ctx context.Context, o options, out io.Writer) (err error) {
	server, err := keyvaulttest.New(&keyvaulttest.Options{PurgeProtection: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	o.url, o.key.Version, o.tenant = server.URL(), "", server.Tenant()
	fmt.Fprintf(out, "emulated      %s\n", o.url)

	storeCred, err := identity(server, "store", local.DataPlane())
	if err != nil {
		return err
	}
	adminCred, err := identity(server, "administrator", append(local.ControlPlane(), vault.OpGet))
	if err != nil {
		return err
	}
	opts := &azure.Options{}
	opts.ClientOptions.Transport = server.Client()
	// The client checks that the vault is of Key Vault's domain, which loopback is not.
	opts.ClientOptions.DisableChallengeResourceVerification = true
	admin, err := azure.NewAdmin(o.url, adminCred, opts)
	if err != nil {
		return err
	}
	if _, err := admin.CreateKey(ctx, o.key.Name, nil); err != nil {
		return err
	}
	return use(ctx, o, storeCred, opts, func(ctx context.Context, s *block.Store) error {
		return rehearse(ctx, s, admin, o.key.Name, out)
	}, out)
}

// identity makes an identity with grants, and a credential that signs in at the server's
// own authority as at Microsoft Entra ID.
func identity(server *keyvaulttest.Server, name string, grants []local.Permission) (azcore.TokenCredential, error) {
	id, err := server.AddIdentity(name, grants...)
	if err != nil {
		return nil, err
	}
	o := &azidentity.ClientSecretCredentialOptions{DisableInstanceDiscovery: true}
	o.Transport = server.Client()
	o.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: server.URL()}
	return azidentity.NewClientSecretCredential(id.TenantID, id.ClientID, id.ClientSecret, o)
}

// rehearse is what a customer does to a key, and what becomes of the store.
func rehearse(ctx context.Context, s *block.Store, admin *azure.Admin, name string, out io.Writer) error {
	off, on := false, true
	key := vault.KeyID{Name: name}
	for _, step := range []struct {
		what string
		do   func() error
		want keyring.Status
	}{
		{"rotate", func() error { return second(admin.RotateKey(ctx, name)) }, keyring.Available},
		{"disable", func() error { return second(admin.UpdateKey(ctx, key, azure.Update{Enabled: &off})) }, keyring.Inaccessible},
		{"enable", func() error { return second(admin.UpdateKey(ctx, key, azure.Update{Enabled: &on})) }, keyring.Available},
		{"delete", func() error { return second(admin.DeleteKey(ctx, name)) }, keyring.Inaccessible},
		{"recover", func() error { return second(admin.RecoverKey(ctx, name)) }, keyring.Available},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s the key: %w", step.what, err)
		}
		// A store finds out by itself, within its lease. Revalidate does not wait.
		denied := s.Revalidate(ctx)
		_, read := s.Get(ctx, blockID(0), nil)
		if got := s.State().Status; got != step.want || (read == nil) != (step.want == keyring.Available) {
			return fmt.Errorf("%s the key: the store is %v, want %v: %w", step.what, got, step.want, errors.Join(denied, read))
		}
		fmt.Fprintf(out, "%-13s the store is %v\n", step.what, step.want)
	}
	// The version before stays in use until the store has moved.
	if err := s.RotateKEK(ctx); err != nil {
		return err
	}
	usage, err := s.KeyUsage(ctx)
	if err != nil {
		return err
	}
	for _, u := range usage {
		fmt.Fprintf(out, "KEK in use    %s\n", u.Key)
	}
	return nil
}

func second[T any](_ T, err error) error { return err }
