package bench

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/keyring"
)

// apart is plain Pebble with what a block takes beside its data: a second entry, of a DEK
// record's size, in a space of its own. It encrypts nothing, so that it says what keeping
// DEKs apart from blocks costs whatever the encryption does.
type apart struct {
	*plain
	record []byte
}

// records is the prefix of the second entries' keys.
const records = "\x02\x00\x00\x00\x00"

func openApart(dir string, sync bool) (kv, error) { return openApartOn(dir, sync, vfs.Default) }

func openApartOn(dir string, sync bool, fs vfs.FS) (kv, error) {
	p, err := openPebbleOn(dir, sync, fs)
	if err != nil {
		return nil, err
	}
	return &apart{p, random(keyring.RecordSize)}, nil
}

func (a *apart) put(batch [][2][]byte) error {
	b := a.NewBatch()
	defer b.Close()
	for _, kv := range batch {
		key, value := b.Reserve(len(records)+len(kv[0]), len(a.record))
		copy(key, records)
		copy(key[len(records):], kv[0])
		copy(value, a.record)
		reserve(b, kv)
	}
	return a.Commit(b, a.sync)
}

func (a *apart) get(id, dst []byte) ([]byte, error) {
	key := append(make([]byte, 0, 32), records...)
	v, closer, err := a.Get(append(key, id...))
	if err != nil {
		return nil, err
	}
	a.record = append(a.record[:0], v...)
	if err := closer.Close(); err != nil {
		return nil, err
	}
	return a.plain.get(id, dst)
}

func (a *apart) scan(f func(id, data []byte) error) error {
	it, err := a.NewIter([]byte(records), []byte(prefix))
	if err != nil {
		return err
	}
	it.First()
	err = a.plain.scan(func(id, data []byte) error {
		v, err := it.Value()
		if err != nil {
			return err
		}
		a.record = append(a.record[:0], v...)
		it.Next()
		return f(id, data)
	})
	return errors.Join(err, it.Close())
}
