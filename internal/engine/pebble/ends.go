package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ends are a table's first and last key in Pebble's order. Each is the key that was set and, behind it
// in 8 bytes, little endian, its trailer: the number of the change times 256 plus the change's kind
// (pebble/internal/base/internal.go).
type ends struct{ first, last []byte }

const trailerLen = 8

func cutTrailer(k []byte) (key []byte, trailer uint64) {
	if len(k) < trailerLen {
		return nil, 0
	}
	n := len(k) - trailerLen
	return k[:n], binary.LittleEndian.Uint64(k[n:])
}

// from makes a key the first one if it comes before the one that is, and to the last one if it
// comes after. Of changes of one key the newest comes first.
func (e *ends) from(key []byte, trailer uint64) {
	if first, t := cutTrailer(e.first); e.first == nil || bytes.Compare(key, first) < 0 || bytes.Equal(key, first) && trailer > t {
		e.first = binary.LittleEndian.AppendUint64(bytes.Clone(key), trailer)
	}
}

func (e *ends) to(key []byte, trailer uint64) {
	if last, t := cutTrailer(e.last); e.last == nil || bytes.Compare(key, last) > 0 || bytes.Equal(key, last) && trailer < t {
		e.last = binary.LittleEndian.AppendUint64(bytes.Clone(key), trailer)
	}
}

// are reports whether a table with these ends may be the one that the MANIFEST has with want. A
// table that was ingested has 0 for the numbers that the MANIFEST gives its changes.
func (e ends) are(want ends) bool {
	same := func(have, want []byte) bool {
		key, trailer := cutTrailer(have)
		wantKey, wantTrailer := cutTrailer(want)
		return bytes.Equal(key, wantKey) && (trailer>>8 == 0 || trailer == wantTrailer)
	}
	return same(e.first, want.first) && same(e.last, want.last)
}

// tableEnds reads a table's ends: its footer, its index and a block at each end. A deletion of a
// range of keys ends before the first key that it leaves, which is an end then.
func tableEnds(fs vfs.FS, path string, o sstable.ReaderOptions) (e ends, err error) {
	f, err := fs.Open(path)
	if err != nil {
		return ends{}, err
	}
	file, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return ends{}, errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(context.Background(), file, o)
	if err != nil {
		return ends{}, errors.Join(err, file.Close())
	}
	defer r.Close()
	// Where the value lies in a blob file, no more than the key is looked at.
	keys, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.DebugHandlesBlobContext)
	if err != nil {
		return ends{}, err
	}
	defer keys.Close()
	if kv := keys.First(); kv != nil {
		e.from(kv.K.UserKey, uint64(kv.K.Trailer))
	}
	if kv := keys.Last(); kv != nil {
		e.to(kv.K.UserKey, uint64(kv.K.Trailer))
	}
	if err := keys.Error(); err != nil {
		return ends{}, err
	}
	ranges, err := r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil || ranges == nil {
		return e, err
	}
	defer ranges.Close()
	if span, err := ranges.First(); err != nil {
		return ends{}, err
	} else if span != nil {
		k := span.SmallestKey()
		e.from(k.UserKey, uint64(k.Trailer))
	}
	if span, err := ranges.Last(); err != nil {
		return ends{}, err
	} else if span != nil {
		k := span.LargestKey()
		e.to(k.UserKey, uint64(k.Trailer))
	}
	return e, nil
}

// readers look at tables at a time: most of that is waiting for the disk.
const readers = 8

// ends finds tables that stand in another one's place: an exchange of files that have one size, by
// whoever restored them. Such a table hides what it does not have, and Pebble ends the process when it
// compacts a table whose keys are not where the MANIFEST has them. To look costs 40 µs for a table, of
// which a store has one for each 26 MB. After a Close, the list has vouched for the MANIFEST, and only
// those are looked at that have the size of another. A table that cannot be read is not judged here:
// whoever reads it is told, and the others stay in use.
func (s *survey) ends(m *manifest) {
	ofSize := map[uint64]int{}
	for _, t := range m.tables {
		ofSize[t.size]++
	}
	numbers := slices.DeleteFunc(slices.Sorted(maps.Keys(m.tables)), func(n uint64) bool {
		return s.want.Phase == Closed && ofSize[m.tables[n].size] == 1
	})
	o := readerOptions()
	another := make([]bool, len(numbers))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(readers, len(numbers)) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(numbers)); i = next.Add(1) - 1 {
				name, want := tableName(numbers[i]), m.tables[numbers[i]].ends
				if want.first == nil || !s.there[name] {
					continue
				}
				have, err := tableEnds(s.fs, s.fs.PathJoin(s.dir, name), o)
				another[i] = err == nil && !have.are(want)
			}
		})
	}
	all.Wait()
	for i, is := range another {
		if is {
			s.find("%s is another table than the one that was there", tableName(numbers[i]))
		}
	}
}

func readerOptions() sstable.ReaderOptions {
	var o pebble.Options
	o.EnsureDefaults()
	return o.MakeReaderOptions()
}

func tableName(number uint64) string { return fmt.Sprintf("%06d.sst", number) }
