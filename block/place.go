package block

import (
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/keyring"
)

// survey looks at the directory, and makes the store whose it is.
func (s *Store) survey() error {
	if err := s.place.Survey(); err != nil {
		return err
	}
	s.be()
	s.storage.Waits = s.place.IsCopy()
	return nil
}

// be makes the keyring one of the store's instance.
func (s *Store) be() {
	s.storage.Own = s.place.Instance()
	s.opts.Keyring.Instance = s.storage.Own
}

func (s *Store) openEngine() error {
	db, err := s.place.OpenEngine(pebble.Options{
		Logger: s.opts.Keyring.Logger, CacheBytes: s.opts.BlockCache, MemTableBytes: s.opts.MemTable,
		ValueSeparation: s.opts.ValueSeparation, Fatal: s.opts.Fatal,
	})
	if err != nil {
		return err
	}
	s.db, s.part = db, db.Partition(s.partition)
	return nil
}

// tagger returns what tags an identity, also after the keyring was closed; nil if the
// keys are not accessible.
func (s *Store) tagger() *keyring.Tagger {
	if s.keys == nil || s.opts.ReadOnly {
		return nil
	}
	t, err := s.taggerFor(place.TagPurpose)
	if err != nil {
		return nil
	}
	return t
}

func (s *Store) taggerFor(purpose string) (*keyring.Tagger, error) {
	h, err := s.keys.Acquire()
	if err != nil {
		return nil, err
	}
	defer h.Release()
	return h.Tagger(purpose)
}
