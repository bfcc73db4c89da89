// Package load is a process that writes to a store on a real disk until it is killed:
// what the campaigns in internal/test/kill, internal/test/faults and internal/test/soak have in
// common. [Prepare] makes the directory, [Run] is the process, and [Dir.Check]
// compares what it left with what it had acknowledged.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/ledger"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// Dir is a directory with a vault and a store.
type Dir string

const (
	keyName  = "customer"
	Identity = "store" // that the store acts as
	writers  = 3
	ids      = 20 // a writer
)

var passphrase = []byte("a vault of a campaign")

func (d Dir) Vault() string { return filepath.Join(string(d), "vault") }
func (d Dir) Store() string { return filepath.Join(string(d), "store") }

// Groups are the ids that change together.
func Groups() (groups [][]string) {
	for w := range writers {
		groups = append(groups, []string{fmt.Sprintf("%d/group/1", w), fmt.Sprintf("%d/group/2", w)})
	}
	return groups
}

// Prepare makes a vault with a key, and a store on it.
func Prepare(ctx context.Context, dir string) (Dir, error) {
	d := Dir(dir)
	// The cost of guessing the passphrase protects nobody here.
	v, err := local.Create(d.Vault(), passphrase, &local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 1000}})
	if err != nil {
		return d, err
	}
	_, err = v.CreateKey(ctx, keyName, nil)
	if err == nil {
		err = v.Grant(ctx, Identity, local.DataPlane()...)
	}
	if err = errors.Join(err, v.Close()); err != nil {
		return d, err
	}
	s, close, err := d.Open(ctx, nil)
	if err != nil {
		return d, err
	}
	if s.State().Status != keyring.Available {
		return d, errors.Join(s.State().Cause, close())
	}
	return d, close()
}

// OpenVault opens the vault as its owner.
func (d Dir) OpenVault() (*local.Vault, error) {
	return local.Open(d.Vault(), passphrase, &local.Options{InsecureKDF: true})
}

// Open opens the store. close closes it and the vault.
func (d Dir) Open(ctx context.Context, opts *block.Options) (s *block.Store, close func() error, err error) {
	v, err := d.OpenVault()
	if err != nil {
		return nil, nil, err
	}
	var o block.Options
	if opts != nil {
		o = *opts
	}
	o.Pebble.MemTable, o.Pebble.BlockCache, o.RowCache, o.RecordCache = 1<<20, 1<<20, 256<<10, 64<<10
	s, err = block.Open(ctx, d.Store(), kek.New(v.As(Identity), vault.KeyID{Name: keyName}), &o)
	if err != nil {
		return nil, nil, errors.Join(err, v.Close())
	}
	return s, func() error { return errors.Join(s.Close(), v.Close()) }, nil
}

// Check opens the store and compares it with a ledger, which goes on from there.
func (d Dir) Check(ctx context.Context, l *ledger.Ledger) (err error) {
	s, close, err := d.Open(ctx, &block.Options{RequireAccess: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, close()) }()
	found, err := ledger.Check(ctx, s, l.Acked(), l.Begun(), Groups()...)
	if err == nil {
		l.Resume(found)
	}
	return err
}

// Counts is what a Run has done.
type Counts struct{ Writes, Reads, Rotations, Refused atomic.Int64 }

// Options configure a Run.
type Options struct {
	Seed    uint64
	FS      vfs.FS       // default: the operating system's
	Fatal   func(string) // block.Options.Pebble.Fatal
	Writes  int          // how many changes each writer makes; 0: until ctx is done
	Once    bool         // each kind of rotation once, after the writes, and no more
	Counts  *Counts      // nil: not counted
	Keyring keyring.Options
}

// Run opens the store and changes it, with every change in the ledger before it is
// begun and after it was acknowledged, and its keys, until ctx is done, the writes
// are made, or the process is killed. A store that goes Inaccessible refuses, and is
// waited for.
func (d Dir) Run(ctx context.Context, l *ledger.Ledger, o Options) (err error) {
	counts := o.Counts
	if counts == nil {
		counts = new(Counts)
	}
	s, close, err := d.Open(ctx, &block.Options{Pebble: block.PebbleOptions{FS: o.FS, Fatal: o.Fatal}, Keyring: o.Keyring})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, close()) }()
	run := &run{s: s, l: l, counts: counts, seed: o.Seed}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var writing, rotating sync.WaitGroup
	errs := make(chan error, writers+1)
	for w := range writers {
		writing.Go(func() { errs <- run.write(stop, w, o.Writes) })
	}
	if !o.Once {
		rotating.Go(func() { errs <- run.rotate(stop, d) })
	}
	writing.Wait()
	cancel()
	rotating.Wait()
	for range len(errs) {
		err = errors.Join(err, <-errs)
	}
	if o.Once && err == nil {
		_, erase := s.Erase(ctx, nil)
		err = errors.Join(erase, s.RotateKEK(ctx), s.Rekey(ctx, block.Range{}, nil), s.RotateEpoch(ctx, nil))
	}
	return err
}

type run struct {
	s      *block.Store
	l      *ledger.Ledger
	counts *Counts
	seed   uint64
}

// over reports whether an error only says that the run is over or that the store
// refuses for now; the change that met it may or may not have happened.
func (r *run) over(ctx context.Context, err error) (refused bool, _ error) {
	switch {
	case err == nil || ctx.Err() != nil:
		return false, nil
	case errors.Is(err, block.ErrInaccessible):
		r.counts.Refused.Add(1)
		return true, nil
	}
	return false, err
}

func (r *run) write(ctx context.Context, w, n int) error {
	rng := rand.New(rand.NewPCG(r.seed, uint64(w)))
	group := Groups()[w]
	for i := 0; ctx.Err() == nil && (n == 0 || i < n); i++ {
		change := group
		if rng.IntN(3) > 0 {
			change = []string{fmt.Sprintf("%d/%02d", w, rng.IntN(ids))}
		}
		v := r.l.BeginAll(change)
		err := ledger.Change(ctx, r.s, v, change...)
		if err == nil {
			r.l.Ack(v, change...)
			r.counts.Writes.Add(int64(len(change)))
		}
		refused, err := r.over(ctx, err)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if refused {
			r.s.Revalidate(ctx) // says no for as long as the vault does
			continue
		}
		if err := r.read(ctx, change[0]); err != nil {
			return err
		}
	}
	return nil
}

// read checks that a writer reads what it wrote.
func (r *run) read(ctx context.Context, id string) error {
	acked := r.l.Acked()[id]
	got, err := r.s.Get(ctx, []byte(id), nil)
	if ledger.Deletes(acked) && errors.Is(err, block.ErrNotFound) {
		return nil
	}
	if refused, err := r.over(ctx, err); err != nil || refused || ctx.Err() != nil {
		return err
	}
	if string(got) != string(ledger.Content(id, acked)) {
		return fmt.Errorf("%q is not version %d, which was acknowledged", id, acked)
	}
	r.counts.Reads.Add(1)
	return nil
}

func (r *run) rotate(ctx context.Context, d Dir) error {
	v, err := d.OpenVault()
	if err != nil {
		return err
	}
	defer v.Close()
	rng := rand.New(rand.NewPCG(r.seed, writers))
	for ctx.Err() == nil {
		var err error
		switch rng.IntN(5) {
		case 0:
			err = r.s.RotateEpoch(ctx, nil)
		case 1:
			err = r.s.Rekey(ctx, block.Range{}, nil)
		case 2:
			if _, err = r.s.Erase(ctx, nil); errors.Is(err, block.ErrPinned) {
				err = nil
			}
		case 3:
			if _, err = v.RotateKey(ctx, keyName); err == nil {
				err = r.s.RotateKEK(ctx)
			}
		case 4:
			err = r.s.RewrapDEKs(ctx, nil)
		}
		refused, err := r.over(ctx, err)
		if err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
		if !refused {
			r.counts.Rotations.Add(1)
		}
	}
	return nil
}
