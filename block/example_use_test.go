package block_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// exampleSite is where an example lives: a directory, and a vault in memory with a key in it.
type exampleSite struct {
	dir   string
	vault *vaulttest.Vault
	key   vault.KeyID
}

func newSite() (p exampleSite, remove func()) {
	dir, err := os.MkdirTemp("", "blockseal-example-")
	if err != nil {
		log.Fatal(err)
	}
	v := vaulttest.New(nil)
	return exampleSite{dir, v, v.CreateKey("customer").Versionless()}, func() { os.RemoveAll(dir) }
}

// store opens the store of an example.
func (p exampleSite) store() *block.Store {
	s, err := block.Open(context.Background(), filepath.Join(p.dir, "store"), kek.New(p.vault, p.key), nil)
	if err != nil {
		log.Fatal(err)
	}
	return s
}

// An existing store opens without access as well, and says why it is not served.
func ExampleOpen() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	dir, key := filepath.Join(p.dir, "store"), kek.New(p.vault, p.key)

	s, err := block.Open(ctx, dir, key, nil) // creates it
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.State().Status)
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}

	p.vault.SetEnabled(p.key, false)
	s, err = block.Open(ctx, dir, key, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	fmt.Println(s.State().Status, errors.Is(s.State().Cause, vault.ErrKeyDisabled))
	// Output:
	// Available
	// Inaccessible true
}

func ExampleStore_Put() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()

	// Durable when Put returns, and sealed under a key of its own each time.
	if err := s.Put(ctx, []byte("page/1"), []byte("first")); err != nil {
		log.Fatal(err)
	}
	if err := s.Put(ctx, []byte("page/1"), []byte("second")); err != nil {
		log.Fatal(err)
	}
	data, err := s.Get(ctx, []byte("page/1"), nil)
	fmt.Println(string(data), err)
	// Output: second <nil>
}

func ExampleStore_Get() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	if err := s.Put(ctx, []byte("page/1"), []byte("data")); err != nil {
		log.Fatal(err)
	}

	buf := make([]byte, 0, 4096) // appended to, so that a reader allocates nothing
	buf, err := s.Get(ctx, []byte("page/1"), buf)
	fmt.Println(string(buf), err)
	_, err = s.Get(ctx, []byte("page/2"), buf[:0])
	fmt.Println(errors.Is(err, block.ErrNotFound))
	// Output:
	// data <nil>
	// true
}

func ExampleStore_Blocks() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	for _, id := range []string{"b/2", "a/1", "b/1"} {
		if err := s.Put(ctx, []byte(id), []byte("data of "+id)); err != nil {
			log.Fatal(err)
		}
	}

	for b, err := range s.Blocks(ctx, block.Range{Start: []byte("b/"), End: []byte("b0")}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", b.ID, b.Data)
	}
	// Output:
	// b/1: data of b/1
	// b/2: data of b/2
}

// The ids of one customer, the newest first, without opening a block.
func ExampleStore_IDs() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	for _, id := range []string{"orders/2026-11-02", "orders/2026-11-30", "people/ada", "orders/2026-10-14"} {
		if err := s.Put(ctx, []byte(id), []byte("...")); err != nil {
			log.Fatal(err)
		}
	}
	r := block.Prefix([]byte("orders/"))
	r.Reverse = true
	for id, err := range s.IDs(ctx, r) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(id))
	}
	// Output:
	// orders/2026-11-30
	// orders/2026-11-02
	// orders/2026-10-14
}

// A change that rests on what was read: who comes too late reads again.
func ExampleStore_PutIf() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	id := []byte("owner")
	fmt.Println(s.PutIf(ctx, id, nil, []byte("ada")))
	err := s.PutIf(ctx, id, nil, []byte("bob"))
	fmt.Println(errors.Is(err, block.ErrChanged))
	fmt.Println(s.PutIf(ctx, id, []byte("ada"), []byte("bob")))
	// Output:
	// <nil>
	// true
	// <nil>
}

func ExampleStore_NewBatch() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()

	b := s.NewBatch()
	defer b.Close() // nothing, after Commit
	if err := errors.Join(
		b.Put(ctx, []byte("from"), []byte("90")),
		b.Put(ctx, []byte("to"), []byte("10")),
		b.Delete(ctx, []byte("pending")),
		b.Commit(ctx), // all of it, or nothing
	); err != nil {
		log.Fatal(err)
	}
	data, err := s.Get(ctx, []byte("to"), nil)
	fmt.Println(string(data), err)
	// Output: 10 <nil>
}

func ExampleStore_Snapshot() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	if err := s.Put(ctx, []byte("page"), []byte("before")); err != nil {
		log.Fatal(err)
	}

	sn := s.Snapshot()
	defer sn.Close() // until then the engine keeps what it sees
	if err := s.Put(ctx, []byte("page"), []byte("after")); err != nil {
		log.Fatal(err)
	}
	old, err := sn.Get(ctx, []byte("page"), nil)
	fmt.Println(string(old), err)
	// Output: before <nil>
}

// A checkpoint is a store that waits for Revalidate, so that nobody serves a backup by
// mistake.
func ExampleStore_Checkpoint() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	if err := s.Put(ctx, []byte("page"), []byte("data")); err != nil {
		log.Fatal(err)
	}
	dir := filepath.Join(p.dir, "monday")
	if err := s.Checkpoint(ctx, dir); err != nil {
		log.Fatal(err)
	}

	restored, err := block.Open(ctx, dir, kek.New(p.vault, p.key), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer restored.Close()
	fmt.Println(restored.State().Status)
	if err := restored.Revalidate(ctx); err != nil {
		log.Fatal(err)
	}
	data, err := restored.Get(ctx, []byte("page"), nil)
	fmt.Println(string(data), err)
	// Output:
	// Inaccessible
	// data <nil>
}

// The way back after the key was given back, without waiting for the next check.
func ExampleStore_Revalidate() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	if err := s.Put(ctx, []byte("page"), []byte("data")); err != nil {
		log.Fatal(err)
	}

	p.vault.SetEnabled(p.key, false)
	err := s.Revalidate(ctx)
	fmt.Println(errors.Is(err, vault.ErrKeyDisabled), s.State().Status)

	p.vault.SetEnabled(p.key, true)
	if err := s.Revalidate(ctx); err != nil {
		log.Fatal(err)
	}
	data, err := s.Get(ctx, []byte("page"), nil)
	fmt.Println(string(data), err)
	// Output:
	// true Inaccessible
	// data <nil>
}

func ExampleStore_RotateKEK() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()

	next := p.vault.Rotate("customer") // in the vault, by the customer
	if err := s.RotateKEK(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.State().KEK == next)
	uses, err := s.KeyUsage(ctx) // who still needs an older version
	fmt.Println(len(uses), err)
	// Output:
	// true
	// 1 <nil>
}

func ExampleStore_Erase() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	if err := errors.Join(
		s.Put(ctx, []byte("kept"), []byte("data")),
		s.Put(ctx, []byte("forgotten"), []byte("personal data")),
		s.Delete(ctx, []byte("forgotten")),
	); err != nil {
		log.Fatal(err)
	}

	receipt, err := s.Erase(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Kept, len(receipt.Epochs), receipt.Pinned)
	// Whoever copied the files before can open them for as long as these exist.
	fmt.Println(len(receipt.Keys), receipt.Keys[0].State)
	// Output:
	// 1 1 false
	// 1 exists
}

// Blocks in the order of their ids, here those of another store, are loaded faster than they are put,
// and all at once.
func ExampleStore_Load() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	from := p.store()
	defer from.Close()
	for _, id := range []string{"a", "b", "c"} {
		if err := from.Put(ctx, []byte(id), []byte("data of "+id)); err != nil {
			log.Fatal(err)
		}
	}
	q, remove := newSite() // under another KEK
	defer remove()
	to := q.store()
	defer to.Close()

	n, err := to.Load(ctx, from.Blocks(ctx, block.Range{}))
	if err != nil {
		log.Fatal(err)
	}
	data, err := to.Get(ctx, []byte("b"), nil)
	fmt.Println(n, string(data), err)
	// Output: 3 data of b <nil>
}

// The data of a batch's blocks may be lent, so that other cores seal them meanwhile.
func ExampleBatch_PutLent() {
	ctx := context.Background()
	p, remove := newSite()
	defer remove()
	s := p.store()
	defer s.Close()
	b := s.NewBatch()
	defer b.Close()
	pages := [][]byte{[]byte("one"), []byte("two")}
	for i, page := range pages {
		if err := b.PutLent(ctx, []byte{byte(i)}, page); err != nil {
			log.Fatal(err)
		}
	}
	err := b.Commit(ctx)
	clear(pages[0]) // the caller's again
	data, _ := s.Get(ctx, []byte{0}, nil)
	fmt.Println(string(data), err)
	// Output: one <nil>
}
