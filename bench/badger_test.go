package bench

import (
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// encryptedBadger is Badger v4.9.6 with its own encryption at rest: a 32-byte key, under
// which Badger keeps data keys of its own, one for each ten days, that encrypt logs and
// tables with AES-256 in CTR mode. It authenticates nothing, its checksums are CRC-32, and
// it wraps no key a block, so that it does less than the others. What is in a memtable, up
// to 64 MiB, and in the block cache is in clear: to read from there decrypts nothing.
type encryptedBadger struct {
	*badger.DB
	dst []byte
}

// openBadger opens it as Badger's documentation has it for encryption: an index cache is
// required, compression is off because values do not compress, and conflicts are not
// looked for because nothing here has any.
func openBadger(dir string, key []byte, sync bool, cacheBytes int64) (kv, error) {
	db, err := badger.Open(badger.DefaultOptions(dir).
		WithEncryptionKey(key).
		WithSyncWrites(sync).
		WithCompression(options.None).
		WithBlockCacheSize(cacheBytes).
		WithIndexCacheSize(cacheBytes / 4).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithLogger(nil))
	if err != nil {
		return nil, err
	}
	return &encryptedBadger{DB: db}, nil
}

func (s *encryptedBadger) put(batch [][2][]byte) error {
	txn := s.NewTransaction(true)
	defer txn.Discard()
	for _, p := range batch {
		// Badger keeps what it is given until the transaction is committed.
		if err := txn.Set(p[0], p[1]); err != nil {
			return err
		}
	}
	return txn.Commit()
}

func (s *encryptedBadger) get(id, dst []byte) (out []byte, err error) {
	err = s.View(func(txn *badger.Txn) error {
		item, err := txn.Get(id)
		if err != nil {
			return err
		}
		out, err = item.ValueCopy(dst)
		return err
	})
	return out, err
}

func (s *encryptedBadger) scan(f func(id, data []byte) error) error {
	return s.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			var err error
			if s.dst, err = it.Item().ValueCopy(s.dst[:0]); err != nil {
				return err
			}
			if err := f(it.Item().Key(), s.dst); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *encryptedBadger) close() error { return s.Close() }
