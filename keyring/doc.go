// Package keyring is the layer between one key encryption key (KEK) in a vault
// and many data encryption keys (DEKs): epoch keys that wrap DEKs, one document
// that holds the epoch keys wrapped by the KEK, and the lease that decides from
// moment to moment whether any of it may be used.
//
//	vault     KEK         RSA-2048; wraps the keyring document, one call whatever the data
//	keyring   epoch keys  AES-256; a new one by count, by age or on request; wrap each DEK
//	dek       DEK         AES-256; seals one version of one block
//
// Start with [Create] the first time and [Open] from then on, or with [OpenOrCreate]
// each time. [Keyring.NewDEK]
// makes a key for a block and [Keyring.OpenDEK] opens it again; the wrapped DEK
// is for the caller to keep, apart from the block. A database that wants its own
// operations to end when access ends wraps them in [Keyring.Acquire].
//
// # How keys live
//
// Epoch keys are in memory only while a lease holds. A check every minute asks
// the vault for the key's properties, a wrap and an unwrap of the keyring's own
// secret; only that unwrap renews the lease, which ends 10 minutes later. If the
// vault says no, the keyring locks at once; if it does not answer, the keyring
// locks when the lease ends. Locking waits for the operations in flight, lets
// none start, and destroys the epoch keys. See [Status].
//
// # Rotating epochs
//
// Epochs begin by themselves, by count and by age; what an old one wrapped stays as it is.
// [Keyring.RotateEpoch] begins one, has the caller's records rewrapped, each a few microseconds and
// no call to the vault, and destroys the keys of the epochs before, so that nothing opens any
// more what was deleted or overwritten until then, in no copy of the data.
//
// # Several keyrings on one document
//
// Any number of keyrings, in one process or in many, may have one document, as in a
// [FileStorage]: they are one instance, with one line of documents, each saved by a
// compare-and-swap. What one changes the others take up when they need it, and at their next
// check at the latest; what cannot be taken up keeps a lease from being extended. Epochs are
// counted once for all. So one lease after a change, and the time of a check, no keyring goes
// by what was before it. A [Storage] says what that takes of it.
//
// # What stays compatible
//
// The document and the wrapped DEK are fixed in docs/format.md and carry a
// version. A release reads all versions before it.
package keyring
