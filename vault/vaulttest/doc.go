// Package vaulttest helps to test a vault and what is built on one. It is for
// tests and rehearsals: its keys are public.
//
// To test an implementation of [vault.Vault], call [Run] from a test: it checks
// everything that the interface's documentation promises. If it can also administer keys,
// call [RunAdmin], which checks what comes of making, changing, deleting and restoring
// them.
//
// To test a program that uses a vault, start with [New]: a [Vault] in memory,
// with real RSA-2048 keys and Key Vault's semantics, whose keys can be rotated,
// disabled, dated, deleted and destroyed, and whose calls can be refused,
// throttled, hung, delayed or answered wrongly ([Vault.Inject],
// [Vault.SetOutage]), by hand or on a script ([Vault.Script]).
//
// [Clock] is a clock that the test moves, for expiry without sleeping.
package vaulttest
