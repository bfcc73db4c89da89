package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
)

// loaded is a store that was filled by one Load, closed, and opened again with the default caches: so
// stores of many blocks are made whose filling by batches, with all its compactions, would take hours.
type loaded struct {
	Blocks, Size int
	Load         time.Duration // to fill it
	Disk         int64         // bytes of tables and blob files
	Open         time.Duration // to open it and read a block
	OpenCalls    int           // calls to the vault for that
	Heap         int64         // live bytes of Go's heap after the look-ups, above those of an empty store: the caches are in it
	Get          time.Duration // of a block at random, the mean
	Reads        float64       // parts of files that such a Get reads: what the block cache does not have
	Tables       int           // tables that a look-up may have to read (EngineStats.ReadAmplification)
}

// lookups is how many Gets at random are measured, after as many that are not.
const lookups = 20_000

// measureLoaded fills stores with a million blocks, ten times as many, and so on up to most.
func measureLoaded(ctx context.Context, dir string, most, size int, progress io.Writer) (all []loaded, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "blockseal-sizing-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	l := newLab()
	empty, err := l.heap(ctx, filepath.Join(dir, "empty"))
	if err != nil {
		return nil, err
	}
	for n := min(1_000_000, most); ; n = min(10*n, most) {
		fmt.Fprintf(progress, "%d blocks of %d bytes, loaded\n", n, size)
		p, err := l.loaded(ctx, filepath.Join(dir, "loaded"), n, size, empty)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(progress, "  %s, loaded in %v, %d a second\n", amount(float64(p.Disk)), p.Load.Round(time.Millisecond), int(float64(n)/p.Load.Seconds()))
		if all = append(all, p); n == most {
			return all, nil
		}
	}
}

// loaded measures a store of n blocks and removes it.
func (l lab) loaded(ctx context.Context, dir string, n, size int, empty int64) (p loaded, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p = loaded{Blocks: n, Size: size}
	if p.Load, err = l.load(ctx, dir, n, size); err != nil {
		return p, err
	}
	if _, p.Disk, err = l.settle(ctx, dir); err != nil {
		return p, err
	}
	before, start := l.vault.Calls().Total(), time.Now()
	s, err := block.Open(ctx, dir, kek.New(l.vault, l.key), &block.Options{NoSync: true})
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	buf, err := s.Get(ctx, loadedID(n/2, n), nil)
	if err != nil {
		return p, err
	}
	p.Open, p.OpenCalls = time.Since(start), l.vault.Calls().Total()-before
	random := mathrand.New(mathrand.NewPCG(1, 2)) // the same look-ups in each run
	get := func() error {
		buf, err = s.Get(ctx, loadedID(random.IntN(n), n), buf[:0])
		return err
	}
	for range lookups {
		if err := get(); err != nil {
			return p, err
		}
	}
	misses, start := s.Stats().Engine.CacheMisses, time.Now()
	for range lookups {
		if err := get(); err != nil {
			return p, err
		}
	}
	p.Get = time.Since(start) / lookups
	e := s.Stats().Engine
	p.Reads, p.Tables = float64(e.CacheMisses-misses)/lookups, e.ReadAmplification
	p.Heap = max(liveHeap()-empty, 0)
	return p, nil
}

func (l lab) load(ctx context.Context, dir string, n, size int) (took time.Duration, err error) {
	s, err := l.open(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	data := make([]byte, size+1000)
	rand.Read(data)
	start := time.Now()
	_, err = s.Load(ctx, func(yield func(block.Block, error) bool) {
		for i := range n {
			if !yield(block.Block{ID: loadedID(i, n), Data: data[i%1000 : i%1000+size]}, nil) {
				return
			}
		}
	})
	return time.Since(start), err
}

// loadedID is the id of one of n blocks, of 8 bytes, in ascending order and evenly far apart.
func loadedID(i, n int) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(i)*(math.MaxUint64/uint64(n)))
}

// writeLoaded writes the table of the stores that were loaded.
func writeLoaded(w io.Writer, all []loaded) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "Loaded with `Store.Load`, blocks of %d bytes; opened with the default caches, and %d blocks looked up at random after as many that are not counted. A part of a file is what the block cache does not have, and the operating system may:\n\n", all[0].Size, lookups)
	fmt.Fprint(w, "| blocks | loaded, a second | disk | beyond the plaintext, a block | cold open | vault calls to open | Get at random | parts of files that it reads | tables in its way, at the most | live heap with the caches |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range all {
		fmt.Fprintf(w, "| %s | %s | %s | %.0f B | %v | %d | %v | %.2f | %d | %s |\n", count(float64(p.Blocks)), count(float64(p.Blocks)/p.Load.Seconds()), amount(float64(p.Disk)),
			float64(p.Disk)/float64(p.Blocks)-float64(p.Size), p.Open.Round(time.Millisecond), p.OpenCalls, p.Get.Round(100*time.Nanosecond), p.Reads, p.Tables, amount(float64(p.Heap)))
	}
	fmt.Fprintln(w)
}
