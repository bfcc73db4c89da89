// Package row is what a block is in an engine: a row of a wrapped DEK record and a sealed block,
// bound to the block's id, its store and its partition. It seals and opens blocks, keeps what
// was read lately in caches, walks rows in order, reading ahead, and commits changes by the
// engine's floor.
//
// Start with [Table], which is the rows of one store. A Table holds no access of its own: each
// operation is given the hold of the keyring that it is done in.
package row
