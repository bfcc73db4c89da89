package vaulttest

import (
	"context"
	"crypto/rsa"
	"testing"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// AdminSubject is the control plane of a vault under test, and its data plane, through
// which the suite sees what came of a change. The vault has no key yet. Each part of the
// suite that needs a function that is nil is left out, and [RunAdmin] logs which.
//
// The functions are an administrator's methods, as far as it has them, with an error if
// they did not do as asked. That of a refusal matches the sentinel of package vault that
// says why, and names the key.
type AdminSubject struct {
	// Vault uses the keys: its caller may get, wrap and unwrap.
	Vault vault.Vault

	// Now is the vault's clock, for the dates given to Update. The default is the
	// system's.
	Now func() time.Time

	// Create makes a key, which permits wrapKey and unwrapKey, is enabled and has no dates.
	// With newVersion it makes a new current version of a key that exists.
	Create func(ctx context.Context, name string, newVersion bool) (vault.Key, error)
	// Import is Create with a key pair that was made elsewhere.
	Import func(ctx context.Context, name string, key *rsa.PrivateKey, newVersion bool) (vault.Key, error)
	// Ensure returns the current version of a key, which it makes if there is none.
	Ensure func(ctx context.Context, name string) (vault.Key, error)
	// Rotate makes a new current version of a key that exists.
	Rotate func(ctx context.Context, name string) (vault.Key, error)
	// Update changes properties of one version, or of the current one.
	Update func(ctx context.Context, id vault.KeyID, u AdminUpdate) (vault.Key, error)

	// Delete deletes a key with all its versions, softly; Recover undoes that; Purge
	// removes a deleted key for good. A vault without soft delete has Purge alone, which
	// removes a key at once.
	Delete  func(ctx context.Context, name string) error
	Recover func(ctx context.Context, name string) (vault.Key, error)
	Purge   func(ctx context.Context, name string) error

	// Backup returns a key with all its versions, encrypted; Restore puts one back under
	// its name, which must be free.
	Backup  func(ctx context.Context, name string) ([]byte, error)
	Restore func(ctx context.Context, backup []byte) (vault.Key, error)

	// Keys lists the names of the keys that are not deleted, Deleted those of the keys
	// that can be recovered, and Versions all versions of a key, complete; each in any
	// order, and over all pages.
	Keys     func(ctx context.Context) ([]string, error)
	Deleted  func(ctx context.Context) ([]string, error)
	Versions func(ctx context.Context, name string) ([]vault.KeyID, error)

	// Many is how many keys and versions the suite makes to list them: more than a page
	// has, so that there are several. The default is 30; a page of Key Vault has 25.
	Many int
}

// AdminUpdate is a change of a version's properties. What is nil stays as it is; a date
// is in whole seconds, and a zero one is to be unset.
type AdminUpdate struct {
	Enabled            *bool
	NotBefore, Expires *time.Time
}

// RunAdmin checks that the control plane of a vault does what package vault's users
// depend on: keys that it makes can be used, and none is made over another, changes take effect at once and change
// nothing else, what is deleted is refused and can be had back, what is purged cannot,
// backups bring everything back, lists leave nothing out, and a refusal changes nothing.
// It is for vaults that can administer keys, beside [Run], which is for all.
//
// newVault is called for each part of the suite, and makes a vault without keys that no
// other part has touched; t.Cleanup is where it is taken down. The suite makes about 110
// key versions in all, most of them by Import if there is one. Imported key pairs are
// public: they are in this package's source.
func RunAdmin(t *testing.T, newVault func(t *testing.T) AdminSubject) {
	t.Helper()
	offered := newVault(t)
	for _, p := range adminSuite() {
		if missing := p.missing(offered); missing != "" {
			t.Logf("left out: %s (AdminSubject.%s is nil)", p.name, missing)
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			p.check(newAdminRun(t, newVault(t)))
		})
	}
}

// adminPart is one part of the suite for administrators.
type adminPart struct {
	name  string
	needs []string // names of functions
	check func(*adminRun)
}

// adminSuite lists the parts in the order in which they run.
func adminSuite() []adminPart {
	return []adminPart{
		{"a created key can be used", []string{"Create"}, checkCreate},
		{"a created version is the current one", []string{"Create"}, checkCreateVersion},
		{"a key is not made where there is one", []string{"Create"}, checkCreateTaken},
		{"a new version is of a key that exists", []string{"Create"}, checkVersionOfNone},
		{"a key that is ensured is made once", []string{"Create", "Ensure"}, checkEnsure},
		{"a rotated key keeps its old versions", []string{"Create", "Rotate"}, checkRotated},
		{"an imported key is the one that was given", []string{"Import"}, checkImport},
		{"an import of an unfit key leaves nothing", []string{"Import"}, checkImportUnfit},
		{"one version is disabled and enabled", []string{"Create", "Update"}, checkEnabled},
		{"dates are set", []string{"Create", "Update"}, checkDatesSet},
		{"dates are unset", []string{"Create", "Update"}, checkDatesUnset},
		{"what is not named in an update stays", []string{"Create", "Update"}, checkUpdateKeeps},
		{"a deleted key is gone", []string{"Create", "Delete"}, checkAdminDelete},
		{"a deleted key's name is taken", []string{"Create", "Delete"}, checkDeletedName},
		{"a recovered key is as it was", []string{"Create", "Update", "Delete", "Recover"}, checkAdminRecover},
		{"a purge is for good", []string{"Create", "Purge"}, checkAdminPurge},
		{"a key that is not deleted is not purged", []string{"Create", "Delete", "Purge"}, checkPurgeInUse},
		{"a backup brings all versions back", []string{"Create", "Update", "Purge", "Backup", "Restore"}, checkBackup},
		{"a restore replaces nothing", []string{"Create", "Backup", "Restore"}, checkRestoreOver},
		{"an altered backup is refused", []string{"Create", "Purge", "Backup", "Restore", "Keys"}, checkBackupAltered},
		{"a backup holds no key in the clear", []string{"Import", "Backup"}, checkBackupClear},
		{"every key is listed", []string{"Create", "Keys"}, checkKeys},
		{"every deleted key is listed", []string{"Create", "Delete", "Recover", "Keys", "Deleted"}, checkDeletedKeys},
		{"every version is listed", []string{"Create", "Versions"}, checkVersions},
		{"an unknown key is not found", nil, checkAdminUnknown},
		{"an ended context changes nothing", []string{"Create"}, checkAdminContext},
		{"changes at the same time are all made", []string{"Create", "Versions"}, checkAdminConcurrent},
	}
}

// missing returns the first function that p needs and s has not, or "".
func (p adminPart) missing(s AdminSubject) string {
	have := map[string]bool{
		"Create": s.Create != nil, "Import": s.Import != nil, "Ensure": s.Ensure != nil, "Rotate": s.Rotate != nil, "Update": s.Update != nil,
		"Delete": s.Delete != nil, "Recover": s.Recover != nil, "Purge": s.Purge != nil,
		"Backup": s.Backup != nil, "Restore": s.Restore != nil,
		"Keys": s.Keys != nil, "Deleted": s.Deleted != nil, "Versions": s.Versions != nil,
	}
	for _, need := range p.needs {
		if !have[need] {
			return need
		}
	}
	return ""
}
