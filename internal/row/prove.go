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

// Prove draws its sample by rank, not by id: where an id lies says nothing of how many lie beside
// it. It walks a store of up to proofFirst records from end to end. Of a larger one it walks
// proofFirst records from the start, and proofRun from each of proofRuns places by chance; there,
// who plants whole runs can still steer the sample. docs/design.md, section 4, has the argument.
const (
	proofFirst   = 1 << 17
	proofRuns    = 8
	proofRun     = 1 << 14
	proofSamples = 64
)

// Prove checks that the keyring is the one that this store's records were made under: every record
// that it meets names an epoch of the keyring, and most of the sample authenticate. A damaged
// record or two do not keep a store from opening. A keyring document that was put in the place of
// the store's own opens no record, or only planted ones. Only an anchor (Options.Keyring.Anchor)
// helps against who replaces records wholesale, or plants as many as there are.
func Prove(ctx context.Context, r engine.Reader, h *keyring.Hold) error {
	p := proof{epochs: map[uint32]bool{}}
	p.know(h.For(inner.Block{}).Epochs())
	it, err := r.Cursor(ctx, engine.Record, nil, nil)
	if err != nil {
		return Damage(err)
	}
	defer it.Close()
	// Before and after: if a rotation is under way, the cursor may be from either side of it.
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
		bind.Set(at.id)
		if err := h.For(inner.Block{}).CheckRecord(ctx, at.record, &bind); ctx.Err() != nil {
			return ctx.Err() // the failure says nothing of the record
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

// proof is a sample of the records that a walk met.
type proof struct {
	epochs map[uint32]bool // of the keyring
	seen   int
	sample []sampled
}

type sampled struct{ id, record []byte }

func (p *proof) know(epochs []inner.EpochInfo) {
	for _, e := range epochs {
		p.epochs[e.ID] = true
	}
}

// walk offers up to n records from where the cursor is, and reports whether there are more.
func (p *proof) walk(it engine.Cursor, ok bool, n int) (more bool, err error) {
	for ; ok && n > 0; n-- {
		record, err := it.Value()
		if err != nil {
			return false, err
		}
		if err := p.offer(it.ID(), record); err != nil {
			return false, err
		}
		ok = it.Next()
	}
	return ok, nil
}

// runs goes on from places by chance.
func (p *proof) runs(it engine.Cursor) error {
	from := bytes.Clone(it.ID())
	if !it.Last() {
		return nil // an error, which Prove returns
	}
	to := bytes.Clone(it.ID())
	for range proofRuns {
		if _, err := p.walk(it, it.SeekGE(between(from, to)), proofRun); err != nil {
			return err
		}
	}
	return nil
}

// offer puts a record into the sample with the same chance as each record before it (reservoir
// sampling). The engine has checksums: a record that names an unknown epoch is no accident of the
// disk. The document is older than the record, or another store's.
func (p *proof) offer(id, record []byte) error {
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

// between returns an id by chance between low and about high.
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
