// Package audit records every operation on a vault: when, who, which operation
// on which key version, with what outcome and why, how long it took, for which
// store. It never records key material, secrets or ciphertexts.
//
// Start with a [Log]: [OpenDir] keeps one in a directory of files that follow
// one another, [NewLog] writes one to any io.Writer, [NewHandlerLog] to a
// slog.Handler. Then [New] makes a vault that does what another vault does, and
// records it:
//
//	log, err := audit.OpenDir("/var/log/app/audit", nil)
//	...
//	v := audit.New(inner, log, &audit.Options{Identity: "ingest", FailClosed: true})
//	k := kek.New(v, id)
//
// [NewAdministrator] records what no vault.Vault does: the making of keys, grants, a
// passphrase's change.
//
// # What the chain proves
//
// Each record holds the SHA-256 of the record before it, so that [Verify] finds
// every record that was edited, inserted, removed or moved. A hash chain is not
// a signature: whoever may write to the log can also rewrite all of it, hashes
// included, or cut off its end, or put another log in its place, and what is left
// is a chain without a flaw. That is found only with a [Head] that was kept where
// the writer of the log cannot change it. It says of which log it is, by an identity
// ([LogID]) that is drawn at random and stands in each of a log's records. Read
// [Log.Head] from time to time, keep it elsewhere (in another system's log, on
// paper), and give it to Verify.
//
// The chain has no key on purpose. The program that writes the log would hold
// it, and so would whoever took over that program; a head kept elsewhere holds
// against them too.
//
// # When the log cannot be written
//
// With [Options.FailClosed] nothing leaves the vault unrecorded: the record must
// be written, and synced if the log's writer can do that, before the caller is
// given the result; else the result is destroyed and the caller is told that
// the vault is unavailable. Without it the operation goes on. A change of a vault
// cannot be withheld once it was made; see [Administrator.Do].
//
// Either way a record that cannot be written is kept in memory, up to 64 KiB of
// them, and written, in order, when the log can be written again. Beyond that
// records are lost: [Log.Stats] counts them, and the log itself says how many,
// where they would have been.
package audit
