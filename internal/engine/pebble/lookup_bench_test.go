package pebble

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkLookup is Get beside Lookup, for records of 73 bytes and blocks of 4 KiB: in
// a store that was opened after it was filled, in one as filling left it, and in the
// latter of the blocks that were put last, which are in a memtable.
func BenchmarkLookup(b *testing.B) {
	const n, newest = 20_000, 1_000
	dir := b.TempDir()
	open := func() (*DB, *Lock) {
		lock, err := LockDir(dir, vfs.Default, false)
		if err != nil {
			b.Fatal(err)
		}
		d, err := Open(dir, lock, Options{Create: true, CacheBytes: 512 << 20})
		if err != nil {
			b.Fatal(err)
		}
		return d, lock
	}
	d, lock := open()
	key := func(dst []byte, space byte, i int) []byte { // in another order than that of i
		return binary.BigEndian.AppendUint64(append(dst, space), uint64(i*7919%n))
	}
	values := map[byte][]byte{2: make([]byte, 73), 3: make([]byte, 4<<10)}
	for i := range n {
		batch := d.NewBatch()
		for space, v := range values {
			if err := batch.Set(key(nil, space, i), v); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Commit(batch, false); err != nil {
			b.Fatal(err)
		}
		batch.Close()
	}
	read := func(b *testing.B, from int, space byte, find func() (g Getter, done func())) {
		buf, dst := make([]byte, 0, 16), make([]byte, 0, 4<<10)
		for i := range 2*n + b.N {
			if i == 2*n {
				b.ResetTimer()
			}
			g, done := find()
			v, c, err := g.Get(key(buf, space, from+i%(n-from)))
			if err != nil {
				b.Fatal(err)
			}
			dst = append(dst[:0], v...)
			c.Close()
			done()
		}
	}
	for _, state := range []string{"filled", "newest", "opened"} {
		from := 0
		switch state {
		case "newest":
			from = n - newest
		case "opened":
			d.Close()
			lock.Close()
			d, lock = open()
		}
		for space, kind := range map[byte]string{2: "record", 3: "block"} {
			name := fmt.Sprintf("state=%s/kind=%s/impl=", state, kind)
			b.Run(name+"get", func(b *testing.B) {
				read(b, from, space, func() (Getter, func()) { return d, func() {} })
			})
			b.Run(name+"lookup", func(b *testing.B) {
				var r Reading
				read(b, from, space, func() (Getter, func()) {
					if l := d.Lookup(&r); l != nil {
						return l, l.Release
					}
					return d, func() {}
				})
			})
		}
	}
	d.Close()
	lock.Close()
}
