package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// Table is a table of rows, ordered by key, with indexes. No name has a slash.
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

// rows returns the tree of a table's rows.
func (tx *Tx) rows(t Table) (rows tree, found bool, err error) {
	if err := checkName(t.Name); err != nil {
		return rows, false, err
	}
	return tx.tree(t.Name)
}

func (i Index) tree(t Table) string { return t.Name + "/" + i.Name }

// checkName refuses a name that could be taken for a table's and an index's.
func checkName(name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("customdb: the name %q has a slash", name)
	}
	return nil
}

// entry is an index's key for a row: the indexed value, its end marked so that the
// order of entries is that of values and then keys, and the row's key.
func entry(value, key []byte) []byte {
	e := bytes.ReplaceAll(value, []byte{0}, []byte{0, 0xff})
	return append(append(e, 0, 1), key...)
}

// Get returns the row with the given key, or nil. It is valid until the end of the
// transaction.
func (tx *Tx) Get(t Table, key []byte) ([]byte, error) {
	rows, found, err := tx.rows(t)
	if err != nil || !found {
		return nil, err
	}
	return rows.get(key)
}

// Put sets the row with the given key; row must not be nil. A row that is refused, for
// its size or that of what an index makes of it, changes nothing. An error of the store
// in the middle spoils the transaction, and Update returns it.
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
	// All that can be refused is refused before anything is changed: who handles the
	// error commits a row and indexes that agree.
	old, now := make([][]byte, len(t.Indexes)), make([][]byte, len(t.Indexes))
	for n, i := range t.Indexes {
		if err := checkName(i.Name); err != nil {
			return err
		}
		old[n], now[n] = of(i, was), of(i, row)
		if len(now[n]) > MaxEntry/4 {
			return fmt.Errorf("customdb: index %s: a value of %d bytes, the most is %d", i.tree(t), len(now[n]), MaxEntry/4)
		}
	}
	if err := tx.replace(t, key, row, old, now); err != nil {
		tx.failed = fmt.Errorf("a row and its indexes may not agree: %w", err)
		return err
	}
	return nil
}

// replace sets a row, or deletes it, and moves the entries of the indexes from their old
// values to those that they have now.
func (tx *Tx) replace(t Table, key, row []byte, old, now [][]byte) error {
	for n, i := range t.Indexes {
		if (old[n] == nil) == (now[n] == nil) && bytes.Equal(old[n], now[n]) {
			continue
		}
		if err := tx.on(i.tree(t), func(index tree) (_ tree, err error) {
			if old[n] != nil {
				if index, err = index.delete(entry(old[n], key)); err != nil {
					return index, err
				}
			}
			if now[n] != nil {
				return index.put(entry(now[n], key), nil)
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

// Scan calls f for the rows from a key on, in order, until f returns false. f must not
// change the table: rows would be left out, or come twice.
func (tx *Tx) Scan(t Table, from []byte, f func(key, row []byte) bool) error {
	rows, found, err := tx.rows(t)
	if err != nil || !found {
		return err
	}
	return rows.walk(from, f)
}

// Lookup calls f for the rows for which the index has the given value, in the order
// of their keys, until f returns false. f must not change the table.
func (tx *Tx) Lookup(t Table, index string, value []byte, f func(key, row []byte) bool) error {
	if err := checkName(index); err != nil {
		return err
	}
	if err := checkName(t.Name); err != nil {
		return err
	}
	entries, found, err := tx.tree(Index{Name: index}.tree(t))
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
