package vault

import "context"

// VersionLister is a [Vault] that can say which versions a key has. A store asks for that
// when it is relocated and finds neither under the version that it knows nor under the
// current one what it looks for; see keyring.Relocate. It may need a permission that a store
// does not need otherwise.
type VersionLister interface {
	// KeyVersions returns the ids of all versions of a key, complete, the oldest first and
	// the current one last. The version of id is not looked at. An error that matches
	// [errors.ErrUnsupported] says that the vault, behind whatever stands in front of it,
	// cannot say.
	KeyVersions(ctx context.Context, id KeyID) ([]KeyID, error)
}
