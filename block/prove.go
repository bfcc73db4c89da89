package block

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/blockseal/blockseal/keyring"
)

// proofSamples is how many records prove looks for, between the first and the last,
// and proofSteps how far from where it looks it may go on: ids are seldom spread over
// their bytes' values as chance is.
const (
	proofSamples = 15
	proofSteps   = 16
)

// prove checks once that the keyring is the one that this store's records were
// made under: of the records that it looks at, most must authenticate. A damaged
// record or two do not keep a store from opening, for which reason none counts
// twice; a keyring document that was put in the place of the store's own opens none,
// or only what was planted with it. Against one who replaces records wholesale only
// an anchor (Options.Keyring.Anchor) helps.
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
	seen := map[string]bool{}
	try := func(ok bool) error {
		if !ok || seen[string(it.Key())] {
			return nil
		}
		seen[string(it.Key())] = true
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
	var ends [2][]byte
	for i, move := range []func() bool{it.First, it.Last} {
		ok := move()
		if err := try(ok); err != nil {
			return err
		}
		if ok {
			ends[i] = bytes.Clone(it.Key())
		}
	}
	for range proofSamples - 1 {
		ok := it.SeekGE(between(ends[0], ends[1]))
		for range rand.IntN(proofSteps) {
			ok = ok && it.Next()
		}
		if err := try(ok); err != nil {
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

// between returns a key by chance from low to about high.
func between(low, high []byte) []byte {
	n := 0
	for n < len(low) && n < len(high) && low[n] == high[n] {
		n++
	}
	key := bytes.Clone(low[:n])
	if n < len(low) && n < len(high) {
		key = append(key, low[n]+byte(rand.IntN(int(high[n])-int(low[n])+1)))
	}
	return binary.BigEndian.AppendUint64(key, rand.Uint64())
}
