package azure

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/vault"
)

// KeyInfo is what Key Vault lists of a key or a version: its properties, without the
// key. The properties of a key are those of its current version, whose name is not
// given.
type KeyInfo struct {
	ID        vault.KeyID `json:"id"`
	Enabled   bool        `json:"enabled"`
	NotBefore time.Time   `json:"notBefore,omitzero"` // zero: not set
	Expires   time.Time   `json:"expires,omitzero"`   // likewise
	Created   time.Time   `json:"created,omitzero"`
	Updated   time.Time   `json:"updated,omitzero"`
	// Deleted says when the key was deleted, and PurgeAt when it is gone for good;
	// both are zero for a key that is not deleted.
	Deleted time.Time `json:"deleted,omitzero"`
	PurgeAt time.Time `json:"purgeAt,omitzero"`
}

func (a *Admin) info(op vault.Operation, kid *azkeys.ID, at *azkeys.KeyAttributes) (KeyInfo, error) {
	none := vault.KeyID{Vault: a.url}
	if kid == nil || at == nil || at.Enabled == nil {
		return KeyInfo{}, malformed(op, none, "an item has no identifier, or no attributes")
	}
	id, err := vault.ParseKeyID(string(*kid))
	if err != nil {
		return KeyInfo{}, malformed(op, none, "a key identifier cannot be parsed")
	}
	if u, err := parseVaultURL(id.Vault); err != nil || u != a.url {
		return KeyInfo{}, refuse(op, none, vault.ErrUnsupportedKey, "the vault answered for another vault, %s", id.Vault)
	}
	id.Vault = a.url
	return KeyInfo{ID: id, Enabled: *at.Enabled, NotBefore: date(at.NotBefore), Expires: date(at.Expires),
		Created: date(at.Created), Updated: date(at.Updated)}, nil
}

// pages runs a list to its end, one operation a page.
func pages[T any](ctx context.Context, a *Admin, id vault.KeyID, more func() bool, next func(context.Context) ([]T, error), add func(T) error) error {
	for more() {
		err := a.do(ctx, OpList, id, func(ctx context.Context) error {
			items, err := next(ctx)
			if err != nil {
				return err
			}
			for _, item := range items {
				if err := add(item); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ListKeys returns the keys that are not deleted, by ascending name.
func (a *Admin) ListKeys(ctx context.Context) ([]KeyInfo, error) {
	pager := a.keys.NewListKeyPropertiesPager(nil)
	return a.properties(ctx, vault.KeyID{Vault: a.url}, byName, pager.More, func(ctx context.Context) ([]*azkeys.KeyProperties, error) {
		page, err := pager.NextPage(ctx)
		return page.Value, err
	})
}

// Versions returns all versions of a key, the oldest first, the current one last.
// Versions of the same second are in no order.
func (a *Admin) Versions(ctx context.Context, name string) ([]KeyInfo, error) {
	id, err := a.own(OpList, vault.KeyID{Name: name})
	if err != nil {
		return nil, err
	}
	pager := a.keys.NewListKeyPropertiesVersionsPager(name, nil)
	all, err := a.properties(ctx, id, byAge, pager.More, func(ctx context.Context) ([]*azkeys.KeyProperties, error) {
		page, err := pager.NextPage(ctx)
		return page.Value, err
	})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 { // Key Vault lists no versions of a key that is not there
		return nil, refuse(OpList, id, vault.ErrKeyNotFound, "there is no such key, or it was deleted; a deleted key can be recovered until it is purged")
	}
	return all, nil
}

// KeyVersions implements [vault.VersionLister]. It needs the permission list where the vault
// goes by access policies; the role of a store has it, under roles.
func (v *Vault) KeyVersions(ctx context.Context, id vault.KeyID) ([]vault.KeyID, error) {
	id, err := v.own(OpList, id.Versionless())
	if err != nil {
		return nil, err
	}
	all, err := (&Admin{v.client}).Versions(ctx, id.Name)
	if err != nil {
		return nil, v.noted(OpList, id, err)
	}
	ids := make([]vault.KeyID, 0, len(all))
	for _, k := range all {
		ids = append(ids, k.ID)
	}
	return ids, nil
}

func byName(x, y KeyInfo) int { return strings.Compare(x.ID.Name, y.ID.Name) }
func byAge(x, y KeyInfo) int {
	return cmp.Or(x.Created.Compare(y.Created), strings.Compare(x.ID.Version, y.ID.Version))
}

func (a *Admin) properties(ctx context.Context, id vault.KeyID, order func(x, y KeyInfo) int, more func() bool,
	next func(context.Context) ([]*azkeys.KeyProperties, error)) ([]KeyInfo, error) {
	all := []KeyInfo{}
	err := pages(ctx, a, id, more, next, func(p *azkeys.KeyProperties) error {
		if p == nil {
			return nil
		}
		info, err := a.info(OpList, p.KID, p.Attributes)
		all = append(all, info)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, order)
	return all, nil
}

// ListDeleted returns the deleted keys that can be recovered, by ascending name.
func (a *Admin) ListDeleted(ctx context.Context) ([]KeyInfo, error) {
	all := []KeyInfo{}
	pager := a.keys.NewListDeletedKeyPropertiesPager(nil)
	err := pages(ctx, a, vault.KeyID{Vault: a.url}, pager.More, func(ctx context.Context) ([]*azkeys.DeletedKeyProperties, error) {
		page, err := pager.NextPage(ctx)
		return page.Value, err
	}, func(p *azkeys.DeletedKeyProperties) error {
		if p == nil {
			return nil
		}
		info, err := a.info(OpList, p.KID, p.Attributes)
		info.Deleted, info.PurgeAt = date(p.DeletedDate), date(p.ScheduledPurgeDate)
		all = append(all, info)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, byName)
	return all, nil
}

// GetDeleted returns a deleted key that can be recovered.
func (a *Admin) GetDeleted(ctx context.Context, name string) (KeyInfo, error) {
	id, err := a.own(vault.OpGet, vault.KeyID{Name: name})
	if err != nil {
		return KeyInfo{}, err
	}
	var info KeyInfo
	err = a.do(ctx, vault.OpGet, id, func(ctx context.Context) error {
		resp, err := a.keys.GetDeletedKey(ctx, name, nil)
		if err != nil {
			return err
		}
		if resp.Key == nil {
			return malformed(vault.OpGet, id, "it has no key")
		}
		info, err = a.info(vault.OpGet, resp.Key.KID, resp.Attributes)
		info.Deleted, info.PurgeAt = date(resp.DeletedDate), date(resp.ScheduledPurgeDate)
		return err
	})
	return info, err
}
