package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	pageSize = 4096 // a page that grows beyond it is split
	// MaxEntry bounds a key and its value together in bytes, so that each half of a
	// page that is split has entries.
	MaxEntry = pageSize / 4
)

var errPage = errors.New("customdb: damaged page")

// node is a page of a B+tree, decoded. A leaf has a value for each key; an inner
// node has one child more than keys, and child i has the keys below key i.
//
//	leaf:  0 | uvarint count | count x (uvarint size, key, uvarint size, value)
//	inner: 1 | uvarint count | uvarint child | count x (uvarint size, key, uvarint child)
type node struct {
	keys   [][]byte
	values [][]byte
	kids   []pageID // nil: a leaf
}

func (n *node) leaf() bool { return n.kids == nil }

// find returns the place of a key, and whether it is there.
func (n *node) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(n.keys, key, bytes.Compare)
}

// kid returns the place of the child that has a key. A key that separates two
// children is the least of the right one.
func (n *node) kid(key []byte) int {
	i, found := n.find(key)
	if found {
		i++
	}
	return i
}

func (n *node) encode() []byte {
	page := make([]byte, 1, pageSize)
	page = binary.AppendUvarint(page, uint64(len(n.keys)))
	if !n.leaf() {
		page[0] = 1
		page = binary.AppendUvarint(page, uint64(n.kids[0]))
	}
	for i, key := range n.keys {
		page = append(binary.AppendUvarint(page, uint64(len(key))), key...)
		if n.leaf() {
			page = append(binary.AppendUvarint(page, uint64(len(n.values[i]))), n.values[i]...)
		} else {
			page = binary.AppendUvarint(page, uint64(n.kids[i+1]))
		}
	}
	return page
}

// size is about what encode returns.
func (n *node) size() int {
	size := 16 * (1 + len(n.keys))
	for i, key := range n.keys {
		size += len(key)
		if n.leaf() {
			size += len(n.values[i])
		}
	}
	return size
}

// decode reads a page. Its bytes were authenticated, so that an error here is a
// fault of this program.
func decode(page []byte) (*node, error) {
	rest, bad := page, false
	number := func() uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			bad = true
			return 0
		}
		rest = rest[n:]
		return v
	}
	text := func() []byte {
		size := number()
		if size > uint64(len(rest)) {
			bad = true
			return nil
		}
		var b []byte
		b, rest = rest[:size:size], rest[size:]
		return b
	}
	if len(page) < 2 || page[0] > 1 {
		return nil, fmt.Errorf("%w: it has %d bytes and no known kind", errPage, len(page))
	}
	inner := page[0] == 1
	rest = page[1:]
	n, count := new(node), number()
	if inner {
		n.kids = append(n.kids, pageID(number()))
	}
	for range count {
		n.keys = append(n.keys, text())
		if inner {
			n.kids = append(n.kids, pageID(number()))
		} else {
			n.values = append(n.values, text())
		}
		if bad {
			break
		}
	}
	if bad || len(rest) > 0 {
		return nil, errPage
	}
	return n, nil
}

// split moves the upper half of n to a new node, and returns that and the key that
// separates the two.
func (n *node) split() (separator []byte, right *node) {
	half, size := 0, 0
	for total := n.size(); size < total/2 && half < len(n.keys)-1; half++ {
		size += 16 + len(n.keys[half])
		if n.leaf() {
			size += len(n.values[half])
		}
	}
	half = max(half, 1)
	right = new(node)
	if n.leaf() {
		right.keys, right.values = slices.Clone(n.keys[half:]), slices.Clone(n.values[half:])
		n.keys, n.values = n.keys[:half:half], n.values[:half:half]
		return right.keys[0], right
	}
	separator = n.keys[half]
	right.keys, right.kids = slices.Clone(n.keys[half+1:]), slices.Clone(n.kids[half+1:])
	n.keys, n.kids = n.keys[:half:half], n.kids[:half+1:half+1]
	return separator, right
}
