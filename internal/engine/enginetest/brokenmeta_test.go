package enginetest

import (
	"context"

	"github.com/blockseal/blockseal/internal/engine"
)

// brokenMetas are wrong in what they do with meta records.
var brokenMetas = []brokenCase{
	{"the last swap wins", "a meta record is swapped by who read it last", func(p *brokenPartition) {
		p.swap = func(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
			for i := range changes {
				changes[i].Revision = engine.AnyRevision
			}
			return p.Partition.SwapMeta(ctx, changes...)
		}
	}},
	{"an empty record is none", "a meta record is swapped by who read it last", func(p *brokenPartition) {
		p.swap = func(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
			for i := range changes {
				if len(changes[i].Value) == 0 {
					changes[i].Value = nil
				}
			}
			return p.Partition.SwapMeta(ctx, changes...)
		}
	}},
	{"swaps happen one by one", "meta records change together or not at all", func(p *brokenPartition) {
		p.swap = func(ctx context.Context, changes ...engine.Swap) (given []uint64, err error) {
			for _, c := range changes {
				one, err := p.Partition.SwapMeta(ctx, c)
				if err != nil {
					return nil, err
				}
				given = append(given, one...)
			}
			return given, nil
		}
	}},
	{"all meta records are listed", "meta records are listed by their names", func(p *brokenPartition) {
		p.list = func(ctx context.Context, _ string, f func(string, []byte) error) error {
			return p.Partition.ListMeta(ctx, "", f)
		}
	}},
	{"a list goes on after an error", "meta records are listed by their names", func(p *brokenPartition) {
		p.list = func(ctx context.Context, prefix string, f func(string, []byte) error) (err error) {
			return errorsOf(p.Partition.ListMeta(ctx, prefix, func(name string, value []byte) error {
				if e := f(name, value); e != nil {
					err = e
				}
				return nil
			}), &err)
		}
	}},
	{"a meta record is the engine's memory", "meta records are nobody else's memory", func(p *brokenPartition) {
		kept := map[string][]byte{}
		p.swap = func(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
			for _, c := range changes {
				kept[c.Name] = c.Value
			}
			return p.Partition.SwapMeta(ctx, changes...)
		}
		p.load = func(ctx context.Context, name string) ([]byte, uint64, error) {
			_, revision, err := p.Partition.LoadMeta(ctx, name)
			return kept[name], revision, err
		}
	}},
	{"a swap looks and then writes", "of swaps at once one wins", func(p *brokenPartition) {
		p.swap = func(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
			for i, c := range changes {
				if _, have, _ := p.Partition.LoadMeta(ctx, c.Name); c.Revision != engine.AnyRevision && have != c.Revision {
					return nil, engine.ErrConflict
				}
				changes[i].Revision = engine.AnyRevision
			}
			lose(p.swapped.Load)
			return p.Partition.SwapMeta(ctx, changes...)
		}
	}},
}
