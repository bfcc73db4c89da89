// Package local is a key vault in a directory: RSA-2048 keys with versions, dates,
// soft delete, rotation, grants and backups, with the semantics of Azure Key Vault.
// It serves a program on one machine without a cloud, and rehearses one.
//
// Start with [OpenOrCreate] and [Administrator.EnsureKey], at the first start of a program
// and at every other; or with [Create] and [Administrator.CreateKey] once and [Open] later,
// where a vault that is not there is a mistake. A [Vault] is itself a [vault.Vault], to be
// given to kek.New:
//
//	v, err := local.OpenOrCreate("/var/lib/app/vault", passphrase, nil)
//	...
//	key, err := v.EnsureKey(ctx, "kek", nil)
//	...
//	k := kek.New(v, key.ID.Versionless())
//
// # Duties
//
// Who knows the passphrase is the vault's owner, and holds the [Vault]. From it come
// the handles of named identities, which hold what the owner has granted them, and
// nothing else: [Vault.As] the data plane (get, wrapKey, unwrapKey), and
// [Vault.Administer] the control plane (create, import, update, rotate, delete and so
// on). Grants are made by the owner alone, so that no grant leads to another. A
// change, of a grant or a key, takes effect with the next call of every handle, also in
// other processes.
//
// Identities separate the duties of parts of a program, or of people who use a tool
// that holds the passphrase for them. They are no barrier against somebody who reads
// the process's memory, or who has the passphrase.
//
// # A key's life
//
// A key is a name with versions, each an RSA-2048 key pair. (Unlike Key Vault's, names
// that differ in upper and lower case are different names.) The last version is the
// current one, and old ones go on unwrapping what they wrapped, until they are
// disabled. Dates bind wrapping and not unwrapping, as at Key Vault: see
// [Identity.UnwrapKey]. A [RotationPolicy] makes new versions when they are due. A key
// that is deleted can be recovered until it is purged, which an explicit call does or,
// when the retention is over, [Administrator.Maintain]; its name is not free before.
// [Administrator.BackupKey] is the one way out for a private
// key, encrypted under the vault's backup secret, which is what to put in escrow: see
// [Vault.EscrowBackupSecret].
//
// Times are the clock's of the machine, in whole seconds. Whoever sets the clock
// decides what is in date, and purges nothing by it: see Maintain.
//
// # Keys at rest and in memory
//
// The directory holds one file. Everything in it is encrypted and authenticated:
// private keys each under a random master key and bound to their vault, name and
// version; names, dates and grants together under the same key; the master key under
// the passphrase ([KDF]). Whoever has the directory and not the passphrase reads the
// vault's id, how often it was changed and roughly how much is in it, and can change
// nothing without the vault refusing to open ([ErrCorrupt]).
//
// What cannot be noticed is an old copy of the whole directory put in the place of the
// new one: it is a state that the vault once had, with what has been disabled, revoked
// or deleted since. An open vault notices ([ErrRolledBack]), unless the old copy has been changed more
// often since than the one it replaced; one that is opened afterwards does not. If that matters, keep [Info]'s Generation elsewhere and compare.
//
// The open vault has the master key in memory, and each private key from its first
// unwrap on; opening one anew for each unwrap would leave a set of copies in memory
// each time. A key is forgotten when it is disabled, deleted or purged, and all of them
// with [Vault.Close] and [Vault.ChangePassphrase], which overwrite the master key. Private keys that were forgotten
// stay in memory until the garbage collector gives it to something else: package
// crypto/rsa makes copies that nobody else can reach.
//
// # Several processes, and crashes
//
// Any number of processes can have a vault open. One at a time changes it, under a lock
// of the operating system on the file "lock", and others that want to wait a while
// ([Options.LockWait], [ErrLocked]). Reading takes no lock: each call looks, with one
// stat, whether the file is still the one that was read, and reads it anew if it is
// not. The file is replaced as a whole, by a rename after a sync, so that a reader and
// a crash find the old state or the new one, and never a part. The directory must be on
// a local file system: renames and locks of network file systems do not promise this.
//
// # Errors
//
// Errors of operations are a [vault.Error] and match the sentinels of package vault,
// or of this one ([ErrInvalid]) where Key Vault has none. If the file
// cannot be read, they match [vault.ErrUnavailable], which is no denial, and the
// reason. No error's text has key material, passphrases, passwords or secrets in it.
//
// # Compatibility
//
// The bytes of the vault file and of a backup are drawn in format.go, state.go,
// backup.go and escrow.go, and do not change within a format version.
package local
