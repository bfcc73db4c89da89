// Drill rehearses what a customer may do to the key of a store, under load, and
// measures what becomes of the store:
//
//	go run ./examples/drill
//	go run ./examples/drill -real -lease 20s
//
// It takes each permission away alone, disables the key, lets it expire, deletes
// it and cuts the network, and says for each how long the store stayed accessible,
// why it went Inaccessible, how many operations it refused, and how long it took to
// come back. Meanwhile it checks what blockseal promises: that nothing is read and
// nothing is acknowledged once the state says Inaccessible, and that every block
// that was acknowledged before is there afterwards. If that does not hold, or takes
// longer than it may, the drill ends with a non-zero status.
//
// The store is a scratch one and the vault is in memory (vault/vaulttest). Without
// -real so is the clock: the drill takes seconds and shows minutes.
//
// Read rehearsal.go first: what is rehearsed, and how one rehearsal goes. load.go
// is the load and what it checks, timeline.go the two clocks, report.go the output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/examples/internal/cli"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func main() { cli.Main("drill", run) }

const about = `Drill takes a store's key away in every way there is, under load, and gives it
back, and measures both.

  go run ./examples/drill [-real] [-lease DURATION] [-check DURATION]
`

// options are the command line.
type options struct {
	real         bool
	lease, check time.Duration
}

func parse(args []string, out io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("drill", flag.ContinueOnError)
	flags.BoolVar(&o.real, "real", false, "wait on the wall clock, about 25 minutes with the default lease\n(default: a simulated clock, seconds)")
	flags.DurationVar(&o.lease, "lease", keyring.DefaultLease, "how long a store serves when its vault does not answer, 1s to 10m")
	flags.DurationVar(&o.check, "check", 0, "the time between checks, at least 100ms and at most half the lease\n(default a tenth of the lease)")
	if err := cli.Parse(flags, about, args, out); err != nil {
		return o, err
	}
	if o.check == 0 {
		o.check = o.lease / 10
	}
	switch {
	case o.lease < time.Second || o.lease > keyring.MaxLease:
		return o, fmt.Errorf("-lease %v is not between 1s and %v; %w", o.lease, keyring.MaxLease, cli.ErrUsage)
	case o.check < 100*time.Millisecond || o.check > o.lease/2:
		return o, fmt.Errorf("-check %v is not between 100ms and half the lease, %v; %w", o.check, o.lease/2, cli.ErrUsage)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	out = cli.Fit(out)
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "blockseal-drill-")
	if err != nil {
		return err
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintf(out, "\nleft behind: %s: %v\n", dir, err)
		}
	}()
	d, err := newDrill(ctx, dir, o, out)
	if err != nil {
		return err
	}
	return errors.Join(d.run(ctx), d.close())
}

// drill is a scratch store with its vault, its clock, and the load on it.
type drill struct {
	options
	dir   string
	vault *vaulttest.Vault
	key   vault.KeyID
	kek   *kek.KEK
	time  timeline
	store *block.Store
	load  *load
	out   io.Writer
	line  *cli.Line
}

func newDrill(ctx context.Context, dir string, o options, out io.Writer) (*drill, error) {
	d := &drill{options: o, dir: dir, out: out, line: cli.NewLine(out)}
	vo := &vaulttest.Options{Name: "mem:drill"}
	if o.real {
		d.time = realTime{}
	} else {
		sim := newSimulation(o.check)
		d.time, vo.Clock = sim, sim.clock
	}
	d.vault = vaulttest.New(vo)
	d.key = d.vault.CreateKey("customer")
	d.kek = kek.New(d.vault, d.key)
	if err := d.open(ctx); err != nil {
		return nil, err
	}
	d.load = newLoad(d.store, o.real)
	return d, nil
}

// open opens the scratch store, which the first call creates.
func (d *drill) open(ctx context.Context) error {
	opts := &block.Options{Pebble: block.PebbleOptions{MemTable: 4 << 20}, Keyring: keyring.Options{Lease: d.lease, CheckEvery: d.check}}
	d.time.prepare(d.vault, &opts.Keyring)
	s, err := block.Open(ctx, filepath.Join(d.dir, "store"), d.kek, opts)
	if err != nil {
		return err
	}
	d.store = s
	d.time.opened(s)
	return nil
}

func (d *drill) close() error { return d.store.Close() }
