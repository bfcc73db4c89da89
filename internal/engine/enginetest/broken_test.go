package enginetest

import (
	"bytes"
	"context"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
)

// brokenEngines are each wrong in one way, which the part of the suite that is named must find.
func brokenEngines() []brokenCase { return slices.Concat(brokenRows, brokenMetas) }

type brokenCase struct {
	name  string
	part  string
	wrong func(p *brokenPartition)
}

// brokenRows are wrong in what they do with rows, and with all.
var brokenRows = []brokenCase{
	{"a deletion leaves the block", "a row reads as it was put", func(p *brokenPartition) {
		p.batch = func(b *brokenBatch) {
			b.delete = func(id []byte) error { return b.Batch.PutRecord(id, nil) }
		}
	}},
	{"a clear leaves a row", "what is cleared is gone", func(p *brokenPartition) {
		p.clear = func(ctx context.Context) error {
			var row engine.Row
			if err := p.Partition.Get(ctx, []byte("b"), engine.Both, &row); err != nil {
				return p.Partition.Clear(ctx)
			}
			if err := p.Partition.Clear(ctx); err != nil {
				return err
			}
			b := p.Partition.NewBatch()
			room, err := b.Put([]byte("b"), row.Record, len(row.Sealed))
			if err != nil {
				return err
			}
			copy(room, row.Sealed)
			return p.Partition.Apply(ctx, b, engine.Guard{Floor: p.Floor().Revision}, false)
		}
	}},
	{"a clear leaves the meta records", "what is cleared is gone", func(p *brokenPartition) {
		p.clear = func(ctx context.Context) error {
			value, _, err := p.Partition.LoadMeta(ctx, "name")
			if err := p.Partition.Clear(ctx); err != nil || value == nil {
				return err
			}
			if err == nil {
				err = engine.SetMeta(ctx, p.Partition, "name", value)
			}
			return err
		}
	}},
	{"a change from before a clear comes after it", "what is cleared is gone", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			if g.Floor < p.Floor().Revision {
				g.Floor = p.Floor().Revision
			}
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"what was not found is no error", "a row reads as it was put", func(p *brokenPartition) {
		p.get = func(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
			if err := p.Partition.Get(ctx, id, want, row); ctx.Err() != nil {
				return err
			}
			return nil
		}
	}},
	{"a record that was not wanted is overwritten", "parts are as they were asked for", func(p *brokenPartition) {
		p.get = func(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
			err := p.Partition.Get(ctx, id, want|engine.Record, row)
			row.Has &= want
			return err
		}
	}},
	{"ids end at a zero byte", "ids are any bytes", func(p *brokenPartition) {
		p.batch = func(b *brokenBatch) {
			b.put = func(id, record []byte, size int) ([]byte, error) {
				id, _, _ = bytes.Cut(id, []byte{0})
				return b.Batch.Put(id, record, size)
			}
		}
	}},
	{"large blocks are cut off", "sealed blocks of any size", func(p *brokenPartition) {
		p.get = func(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
			err := p.Partition.Get(ctx, id, want, row)
			row.Sealed = row.Sealed[:min(len(row.Sealed), 8<<20)]
			return err
		}
	}},
	{"a batch keeps what it was given", "what is given is not kept", func(p *brokenPartition) {
		var kept [2][]byte
		p.batch = func(b *brokenBatch) {
			b.put = func(id, record []byte, size int) ([]byte, error) {
				kept = [2][]byte{id, record}
				return make([]byte, size), nil
			}
		}
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			if kept[0] != nil {
				_, _ = b.Put(kept[0], kept[1], 0)
			}
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"a batch keeps the record that it puts alone", "what is given is not kept", func(p *brokenPartition) {
		var id, record []byte
		p.batch = func(b *brokenBatch) {
			b.putRecord = func(i, r []byte) error { id, record = i, r; return nil }
		}
		p.replace = func(ctx context.Context, b engine.Batch, was []engine.Was) (int, error) {
			if id != nil {
				_ = b.PutRecord(id, record)
			}
			return p.Partition.Replace(ctx, b, was)
		}
	}},
	{"a cursor keeps its bounds", "what is given is not kept", func(p *brokenPartition) {
		p.cursor = func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
			c, err := p.Partition.Cursor(ctx, part, lower, upper)
			return &lateCursor{c, p, part, lower, upper}, err
		}
	}},
	{"the KEKs that are refused are the caller's", "what is given is not kept", func(p *brokenPartition) {
		var kept []uint32
		p.refuse = func(ctx context.Context, keks []uint32) error {
			kept = keks
			return p.Partition.RefuseKEKs(ctx, keks)
		}
		p.floor = func() engine.Floor {
			f := p.Partition.Floor()
			f.KEKs = kept
			return f
		}
	}},
	{"a view is the partition", "a view is one state", func(p *brokenPartition) {
		p.view = func(context.Context) (engine.View, error) { return openView{p.Partition}, nil }
	}},
	{"wanted together is read one after the other", "parts that are wanted together are of one state", func(p *brokenPartition) {
		p.get = func(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
			if want&engine.Both != engine.Both {
				return p.Partition.Get(ctx, id, want, row)
			}
			var other engine.Row
			errA := p.Partition.Get(ctx, id, engine.Record, row)
			lose(p.applied.Load)
			errB := p.Partition.Get(ctx, id, engine.Sealed, &other)
			if errA != nil && errB != nil {
				return errA
			}
			row.Has, row.Sealed = row.Has|other.Has, other.Sealed
			return nil
		}
	}},
	{"the upper bound is walked", "a cursor has its lower bound and not its upper", func(p *brokenPartition) {
		p.cursor = func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
			if upper != nil {
				upper = append(bytes.Clone(upper), 0)
			}
			return p.Partition.Cursor(ctx, part, lower, upper)
		}
	}},
	{"the lower bound is not", "a cursor has its lower bound and not its upper", func(p *brokenPartition) {
		p.cursor = func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
			if lower != nil {
				lower = append(bytes.Clone(lower), 0)
			}
			return p.Partition.Cursor(ctx, part, lower, upper)
		}
	}},
	{"an empty upper bound is none", "a cursor has its lower bound and not its upper", func(p *brokenPartition) {
		p.cursor = func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
			if len(upper) == 0 {
				upper = nil
			}
			return p.Partition.Cursor(ctx, part, lower, upper)
		}
	}},
	{"a seek goes beyond what is there", "a cursor seeks", func(p *brokenPartition) {
		p.cursor = func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
			c, err := p.Partition.Cursor(ctx, part, lower, upper)
			return brokenCursor{c, p, true}, err
		}
	}},
	{"a clone is of now", "a cursor and its clones are one state", func(p *brokenPartition) {
		p.cursor = func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
			c, err := p.Partition.Cursor(ctx, part, lower, upper)
			return brokenCursor{c, p, false}, err
		}
	}},
	{"a cursor has every row", "a cursor has the rows that have its part", func(p *brokenPartition) {
		p.batch = func(b *brokenBatch) {
			b.putRecord = func(id, record []byte) error {
				_, err := b.Batch.Put(id, record, 0)
				return err
			}
		}
	}},
	{"a batch happens in halves", "a batch happens as a whole", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			c, next, err := b.Op(0)
			if err == nil && next > 0 {
				half := p.Partition.NewBatch()
				_, _ = half.Put(c.ID, c.Record, 1)
				if err := p.Partition.Apply(ctx, half, g, sync); err != nil {
					return err
				}
				lose(p.viewed.Load)
			}
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"what is put later moves with the next call", "what is put later is filled in while the batch goes on", func(p *brokenPartition) {
		p.batch = func(b *brokenBatch) {
			var move func()
			b.putLater = func(id []byte, record, size int) ([]byte, []byte, error) {
				if move != nil {
					move()
				}
				rec, sealed, err := b.Batch.PutLater(id, record, size)
				former := bytes.Clone(sealed)
				move = func() { copy(sealed, former) }
				return rec, former, err
			}
		}
	}},
	{"the first change of a row wins", "the last change of a row in a batch wins", func(p *brokenPartition) {
		p.batch = func(b *brokenBatch) {
			seen := map[string]bool{}
			b.put = func(id, record []byte, size int) ([]byte, error) {
				if seen[string(id)] {
					return make([]byte, size), nil
				}
				seen[string(id)] = true
				return b.Batch.Put(id, record, size)
			}
			b.delete = func(id []byte) error {
				seen[string(id)] = true
				return b.Batch.Delete(id)
			}
		}
	}},
	{"a batch does not say what it deletes", "a batch says what is in it", func(p *brokenPartition) {
		p.batch = func(b *brokenBatch) {
			b.change = func(at int) (c engine.Op, next int, err error) {
				for next = at; ; {
					if c, next, err = b.Batch.Op(next); next == 0 || !c.Deleted {
						return c, next, err
					}
				}
			}
		}
	}},
	{"a replacement replaces whatever is there", "who wrote meanwhile wins over a replacement", func(p *brokenPartition) {
		p.replace = func(ctx context.Context, b engine.Batch, _ []engine.Was) (int, error) {
			return 0, p.Partition.Apply(ctx, b, engine.Guard{Floor: p.Floor().Revision, Below: true}, false)
		}
	}},
	{"a replacement does not say what it left", "who wrote meanwhile wins over a replacement", func(p *brokenPartition) {
		p.replace = func(ctx context.Context, b engine.Batch, was []engine.Was) (int, error) {
			copied := p.Partition.NewBatch()
			for c, next, _ := b.Op(0); next > 0; c, next, _ = b.Op(next) {
				_ = copied.PutRecord(c.ID, c.Record)
			}
			return p.Partition.Replace(ctx, copied, was)
		}
	}},
	{"a replacement looks and then writes", "replacements lose nothing beside writers", func(p *brokenPartition) {
		p.replace = func(ctx context.Context, b engine.Batch, was []engine.Was) (lost int, err error) {
			if lost, err = p.Partition.Replace(ctx, p.Partition.NewBatch(), was); err != nil || lost > 0 {
				return lost, err
			}
			lose(p.applied.Load)
			return 0, p.Partition.Apply(ctx, b, engine.Guard{Floor: p.Floor().Revision, Below: true}, false)
		}
	}},
	{"what a change rests on is not looked at", "a change that rests on rows happens if they are as they were", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			g.Was = nil
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"of what it rests on the first row is looked at", "a change that rests on rows happens if they are as they were", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			g.Was = g.Was[:min(len(g.Was), 1)]
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"no row is as good as an empty record", "a change that rests on rows happens if they are as they were", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			for i := range g.Was {
				if len(g.Was[i].Record) == 0 {
					g.Was[i].Record = nil
				}
			}
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"what it rests on is looked at before the write", "of changes that rest on one row one happens", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			for _, w := range g.Was {
				var row engine.Row
				err := p.Partition.Get(ctx, w.ID, engine.Record, &row)
				if (err == nil) != (w.Record != nil) || !bytes.Equal(row.Record, w.Record) {
					return engine.ErrChanged
				}
			}
			if len(g.Was) > 0 {
				lose(p.applied.Load)
			}
			g.Was = nil
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"a walk backwards leaves out the first row", "a cursor goes back and turns round", func(p *brokenPartition) {
		p.cursor = func(ctx context.Context, part engine.Parts, lower, upper []byte) (engine.Cursor, error) {
			c, err := p.Partition.Cursor(ctx, part, lower, upper)
			return shortCursor{c}, err
		}
	}},
	{"the floor is not looked at", "the floor lets pass what is at it", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			g.Below = true
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"the floor refuses what is at it", "the floor lets pass what is at it", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			if f := p.Floor(); f.Epoch > 0 && g.Epoch == f.Epoch {
				return engine.ErrFloor
			}
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"the revision is not looked at", "the floor lets pass what is at it", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			g.Floor = p.Floor().Revision
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"the same floor again is no other", "the floor rises, and each rise is another", func(p *brokenPartition) {
		p.raise = func(ctx context.Context, epoch uint32) error {
			if ctx.Err() == nil && epoch <= p.Floor().Epoch {
				return nil
			}
			return p.Partition.RaiseFloor(ctx, epoch)
		}
	}},
	{"KEKs that are refused stay so", "the floor rises, and each rise is another", func(p *brokenPartition) {
		p.refuse = func(ctx context.Context, keks []uint32) error {
			return p.Partition.RefuseKEKs(ctx, append(keks, p.Floor().KEKs...))
		}
	}},
	{"a refused batch is gone", "a batch that the floor refused can be mended", func(p *brokenPartition) {
		refused := map[engine.Batch]bool{}
		p.batch = func(b *brokenBatch) {
			b.change = func(at int) (c engine.Op, next int, err error) {
				if refused[b.Batch] {
					return c, 0, nil
				}
				return b.Batch.Op(at)
			}
		}
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			err := p.Partition.Apply(ctx, b, g, sync)
			refused[b] = err != nil
			return err
		}
	}},
	{"the floor is looked at before the write", "nothing lower comes behind a raised floor", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			if !p.Floor().Admits(g) {
				return engine.ErrFloor
			}
			lose(func() uint64 { return p.Floor().Revision })
			return p.Partition.Apply(ctx, b, engine.Guard{Floor: p.Floor().Revision, Below: true}, sync)
		}
	}},
	{"contexts are not looked at", "a context that has ended ends the call", func(p *brokenPartition) {
		p.get = func(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
			return p.Partition.Get(context.WithoutCancel(ctx), id, want, row)
		}
	}},
	{"a change comes although its context had ended", "a context that has ended ends the call", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			if err := p.Partition.Apply(context.WithoutCancel(ctx), b, g, sync); err != nil {
				return err
			}
			return ctx.Err()
		}
	}},
	{"what was judged before KEKs were refused is let in", "the floor lets pass what is at it", func(p *brokenPartition) {
		p.apply = func(ctx context.Context, b engine.Batch, g engine.Guard, sync bool) error {
			if f := p.Partition.Floor(); g.Floor < f.Revision && g.Epoch >= f.Epoch && f.Epoch > 0 && g.Epoch == 9 {
				g.Floor = f.Revision
			}
			return p.Partition.Apply(ctx, b, g, sync)
		}
	}},
	{"a row that is refused keeps what it had", "parts are as they were asked for", func(p *brokenPartition) {
		p.get = func(ctx context.Context, id []byte, want engine.Parts, row *engine.Row) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return p.Partition.Get(ctx, id, want, row)
		}
	}},
	{"a closed engine finds nothing", "a closed engine says so", func(p *brokenPartition) {
		p.load = func(ctx context.Context, name string) ([]byte, uint64, error) {
			value, revision, err := p.Partition.LoadMeta(ctx, name)
			if err == engine.ErrClosed {
				err = engine.ErrNotFound
			}
			return value, revision, err
		}
	}},
}
