package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Table is a table of rows, ordered by key, with indexes.
type Table struct {
	Name    string
	Indexes []Index
}

// Index finds rows by what Of makes of them; nil leaves a row out. Of must always
// make the same of the same row.
type Index struct {
	Name string
	Of   func(row []byte) []byte
}

// tree returns a tree by name. A transaction that writes makes one that is missing.
func (tx *Tx) tree(name string) (t tree, found bool, err error) {
	root, err := tx.catalog.get([]byte(name))
	if err != nil {
		return t, false, err
	}
	if root != nil {
		return tree{tx, pageID(binary.BigEndian.Uint64(root))}, true, nil
	}
	if tx.changed == nil {
		return t, false, nil
	}
	t = tree{tx, tx.add(new(node))}
	return t, true, tx.name(name, t)
}

// name records the root of a tree.
func (tx *Tx) name(name string, t tree) (err error) {
	tx.catalog, err = tx.catalog.put([]byte(name), binary.BigEndian.AppendUint64(nil, uint64(t.root)))
	return err
}

// on changes the tree with the given name by f.
func (tx *Tx) on(name string, f func(tree) (tree, error)) error {
	if tx.changed == nil {
		return errReadOnly
	}
	was, _, err := tx.tree(name)
	if err != nil {
		return err
	}
	is, err := f(was)
	if err != nil || is.root == was.root {
		return err
	}
	return tx.name(name, is)
}

func (i Index) tree(t Table) string { return t.Name + "/" + i.Name }

// entry is an index's key for a row: the indexed value, its end marked so that the
// order of entries is that of values and then keys, and the row's key.
func entry(value, key []byte) []byte {
	e := bytes.ReplaceAll(value, []byte{0}, []byte{0, 0xff})
	return append(append(e, 0, 1), key...)
}

// Get returns the row with the given key, or nil. It is valid until the end of the
// transaction.
func (tx *Tx) Get(t Table, key []byte) ([]byte, error) {
	rows, found, err := tx.tree(t.Name)
	if err != nil || !found {
		return nil, err
	}
	return rows.get(key)
}

// Put sets the row with the given key; row must not be nil.
func (tx *Tx) Put(t Table, key, row []byte) error {
	if n := len(key) + len(row); n > MaxEntry {
		return fmt.Errorf("customdb: a row of %d bytes with its key, the most is %d", n, MaxEntry)
	}
	return tx.set(t, key, row)
}

// Delete removes the row with the given key, if there is one.
func (tx *Tx) Delete(t Table, key []byte) error { return tx.set(t, key, nil) }

// set replaces a row, and with it what the indexes say.
func (tx *Tx) set(t Table, key, row []byte) error {
	if tx.changed == nil {
		return errReadOnly
	}
	was, err := tx.Get(t, key)
	if err != nil || was == nil && row == nil {
		return err
	}
	for _, i := range t.Indexes {
		if err := tx.on(i.tree(t), func(index tree) (_ tree, err error) {
			old, now := of(i, was), of(i, row)
			if old != nil && now != nil && bytes.Equal(old, now) {
				return index, nil
			}
			if old != nil {
				if index, err = index.delete(entry(old, key)); err != nil {
					return index, err
				}
			}
			if now != nil {
				if len(now) > MaxEntry/4 {
					return index, fmt.Errorf("customdb: index %s: a value of %d bytes, the most is %d", i.tree(t), len(now), MaxEntry/4)
				}
				return index.put(entry(now, key), nil)
			}
			return index, nil
		}); err != nil {
			return err
		}
	}
	return tx.on(t.Name, func(rows tree) (tree, error) {
		if row == nil {
			return rows.delete(key)
		}
		return rows.put(key, row)
	})
}

func of(i Index, row []byte) []byte {
	if row == nil {
		return nil
	}
	return i.Of(row)
}

// Scan calls f for the rows from a key on, in order, until f returns false.
func (tx *Tx) Scan(t Table, from []byte, f func(key, row []byte) bool) error {
	rows, found, err := tx.tree(t.Name)
	if err != nil || !found {
		return err
	}
	return rows.walk(from, f)
}

// Lookup calls f for the rows for which the index has the given value, in the order
// of their keys, until f returns false.
func (tx *Tx) Lookup(t Table, index string, value []byte, f func(key, row []byte) bool) error {
	entries, found, err := tx.tree(t.Name + "/" + index)
	if err != nil || !found {
		return err
	}
	prefix, failed := entry(value, nil), error(nil)
	err = entries.walk(prefix, func(e, _ []byte) bool {
		key, mine := bytes.CutPrefix(e, prefix)
		if !mine {
			return false
		}
		row, err := tx.Get(t, key)
		if err != nil {
			failed = err
			return false
		}
		return f(key, row)
	})
	if err == nil {
		err = failed
	}
	return err
}
