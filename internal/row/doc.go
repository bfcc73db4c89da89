// Package row stores a block in an engine as a row: a DEK record and a sealed block, both bound to
// the block's id, its store and its partition. The package seals and opens blocks, caches what was
// read lately, walks rows in order, reads ahead, and commits batches by the engine's floor.
//
// Start with [Table], which is the rows of one store. A Table has no access of its own: each
// operation runs in a hold that its caller passes in.
package row
