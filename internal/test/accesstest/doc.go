// Package accesstest runs scripts that read as documentation of what a store does
// when access to its key is taken away and given back: one file for each way, in
// scripts/, against any vault that can be made to behave that way.
//
// Start with [Run], from a test, and with [RunAdministration] for what a vault's
// administrators do. A script is lines of words; what follows a "#" is
// a comment. A line that begins with the name of a world in brackets, such as
// [local], is for that world alone. The commands:
//
//	option ManualRevalidation     for the opens that follow; also RequireAccess, ReadOnly,
//	                              PinVersion, Lease=D, and "option default" for none
//	open NAME                     opens the store in directory NAME, and closes the one that was open
//	open NAME refused ERR         the open fails
//	close
//	put ID DATA                   stores a block; with "refused ERR" at the end it must fail;
//	                              every script begins by putting a block named a
//	get ID = DATA                 reads a block, whole and right
//	get ID refused ERR            reads nothing, and the error is ErrInaccessible and ERR
//	reason "TEXT"                 what a Get of block a says, in full
//	state STATUS [ERR]            the status, and its cause
//	revalidate ok                 asks the vault now; or: refused ERR
//	checkpoint NAME               makes a copy
//	advance D                     lets time pass, five seconds at a time; at once while no
//	                              store is open
//	step D                        moves the wall clock alone, also back
//	vault VERB [ARG...]           changes something at the vault; see [World]. With
//	                              "refused ERR" at the end the vault says no
//	told EVENT...                 what the vault has reported by itself since the last time,
//	                              in order, each once for each time; "told nothing" for none
//
// D is a duration of package time, which may begin with days: 7d, 6d23h. ERR is the name of a sentinel of package vault, keyring or block. In a reason,
// <key> stands for the key's id without its version, <version> for a version, <since> for
// the time at which the state began, and <assumed> for what a refusal for a date says of the
// time that was assumed, by a clock that nothing is wrong with.
//
// After every step of an advance, besides what the script says, block a is read: that
// must succeed if and only if the state says that the store serves, and it must
// never serve later than the lease after the last unwrap that succeeded.
package accesstest
