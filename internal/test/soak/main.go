// Soak runs a store for a given time as a bad day would: processes that write, read
// and rotate keys are killed again and again, the key's owner takes the permission
// away and gives it back, the key gets new versions. After each kill everything that
// was acknowledged is looked for, and at the end everything is verified once more.
//
//	go run ./internal/test/soak -for 2m
//
// The result is a page in Markdown. The exit status is 1 if anything was lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/test/ledger"
	"github.com/blockseal/blockseal/internal/test/load"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/local"
)

// check is how often a store asks the vault: a soak has no time to wait minutes.
const check = 200 * time.Millisecond

// child makes this process the one under load, if it was started as that.
func child() {
	load.Child(func(o *load.Options) {
		// The vault is a file, which always answers: a call that takes long is one on a
		// machine that is busy, and no reason to fail.
		o.Keyring = keyring.Options{CheckEvery: check, Lease: 10 * check, VaultTimeout: time.Minute}
		o.Counts = new(load.Counts)
		go report(o.Counts)
	})
}

func main() {
	child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// countsLine is how a process says what it has done, before it is killed.
const countsLine = "counts "

func report(c *load.Counts) {
	for {
		time.Sleep(50 * time.Millisecond)
		fmt.Fprintf(os.Stderr, "%s%d %d %d %d\n", countsLine, c.Writes.Load(), c.Reads.Load(), c.Rotations.Load(), c.Refused.Load())
	}
}

// result is what a soak has done.
type result struct {
	kills, revocations                int
	writes, reads, rotations, refused uint64
	took                              time.Duration
	seed                              uint64
	loss                              error
}

var errTooShort = errors.New("nothing was written: give it longer")

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	length := flags.Duration("for", 2*time.Minute, "how long")
	file := flags.String("o", "", "write the result to this `file` too")
	dir := flags.String("dir", "", "where the store is made and kept (default: a temporary directory)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	drawn, err := seed.Parse(os.Getenv(seed.Variable)) // of what happens, and when
	if err != nil {
		return err
	}
	if *dir == "" {
		tmp, err := os.MkdirTemp("", "blockseal-soak-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		*dir = tmp
	}
	r := result{seed: drawn}
	start := time.Now()
	r.loss = r.soak(ctx, *dir, *length, rand.New(rand.NewPCG(drawn, 0)))
	r.took = time.Since(start)
	page := r.page()
	fmt.Fprint(out, page)
	if *file != "" {
		if err := os.WriteFile(*file, []byte(page), 0o644); err != nil {
			return err
		}
	}
	if r.loss != nil {
		return r.loss
	}
	if r.kills == 0 || r.writes == 0 {
		return errTooShort
	}
	return nil
}

func (r *result) soak(ctx context.Context, dir string, length time.Duration, rng *rand.Rand) error {
	d, err := load.Prepare(ctx, dir)
	if err != nil {
		return err
	}
	l := ledger.New(nil)
	for end := time.Now().Add(length); time.Now().Before(end) && ctx.Err() == nil; {
		if err := r.round(ctx, d, l, rng, min(time.Duration(300+rng.IntN(3000))*time.Millisecond, time.Until(end)+100*time.Millisecond)); err != nil {
			return fmt.Errorf("after %d kills: %w", r.kills, err)
		}
	}
	return d.Check(ctx, l)
}

// round is the life of one process.
func (r *result) round(ctx context.Context, d load.Dir, l *ledger.Ledger, rng *rand.Rand, life time.Duration) error {
	p, err := d.Start(l, rng.Uint64())
	if err != nil {
		return err
	}
	owner := make(chan error, 1)
	revoke := rng.IntN(3) == 0
	go func() { owner <- r.own(ctx, d, revoke, life) }()
	err = p.Kill(life, l)
	err = errors.Join(err, <-owner)
	r.kills++
	r.count(p.Stderr())
	if err != nil {
		return err
	}
	return d.Check(ctx, l)
}

// own is the key's owner during a process's life.
func (r *result) own(ctx context.Context, d load.Dir, revoke bool, life time.Duration) (err error) {
	if !revoke {
		return nil
	}
	v, err := d.OpenVault()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	time.Sleep(life / 4)
	if err := v.Revoke(ctx, load.Identity, local.DataPlane()...); err != nil {
		return err
	}
	r.revocations++
	time.Sleep(life / 4)
	return v.Grant(ctx, load.Identity, local.DataPlane()...)
}

// count adds what a process said last that it had done.
func (r *result) count(stderr string) {
	i := strings.LastIndex(stderr, countsLine)
	if i < 0 {
		return
	}
	line, _, _ := strings.Cut(stderr[i+len(countsLine):], "\n")
	for n, f := range strings.Fields(line) {
		v, _ := strconv.ParseUint(f, 10, 64)
		*[]*uint64{&r.writes, &r.reads, &r.rotations, &r.refused}[min(n, 3)] += v
	}
}

func (r *result) page() string {
	verdict := "**Nothing was lost.** Every version that was acknowledged was there after each kill, every batch whole, and the store verified."
	if r.loss != nil {
		verdict = "**Failed:** " + r.loss.Error()
	}
	return fmt.Sprintf(`# Soak

%s

| | |
|---|---|
| time | %v |
| machine | %s/%s, %d cores, %s |
| seed | %d |
| processes killed | %d |
| blocks written and acknowledged | %d |
| reads that were compared | %d |
| rotations (epoch, KEK, rekey, erase, rewrap) | %d |
| revocations | %d |
| operations refused while the key was away | %d |
`, verdict, r.took.Round(time.Second), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), r.seed,
		r.kills, r.writes, r.reads, r.rotations, r.revocations, r.refused)
}
