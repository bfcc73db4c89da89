package block

import (
	"crypto/rand"
	"fmt"

	"github.com/blockseal/blockseal/keyring"
)

// proofSamples is how many records prove looks at, evenly spread over the ids'
// first bytes by chance, besides the first one.
const proofSamples = 15

// prove checks once that the keyring is the one that this store's records were
// made under: of the records that it looks at, most must authenticate. A damaged
// record or two do not keep a store from opening; a keyring document that was put
// in the place of the store's own opens none, or only what was planted with it.
// Against one who replaces records wholesale only Options.Keyring.Expect helps.
func (s *Store) prove(h *keyring.Hold) error {
	lower, upper := Range{}.bounds(spaceDEK, 0)
	it, err := s.db.NewIter(lower, upper)
	if err != nil {
		return err
	}
	defer it.Close()
	var bind keyring.Binding
	var last error
	good, bad := 0, 0
	try := func(ok bool) error {
		if !ok {
			return nil
		}
		record, err := it.Value()
		if err != nil {
			return s.damage(err)
		}
		bind.Set(it.Key()[1:])
		if err := h.CheckRecord(record, &bind); err != nil {
			bad, last = bad+1, fmt.Errorf("block %s: %w", shownID(it.Key()[prefixSize:]), err)
		} else {
			good++
		}
		return nil
	}
	if err := try(it.First()); err != nil {
		return err
	}
	if err := try(it.Last()); err != nil {
		return err
	}
	var at [8]byte
	for range proofSamples - 1 {
		rand.Read(at[:])
		if err := try(it.SeekGE(appendKey(nil, spaceDEK, 0, at[:]))); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return s.damage(err)
	}
	if bad >= good && bad > 0 {
		return fmt.Errorf("the keyring opens %d of the %d records that were looked at: they are damaged, "+
			"or the keyring document was put in the place of the store's own: %w", good, good+bad, last)
	}
	s.proven.Store(true)
	return nil
}
