// Package block is an embedded store of encrypted blocks. Each block is sealed with its own AES-256
// key (DEK); the DEKs are kept wrapped, apart from the blocks, and open only through an RSA-2048
// key (KEK) that never leaves a vault. Revoke the KEK and the store goes Inaccessible; give it back
// and it serves again.
//
// Start with [Open], then [Store.Put] and [Store.Get]. [Store.NewBatch] groups writes,
// [Store.Blocks] walks blocks in order, [Store.Snapshot] reads the store as it was at one moment,
// [Store.Verify] authenticates everything.
//
//	k := kek.New(v, vault.KeyID{Name: "customer"})
//	s, err := block.Open(ctx, dir, k, nil)
//	err = s.Put(ctx, id, data)
//	data, err = s.Get(ctx, id, nil)
//
// What is not hidden: the ids, sizes and number of blocks, and when they change. Ids are stored as
// they are, because the store is ordered by them; a program whose ids are secret derives others
// from them, by HMAC for example. See docs/threat-model.md.
//
// # Compatibility
//
// docs/format.md fixes the layout and the records, which have versions. A release reads all
// versions before it.
package block
