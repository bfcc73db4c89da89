package local

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Permission is something an identity can be granted, for all keys of the vault.
// The first three are the data plane's, [vault.OpGet] and so on; the others are
// the administrator's.
type Permission = vault.Operation

// The administrator's permissions. The values are on disk and must not change.
const (
	OpCreate  Permission = "create"  // CreateKey: new keys, and new versions of keys
	OpImport  Permission = "import"  // ImportKey and ImportBYOK
	OpUpdate  Permission = "update"  // UpdateKey and SetRotationPolicy
	OpDelete  Permission = "delete"  // DeleteKey
	OpRecover Permission = "recover" // RecoverKey
	OpPurge   Permission = "purge"   // PurgeKey
	OpBackup  Permission = "backup"  // BackupKey
	OpRestore Permission = "restore" // RestoreKey
	OpRotate  Permission = "rotate"  // RotateKey and Maintain
	OpList    Permission = "list"    // ListKeys, ListDeleted and Versions
)

// What only the owner can do has a name for errors, and no grant.
const (
	opGrant      Permission = "grant"
	opPassphrase Permission = "change the passphrase of"
	opSecret     Permission = "read the backup secret of"
	opProtect    Permission = "protect"
)

// Permissions returns all permissions.
func Permissions() []Permission { return append(DataPlane(), ControlPlane()...) }

// DataPlane returns the permissions that an [Identity] uses.
func DataPlane() []Permission {
	return []Permission{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}
}

// ControlPlane returns the permissions that an [Administrator] uses.
func ControlPlane() []Permission {
	return []Permission{OpCreate, OpImport, OpUpdate, OpDelete, OpRecover, OpPurge, OpBackup, OpRestore, OpRotate, OpList}
}

// maxIdentity bounds the name of an identity in bytes.
const maxIdentity = 127

// checkIdentity checks an identity's name: 1 to 127 bytes of printable ASCII
// without spaces and quotes, so that it stands for itself in a line of a log.
func checkIdentity(name string) error {
	if name == "" || len(name) > maxIdentity {
		return fmt.Errorf("an identity's name has 1 to %d bytes, not %d: %w", maxIdentity, len(name), ErrInvalid)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == '"' || c == '\'' || c == '\\' {
			return fmt.Errorf("an identity's name is printable ASCII without spaces, quotes and backslashes: byte %d is not: %w", i, ErrInvalid)
		}
	}
	return nil
}

// authorize checks that a caller may do op. The owner, whose name is "", may.
func (c *core) authorize(st *state, caller string, op Permission, id vault.KeyID) error {
	if caller == "" || st.granted(caller, op) {
		return nil
	}
	return &vault.Error{Op: op, Key: id, Kind: vault.ErrAccessDenied, Code: codeAccessDenied,
		Detail: fmt.Sprintf("identity %q has no grant for %s; the vault's owner can make one", caller, op)}
}

func byIdentityName(id *identity, name string) int { return strings.Compare(id.Name, name) }

func (st *state) granted(name string, op Permission) bool {
	i, ok := slices.BinarySearchFunc(st.Identities, name, byIdentityName)
	return ok && slices.Contains(st.Identities[i].Grants, op)
}

// setGrants replaces an identity's grants; without any it is gone.
func (st *state) setGrants(name string, grants []Permission) {
	i, ok := slices.BinarySearchFunc(st.Identities, name, byIdentityName)
	switch {
	case ok && len(grants) == 0:
		st.Identities = slices.Delete(st.Identities, i, i+1)
	case ok:
		st.Identities[i].Grants = grants
	case len(grants) > 0:
		st.Identities = slices.Insert(st.Identities, i, &identity{name, grants})
	}
}

func (st *state) grants(name string) []Permission {
	if i, ok := slices.BinarySearchFunc(st.Identities, name, byIdentityName); ok {
		return st.Identities[i].Grants
	}
	return nil
}

// Grant permits ops to an identity, besides what it is permitted already. It takes
// effect with the next call of every handle, in every process. An identity is a
// name of 1 to 127 printable characters; it exists while it has grants.
//
// Only the owner makes grants: no permission leads to another one.
func (v *Vault) Grant(ctx context.Context, identity string, ops ...Permission) error {
	return v.regrant(ctx, identity, ops, func(have []Permission) []Permission {
		have = append(slices.Clone(have), ops...)
		slices.Sort(have)
		return slices.Compact(have)
	})
}

// Revoke takes ops from an identity, or, without any, all that it has. It takes
// effect with the next call of every handle, in every process; a call that has
// begun may end.
func (v *Vault) Revoke(ctx context.Context, identity string, ops ...Permission) error {
	return v.regrant(ctx, identity, ops, func(have []Permission) []Permission {
		if len(ops) == 0 {
			return nil
		}
		return slices.DeleteFunc(slices.Clone(have), func(p Permission) bool { return slices.Contains(ops, p) })
	})
}

func (v *Vault) regrant(ctx context.Context, identity string, ops []Permission, change func([]Permission) []Permission) error {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if err := c.enter(ctx, opGrant, id); err != nil {
		return err
	}
	defer c.leave()
	if err := checkIdentity(identity); err != nil {
		return c.invalid(opGrant, id, err)
	}
	for _, op := range ops {
		if !slices.Contains(Permissions(), op) {
			return c.invalid(opGrant, id, fmt.Errorf("there is no permission %q", op))
		}
	}
	return c.change(ctx, opGrant, id, c.opts.LockWait, func(st *state, _ time.Time) error {
		st.setGrants(identity, change(st.grants(identity)))
		return nil
	})
}

// IdentityInfo is an identity and its grants, in ascending order.
type IdentityInfo struct {
	Name   string       `json:"name"`
	Grants []Permission `json:"grants"`
}

// Identities returns all identities that have grants, by ascending name.
func (v *Vault) Identities(ctx context.Context) ([]IdentityInfo, error) {
	c, id := v.core, vault.KeyID{Vault: v.core.name}
	if err := c.enter(ctx, OpList, id); err != nil {
		return nil, err
	}
	defer c.leave()
	st, err := c.current()
	if err != nil {
		return nil, c.unavailable(OpList, id, err)
	}
	all := make([]IdentityInfo, 0, len(st.Identities))
	for _, id := range st.Identities {
		all = append(all, IdentityInfo{id.Name, slices.Clone(id.Grants)})
	}
	return all, nil
}
