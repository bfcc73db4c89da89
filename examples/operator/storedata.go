package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
)

// idFlags say how block ids are written.
type idFlags struct{ hex bool }

func (f *idFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.hex, "hex", false, "ids are in hexadecimal")
}

func (f *idFlags) parse(arg string) ([]byte, error) {
	if !f.hex {
		return []byte(arg), nil
	}
	id, err := hex.DecodeString(arg)
	if err != nil {
		return nil, usagef("the id %q is not hexadecimal: %w", arg, err)
	}
	return id, nil
}

func (f *idFlags) String(id []byte) string {
	if f.hex {
		return hex.EncodeToString(id)
	}
	return string(id)
}

// plain reports whether an id can be written as text.
func plain(id []byte) bool {
	if !utf8.Valid(id) {
		return false
	}
	for _, r := range string(id) {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (a *app) storePut(f *storeFlags) *cobra.Command {
	var ids idFlags
	c := a.command("put DIR ID [FILE]", "store a block", "Put stores FILE, or standard input, as the block ID, in place of an older one.",
		func(ctx context.Context, args []string) error {
			id, err := ids.parse(args[1])
			if err != nil {
				return err
			}
			in := a.in
			if len(args) > 2 && args[2] != "-" {
				file, err := os.Open(args[2])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			data, err := io.ReadAll(io.LimitReader(in, block.MaxBlock+1))
			if err != nil {
				return err
			}
			defer clear(data)
			return a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
				if err := s.Put(ctx, id, data); err != nil {
					return err
				}
				return a.show(map[string]any{"id": ids.String(id), "size": len(data)}, func(t *table) { t.row("put", ids.String(id), len(data)) })
			})(ctx, args)
		})
	ids.add(c)
	return c
}

func (a *app) storeGet(f *storeFlags) *cobra.Command {
	var ids idFlags
	var out string
	c := a.command("get DIR ID", "write a block to standard output", `Get writes the block ID to standard output, as it is, or to a new file. With --json it is
in base64.`,
		a.withStore(f, func(ctx context.Context, s *openStore, args []string) error {
			id, err := ids.parse(args[1])
			if err != nil {
				return err
			}
			data, err := s.Get(ctx, id, nil)
			if err != nil {
				return err
			}
			defer clear(data)
			switch {
			case out != "":
				if err := a.writeSecret(out, data); err != nil {
					return err
				}
				return a.show(map[string]any{"id": ids.String(id), "size": len(data), "file": out}, func(t *table) { t.row("got", ids.String(id), len(data)) })
			case a.json:
				return a.show(map[string]any{"id": ids.String(id), "size": len(data), "data": data}, nil)
			}
			_, err = a.out.Write(data)
			return err
		}))
	ids.add(c)
	c.Flags().StringVar(&out, "out", "", "write it to this new `file`, mode 0600")
	return c
}

func (a *app) storeDelete(f *storeFlags) *cobra.Command {
	var ids idFlags
	c := a.command("delete DIR ID...", "delete blocks", `Delete removes blocks. That one of them is not there is no error. What the files still
hold of them can be opened by whoever has the key, until store erase.`,
		a.withStore(f, func(ctx context.Context, s *openStore, args []string) error {
			b := s.NewBatch()
			defer b.Close()
			for _, arg := range args[1:] {
				id, err := ids.parse(arg)
				if err == nil {
					err = b.Delete(ctx, id)
				}
				if err != nil {
					return err
				}
			}
			if err := b.Commit(ctx); err != nil {
				return err
			}
			return a.show(map[string]any{"deleted": args[1:]}, func(t *table) {
				for _, id := range args[1:] {
					t.row("deleted", id)
				}
			})
		}))
	ids.add(c)
	return c
}

func (a *app) storeBlocks(f *storeFlags) *cobra.Command {
	var ids idFlags
	var r rangeFlags
	c := a.command("blocks DIR", "list the blocks", `Blocks lists the blocks of a range, in the order of their ids, with their sizes. It opens
each of them.`,
		a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
			rng, err := r.parse(ids)
			if err != nil {
				return err
			}
			type view struct {
				ID   string `json:"id"`
				Size int    `json:"size"`
			}
			views := []view{}
			for b, err := range s.Blocks(ctx, rng) {
				if err != nil {
					return err
				}
				if !ids.hex && !plain(b.ID) {
					return errors.New("an id is not printable text; list with --hex")
				}
				views = append(views, view{ids.String(b.ID), len(b.Data)})
			}
			return a.show(views, func(t *table) {
				for _, v := range views {
					t.row(v.ID, v.Size)
				}
			})
		}))
	ids.add(c)
	r.add(c)
	return c
}

// rangeFlags are a range of ids.
type rangeFlags struct{ start, end string }

func (r *rangeFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&r.start, "start", "", "begin with this `id` (default: the first)")
	c.Flags().StringVar(&r.end, "end", "", "end before this `id` (default: after the last)")
}

func (r *rangeFlags) parse(ids idFlags) (rng block.Range, err error) {
	for _, b := range []struct {
		text string
		to   *[]byte
	}{{r.start, &rng.Start}, {r.end, &rng.End}} {
		if b.text == "" {
			continue
		}
		if *b.to, err = ids.parse(b.text); err != nil {
			return rng, err
		}
	}
	return rng, nil
}

func (a *app) storeVerify(f *storeFlags) *cobra.Command {
	return a.command("verify DIR", "open and authenticate everything", `Verify opens every DEK record and authenticates every block. Exit status 4 if anything is
damaged, moved or forged; the blocks are named.`,
		a.withStore(f, func(ctx context.Context, s *openStore, _ []string) error {
			r, bad := s.Verify(ctx, s.progress("verify"))
			s.line.Clear()
			if bad != nil && !errors.Is(bad, block.ErrCorrupt) {
				return bad
			}
			type problem struct {
				ID    string `json:"id"`
				Error string `json:"error"`
			}
			w := struct {
				OK       bool              `json:"ok"`
				Blocks   uint64            `json:"blocks"`
				Bytes    uint64            `json:"bytes"`
				DEKs     map[uint32]uint64 `json:"deksByEpoch"`
				ByKEK    map[uint32]uint64 `json:"deksByKEKID,omitempty"`
				Damaged  uint64            `json:"damaged"`
				Problems []problem         `json:"problems,omitempty"`
			}{OK: bad == nil, Blocks: r.Blocks, Bytes: r.Bytes, DEKs: r.DEKs, ByKEK: r.ByKEK, Damaged: r.Damaged}
			for _, p := range r.Problems {
				w.Problems = append(w.Problems, problem{fmt.Sprintf("%q", p.ID), p.Err.Error()})
			}
			return errors.Join(a.show(w, func(t *table) {
				t.row("verified", w.OK)
				t.row("blocks", w.Blocks)
				t.row("bytes", w.Bytes)
				t.row("epochs", len(w.DEKs))
				t.row("damaged", w.Damaged)
				for _, p := range w.Problems {
					t.row(p.ID, p.Error)
				}
			}), bad)
		}))
}
