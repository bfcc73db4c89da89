package main

import (
	"bytes"
	"slices"
)

// tree is a B+tree in a transaction, named by its root page.
type tree struct {
	tx   *Tx
	root pageID
}

// get returns the value of a key, or nil.
func (t tree) get(key []byte) ([]byte, error) {
	for id := t.root; ; {
		n, err := t.tx.load(id)
		if err != nil {
			return nil, err
		}
		if n.leaf() {
			if i, found := n.find(key); found {
				return n.values[i], nil
			}
			return nil, nil
		}
		id = n.kids[n.kid(key)]
	}
}

// put sets a key, and returns the tree, whose root is another one if it grew.
func (t tree) put(key, value []byte) (tree, error) {
	separator, right, err := t.insert(t.root, bytes.Clone(key), bytes.Clone(value))
	if err != nil || right == 0 {
		return t, err
	}
	root := t.tx.add(&node{keys: [][]byte{separator}, kids: []pageID{t.root, right}})
	return tree{t.tx, root}, nil
}

// insert sets a key below a page. If the page was split it returns the new page to
// the right of it, and the key between the two.
func (t tree) insert(id pageID, key, value []byte) (separator []byte, right pageID, err error) {
	n, err := t.tx.change(id)
	if err != nil {
		return nil, 0, err
	}
	if n.leaf() {
		i, found := n.find(key)
		if found {
			n.values[i] = value
		} else {
			n.keys, n.values = slices.Insert(n.keys, i, key), slices.Insert(n.values, i, value)
		}
	} else {
		i := n.kid(key)
		separator, right, err := t.insert(n.kids[i], key, value)
		if err != nil {
			return nil, 0, err
		}
		if right != 0 {
			n.keys, n.kids = slices.Insert(n.keys, i, separator), slices.Insert(n.kids, i+1, right)
		}
	}
	if n.size() <= pageSize {
		return nil, 0, nil
	}
	separator, half := n.split()
	return separator, t.tx.add(half), nil
}

// delete removes a key, and returns the tree. Pages that become empty are freed;
// others are not merged.
func (t tree) delete(key []byte) (tree, error) {
	if _, err := t.remove(t.root, key); err != nil {
		return t, err
	}
	for { // a root with one child is no use
		n, err := t.tx.load(t.root)
		if err != nil || n.leaf() || len(n.kids) > 1 {
			return t, err
		}
		t.tx.free(t.root)
		t.root = n.kids[0]
	}
}

// remove removes a key below a page, and reports whether the page is empty.
func (t tree) remove(id pageID, key []byte) (empty bool, err error) {
	n, err := t.tx.change(id)
	if err != nil {
		return false, err
	}
	if n.leaf() {
		if i, found := n.find(key); found {
			n.keys, n.values = slices.Delete(n.keys, i, i+1), slices.Delete(n.values, i, i+1)
		}
		return len(n.keys) == 0, nil
	}
	i := n.kid(key)
	gone, err := t.remove(n.kids[i], key)
	if err != nil || !gone || len(n.kids) == 1 {
		return false, err
	}
	t.tx.free(n.kids[i])
	n.kids = slices.Delete(n.kids, i, i+1)
	j := max(i-1, 0) // the key on one side of the child
	n.keys = slices.Delete(n.keys, j, j+1)
	return false, nil
}

// walk calls f for the keys from a key on, in order, until f returns false.
func (t tree) walk(from []byte, f func(key, value []byte) bool) error {
	_, err := t.walkPage(t.root, from, f)
	return err
}

func (t tree) walkPage(id pageID, from []byte, f func(key, value []byte) bool) (more bool, err error) {
	n, err := t.tx.load(id)
	if err != nil {
		return false, err
	}
	if n.leaf() {
		i, _ := n.find(from)
		for ; i < len(n.keys); i++ {
			if !f(n.keys[i], n.values[i]) {
				return false, nil
			}
		}
		return true, nil
	}
	for _, kid := range n.kids[n.kid(from):] {
		if more, err := t.walkPage(kid, from, f); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
