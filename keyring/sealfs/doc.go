// Package sealfs is an authenticated, encrypting file system under a keyring: a [vfs.FS] for a
// whole Pebble v2, whose tables, blob files, logs, manifests and options are sealed, and files of
// pages for everything else that reads and writes at random places.
//
// Start with [New], and give the [FS] to Pebble as Options.FS; or open one file of pages with
// [FS.OpenFile]. Beneath is any other vfs.FS, such as vfs.Default. [SealDir] seals the directory of a Pebble
// that is there already.
//
//	vault     KEK         wraps the keyring document
//	keyring   epoch key   wraps the DEK of each file
//	sealfs    DEK         one a file, in its head; seals what is in the file
//
// Each file has a DEK of its own, whose record lies in the file's head. So a file can be renamed,
// linked and put into a checkpoint as any other, and no registry of keys can be lost or be behind.
//
// # What is on disk
//
// Three layouts, see [Layout]: logs are frames, each sealed when it is written; files that are
// written once are chunks; files of pages are rewritten in place. docs/format.md, section 14, has
// the bytes. All of it is AES-256-GCM with random nonces. Files that are empty by their meaning
// (Pebble's markers, LOCK) stay as they are. Names, sizes and times are not hidden.
//
// # What is found
//
// Altered, exchanged and replayed parts of a file, files that are cut off or longer than they were,
// files in each other's places, files of another keyring. What is not found: an older version of a
// whole file in its place; an older version of one page, or of the size of a file of pages, in its
// place; a log that is cut between two frames that were the last; files that are missing; two files of one name, from two directories of
// one keyring, exchanged. So each database has a keyring of its own.
//
// # When access ends
//
// No byte is opened or sealed without a hold of the keyring (keyring.Keyring.Acquire). Reads fail
// with an error that matches keyring.ErrInaccessible. Writes of Pebble's files wait until access is
// back, because Pebble ends the process when its log cannot be written, and also while a vault or a storage
// that has to be asked for a DEK does not answer; see [NoAccess], and [FS.Stop] for a way out. What Pebble has in its block cache and its memtables is in its memory meanwhile, in
// clear, and read without asking this package: a program that promises that nothing is read after a
// key was taken away closes its database, or wraps its own operations in keyring.Keyring.Acquire.
//
// # One process
//
// An FS expects that nobody else writes its directories, which Pebble's own lock sees to.
package sealfs
