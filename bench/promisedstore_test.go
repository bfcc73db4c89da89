package bench

import (
	"bytes"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/keyring"
)

// promisedStore is plain Pebble with the least that blockseal's promises take beside it, and
// nothing around that: each block is sealed under a key of its own, and the wrapped key is a
// second entry of a DEK record's size, in a space of its own. Whoever calls does the work, without others' help.
type promisedStore struct {
	*plain
	sealers sync.Pool // of *promised
	rows    *keptRows // nil: none are kept
}

// records is the prefix of the second entries' keys.
const records = "\x02\x00\x00\x00\x00"

func openPromised(epochKey []byte) opener {
	return func(dir string, sync bool) (kv, error) { return openPromisedOn(dir, sync, vfs.Default, epochKey) }
}

func openPromisedOn(dir string, noWait bool, fs vfs.FS, epochKey []byte) (kv, error) {
	p, err := openPebbleOn(dir, noWait, fs)
	if err != nil {
		return nil, err
	}
	return &promisedStore{plain: p, sealers: sync.Pool{New: func() any { return newPromised(epochKey) }}}, nil
}

// openKept is openPromised with all rows in memory besides: a Get finds one in a map and opens it. No store
// that opens a block anew for each Get can have less to do for one.
func openKept(epochKey []byte) opener {
	return func(dir string, sync bool) (kv, error) {
		s, err := openPromised(epochKey)(dir, sync)
		if err != nil {
			return nil, err
		}
		s.(*promisedStore).rows = new(keptRows)
		return s, nil
	}
}

// keptRows are rows in memory, by block id.
type keptRows struct {
	shards [64]struct {
		sync.RWMutex
		rows map[string]keptRow
	}
}

// keptRow is never changed.
type keptRow struct{ wrapped, sealed []byte }

func (k *keptRows) get(id []byte) (keptRow, bool) {
	s := &k.shards[id[len(id)-1]%64]
	s.RLock()
	defer s.RUnlock()
	row, ok := s.rows[string(id)]
	return row, ok
}

func (k *keptRows) put(id, wrapped, sealed []byte) {
	row := keptRow{bytes.Clone(wrapped), bytes.Clone(sealed)}
	s := &k.shards[id[len(id)-1]%64]
	s.Lock()
	defer s.Unlock()
	if s.rows == nil {
		s.rows = map[string]keptRow{}
	}
	s.rows[string(id)] = row
}

func (s *promisedStore) put(batch [][2][]byte) error {
	p := s.sealers.Get().(*promised)
	defer s.sealers.Put(p)
	b := s.NewBatch()
	defer b.Close()
	for _, kv := range batch {
		if err := p.newKey(); err != nil {
			return err
		}
		id, data := kv[0], kv[1]
		key, record := b.Reserve(len(records)+len(id), keyring.RecordSize)
		copy(key, records)
		copy(key[len(records):], id)
		copy(record[recordHead:], p.wrapped)
		key, sealed := b.Reserve(len(prefix)+len(id), len(data)+dek.Overhead)
		copy(key, prefix)
		copy(key[len(prefix):], id)
		p.seal(sealed[:0], data)
		if s.rows != nil {
			s.rows.put(id, p.wrapped, sealed)
		}
	}
	return s.Commit(b, s.sync)
}

func (s *promisedStore) get(id, dst []byte) ([]byte, error) {
	p := s.sealers.Get().(*promised)
	defer s.sealers.Put(p)
	if s.rows != nil {
		if row, ok := s.rows.get(id); ok {
			return p.open(dst, row.wrapped, row.sealed)
		}
	}
	key := append(make([]byte, 0, 32), records...)
	v, closer, err := s.Get(append(key, id...))
	if err != nil {
		return nil, err
	}
	p.wrapped = append(p.wrapped[:0], v[recordHead:]...)
	if err := closer.Close(); err != nil {
		return nil, err
	}
	sealed, closer, err := s.Get(append(append(key[:0], prefix...), id...))
	if err != nil {
		return nil, err
	}
	if dst, err = p.open(dst, p.wrapped, sealed); err == nil && s.rows != nil {
		s.rows.put(id, p.wrapped, sealed)
	}
	return dst, errors.Join(err, closer.Close())
}

func (s *promisedStore) scan(f func(id, data []byte) error) error {
	return s.walk(nil, nil, false, f)
}

// walk goes over the blocks whose ids are from lower to below upper, or back. A nil bound is none.
func (s *promisedStore) walk(lower, upper []byte, back bool, f func(id, data []byte) error) error {
	p := s.sealers.Get().(*promised)
	defer s.sealers.Put(p)
	within := func(space, next string) (*pebble.Iter, error) {
		from, to := append([]byte(space), lower...), []byte(next)
		if upper != nil {
			to = append([]byte(space), upper...)
		}
		return s.NewIter(from, to)
	}
	wrapped, err := within(records, prefix)
	if err != nil {
		return err
	}
	blocks, err := within(prefix, "\x04")
	if err != nil {
		return errors.Join(err, wrapped.Close())
	}
	first, next := (*pebble.Iter).First, (*pebble.Iter).Next
	if back {
		first, next = (*pebble.Iter).Last, (*pebble.Iter).Prev
	}
	first(wrapped)
	var dst []byte
	for ok := first(blocks); ok && err == nil; ok = next(blocks) {
		var record, sealed []byte
		if record, err = wrapped.Value(); err != nil {
			break
		}
		if sealed, err = blocks.Value(); err != nil {
			break
		}
		if dst, err = p.open(dst[:0], record[recordHead:], sealed); err == nil {
			err = f(blocks.Key()[len(prefix):], dst)
		}
		next(wrapped)
	}
	return errors.Join(err, blocks.Err(), wrapped.Err(), blocks.Close(), wrapped.Close())
}
