// Customdb is a small database on blockseal: ordered tables with secondary indexes,
// transactions, and nothing on disk that is not sealed under the customer's key.
//
//	go run ./examples/customdb
//
// What an embedder writes is in pages.go: the database keeps B+tree pages of 4 KiB,
// each page is a block, a transaction is a batch, and a reader has a snapshot. The
// rest (node.go, tree.go, db.go, table.go) is what it would be on any storage, and
// knows of keys only that an operation can fail with block.ErrInaccessible.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// DB is a database. It is safe for concurrent use: one transaction writes at a
// time, and any number read, each the state at which it began.
type DB struct {
	pages   pages
	writing sync.Mutex
}

// Page 0 has what a transaction needs to begin: the next page id and the catalog's
// root. The catalog is a tree of the roots of all others, by name.
const metaPage pageID = 0

// OpenDB opens the database in p, which may be empty.
func OpenDB(ctx context.Context, p pages) (*DB, error) {
	db := &DB{pages: p}
	return db, db.Update(ctx, func(tx *Tx) error { return nil })
}

// Tx is a transaction. It belongs to the function that it was given to.
type Tx struct {
	ctx     context.Context
	from    snapshot // nil: the latest state
	db      *DB
	catalog tree
	next    pageID
	loaded  map[pageID]*node // decoded
	changed map[pageID]*node // to be written; nil: freed
	failed  error            // a change that was half made: there is nothing to commit
}

var errReadOnly = errors.New("customdb: a View cannot change anything")

// View runs f on the state of this moment.
func (db *DB) View(ctx context.Context, f func(tx *Tx) error) error {
	s := db.pages.snapshot()
	defer s.close()
	tx := &Tx{ctx: ctx, from: s, db: db, loaded: map[pageID]*node{}}
	if err := tx.begin(); err != nil {
		return err
	}
	return f(tx)
}

// Update runs f and makes its changes durable, all of them, if f returns nil, and
// none otherwise.
func (db *DB) Update(ctx context.Context, f func(tx *Tx) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	tx := &Tx{ctx: ctx, db: db, loaded: map[pageID]*node{}, changed: map[pageID]*node{}}
	if err := tx.begin(); err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.commit()
}

func (tx *Tx) read(id pageID) ([]byte, error) {
	if tx.from != nil {
		return tx.from.read(tx.ctx, id)
	}
	return tx.db.pages.read(tx.ctx, id)
}

func (tx *Tx) begin() error {
	meta, err := tx.read(metaPage)
	switch {
	case err != nil:
		return fmt.Errorf("customdb: begin: %w", err)
	case meta != nil:
		if len(meta) != 16 {
			return fmt.Errorf("%w: the first has %d bytes", errPage, len(meta))
		}
		tx.next = pageID(binary.BigEndian.Uint64(meta))
		tx.catalog = tree{tx, pageID(binary.BigEndian.Uint64(meta[8:]))}
	case tx.from != nil:
		return errors.New("customdb: begin: there is no database")
	default:
		tx.next = metaPage + 1
		tx.catalog = tree{tx, tx.add(new(node))}
	}
	return nil
}

func (tx *Tx) commit() error {
	if tx.failed != nil {
		return fmt.Errorf("customdb: commit: %w", tx.failed)
	}
	if len(tx.changed) == 0 {
		return nil
	}
	write := make(map[pageID][]byte, len(tx.changed)+1)
	for id, n := range tx.changed {
		write[id] = nil
		if n != nil {
			write[id] = n.encode()
		}
	}
	meta := binary.BigEndian.AppendUint64(nil, uint64(tx.next))
	write[metaPage] = binary.BigEndian.AppendUint64(meta, uint64(tx.catalog.root))
	if err := tx.db.pages.commit(tx.ctx, write); err != nil {
		return fmt.Errorf("customdb: commit: %w", err)
	}
	return nil
}

// load returns a page to look at.
func (tx *Tx) load(id pageID) (*node, error) {
	if n := tx.loaded[id]; n != nil {
		return n, nil
	}
	page, err := tx.read(id)
	if err != nil {
		return nil, fmt.Errorf("customdb: page %d: %w", id, err)
	}
	n, err := decode(page)
	if err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	tx.loaded[id] = n
	return n, nil
}

// change returns a page to change.
func (tx *Tx) change(id pageID) (*node, error) {
	if tx.changed == nil {
		return nil, errReadOnly
	}
	n, err := tx.load(id)
	if err == nil {
		tx.changed[id] = n
	}
	return n, err
}

// add makes a new page.
func (tx *Tx) add(n *node) pageID {
	id := tx.next
	tx.next++
	tx.loaded[id], tx.changed[id] = n, n
	return id
}

func (tx *Tx) free(id pageID) {
	delete(tx.loaded, id)
	tx.changed[id] = nil
}
