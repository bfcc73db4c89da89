package row

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// How much Prove looks at. It walks the records in order, and takes a sample of those
// that it came by, each with the same chance, because where in the space of ids a record
// stands says nothing of how many stand beside it: a few dozen at the right places would
// be most of what chance finds there. A store of up to proofFirst records it walks from end
// to end. Of a larger one it walks so many from the start, and proofRun more from each of
// proofRuns places; who plants whole runs can still steer it there, for which reason
// nobody should take it for more than it is.
const (
	proofFirst   = 1 << 17
	proofRuns    = 8
	proofRun     = 1 << 14
	proofSamples = 64
)

// Prove checks that the keyring is the one that this store's records were made
// under: none of the records that it comes by names an epoch that the keyring does not
// have, and of the sample most authenticate. A damaged record or two do not keep a store
// from opening; a keyring document that was put in the place of the store's own opens
// none, or only what was planted with it. Against one who replaces records wholesale, or
// plants as many as there are, only an anchor
// (Options.Keyring.Anchor) helps.
//
// partition is the number of the partition that r is of.
func Prove(ctx context.Context, r engine.Reader, partition uint32, h *keyring.Hold) error {
	p := proof{epochs: map[uint32]bool{}}
	p.know(h.For(inner.Block{}).Epochs())
	it, err := r.Cursor(ctx, engine.Record, nil, nil)
	if err != nil {
		return Damage(err)
	}
	defer it.Close()
	// Before and after: of a rotation that is under way, the iterator may be from either.
	p.know(h.For(inner.Block{}).Epochs())
	more, err := p.walk(it, it.First(), proofFirst)
	if err == nil && more {
		err = p.runs(it)
	}
	if err == nil {
		err = it.Err()
	}
	if err != nil {
		return Damage(err)
	}
	var bind keyring.Binding
	var last error
	good, bad := 0, 0
	for _, at := range p.sample {
		Bind(&bind, partition, at.id)
		if err := h.For(inner.Block{}).CheckRecord(ctx, at.record, &bind); ctx.Err() != nil {
			return ctx.Err() // it says nothing of the record
		} else if err != nil {
			bad, last = bad+1, fmt.Errorf("block %s: %w", Shown(at.id), err)
		} else {
			good++
		}
	}
	if bad >= good && bad > 0 {
		return fmt.Errorf("the keyring opens %d of the %d records that were looked at: they are damaged, "+
			"or the keyring document was put in the place of the store's own: %w", good, good+bad, last)
	}
	return nil
}

// proof is a sample of the records that a walk came by.
type proof struct {
	epochs map[uint32]bool // that the keyring has
	seen   int
	sample []sampled
}

type sampled struct{ id, record []byte }

func (p *proof) know(epochs []inner.EpochInfo) {
	for _, e := range epochs {
		p.epochs[e.ID] = true
	}
}

// walk takes up to n records from where the iterator is, and reports whether there are
// more.
func (p *proof) walk(it engine.Cursor, ok bool, n int) (more bool, err error) {
	for ; ok && n > 0; n-- {
		record, err := it.Value()
		if err != nil {
			return false, err
		}
		if err := p.take(it.ID(), record); err != nil {
			return false, err
		}
		ok = it.Next()
	}
	return ok, nil
}

// runs walks on from places by chance.
func (p *proof) runs(it engine.Cursor) error {
	from := bytes.Clone(it.ID())
	if !it.Last() {
		return nil // an error; see Prove
	}
	to := bytes.Clone(it.ID())
	for range proofRuns {
		if _, err := p.walk(it, it.SeekGE(between(from, to)), proofRun); err != nil {
			return err
		}
	}
	return nil
}

// take makes each record that was taken so far one of the sample with the same chance
// (reservoir sampling). The engine has checksums: that a record names an epoch which there
// is not is no accident of the disk, but a document that is older than the record, or
// another's.
func (p *proof) take(id, record []byte) error {
	if in, err := keyring.ParseRecord(record); err == nil && !p.epochs[in.Epoch] {
		return fmt.Errorf("block %s names epoch %d, which the keyring does not have: an older keyring document, "+
			"or another, was put in the place of the store's own: %w", Shown(id), in.Epoch, keyring.ErrCorrupt)
	}
	at := len(p.sample)
	if p.seen++; at == proofSamples {
		if at = rand.IntN(p.seen); at >= proofSamples {
			return nil
		}
	} else {
		p.sample = append(p.sample, sampled{})
	}
	p.sample[at] = sampled{bytes.Clone(id), bytes.Clone(record)}
	return nil
}

// between returns an id by chance from low to about high.
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
