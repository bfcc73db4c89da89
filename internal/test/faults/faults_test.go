// Package faults is a campaign: the disk fails at one operation after the other of a
// short load, from the making of the store on, with EIO once or with ENOSPC from then
// on, and what the process saw and left is looked at.
//
//	go test ./internal/test/faults -v                     # a sample of the operations
//	go test ./internal/test/faults -v -every -timeout 2h  # each of them
//
// What the embedding program sees is one of five things, and [TestCampaign] accepts
// no other:
//
//   - nothing: the engine did the work another way (it deletes a file later, or makes
//     a table again);
//   - an operation that waits: a flush or compaction that finds the disk full is tried
//     again until there is room, and what needs it waits, at the most as long as it
//     was given;
//   - an error of the operation that needed the disk, such as Open, Put or Commit; the
//     change it was about may or may not be there;
//   - the end of the process with status 1, after block.Options.Pebble.Fatal, when a write to
//     the log or the manifest failed: Pebble cannot go on then;
//   - the end of the process by the Go runtime, status 2, without Fatal, where Pebble
//     panics, without its lock or on a goroutine of its own, so that nobody can catch
//     it: when one log could not be closed or the next one not be made, for one.
//
// In each case everything that was acknowledged is there when the store is opened
// again.
package faults

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/ledger"
	"github.com/blockseal/blockseal/internal/test/load"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/internal/test/seldom"
)

var (
	every = flag.Bool("every", false, "fail at every operation, not at a sample of them")
)

const (
	sample   = 10               // operations, for each kind of failure
	patience = 2 * time.Second  // with a process that may wait for a disk that stays full
	most     = 10 * time.Minute // for one that must end, on a machine that is busy
	envIndex = "BLOCKSEAL_FAULT_INDEX"
	envKind  = "BLOCKSEAL_FAULT_KIND"
	counted  = "operations: "
)

// kinds are the failures: whether they stay, and what they are.
var kinds = map[string]struct {
	stays bool
	err   error
}{
	"EIO once":         {false, syscall.EIO},
	"ENOSPC from then": {true, syscall.ENOSPC},
}

func TestMain(m *testing.M) {
	load.Child(func(o *load.Options) {
		index, err := strconv.ParseInt(os.Getenv(envIndex), 10, 64)
		if err != nil {
			panic(err)
		}
		kind := kinds[os.Getenv(envKind)]
		var n atomic.Int64
		o.FS = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
				return nil
			}
			at := n.Add(1) - 1
			if index < 0 { // only count
				fmt.Fprintln(os.Stderr, counted+strconv.FormatInt(at+1, 10))
				return nil
			}
			if at == index || kind.stays && at > index {
				return kind.err
			}
			return nil
		}))
		o.Writes, o.Once = 6, true
	})
	seldom.Collect()
	os.Exit(m.Run())
}

// run is one process on a new store whose disk fails at an operation, and what it
// left.
func run(t *testing.T, d load.Dir, index int, kind string, seed uint64) (status int, stderr string) {
	ctx := context.Background()
	require.NoError(t, os.RemoveAll(d.Store()))
	l := ledger.New(nil)
	p, err := d.Start(l, seed, envIndex+"="+strconv.Itoa(index), envKind+"="+kind)
	require.NoError(t, err)
	limit := most
	if kinds[kind].stays {
		limit = patience
	}
	status, stderr, err = p.Wait(limit, l)
	require.NoError(t, err)
	require.NoError(t, d.Check(ctx, l), "operation %d, %s, exit status %d:\n%s", index, kind, status, stderr)
	return status, stderr
}

func TestCampaign(t *testing.T) {
	t.Logf("-every %t", *every)
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	d, err := load.Prepare(context.Background(), t.TempDir())
	require.NoError(t, err)
	status, stderr := run(t, d, -1, "", rng.Uint64())
	require.Zero(t, status, stderr)
	total, err := strconv.Atoi(stderr[strings.LastIndex(stderr, counted)+len(counted) : len(stderr)-1])
	require.NoError(t, err)
	require.Greater(t, total, 50)

	outcomes := map[string]int{}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		indexes := rng.Perm(total)
		if !*every {
			indexes = indexes[:sample]
		}
		for _, index := range indexes {
			status, stderr := run(t, d, index, kind, rng.Uint64())
			what := "operation %d, %s:\n%s"
			switch status {
			case -1:
				require.True(t, kinds[kind].stays, "a process that waits: "+what, index, kind, stderr)
				outcomes[kind+": waits"]++
			case 0:
				outcomes[kind+": nothing seen"]++
			case 1:
				require.Contains(t, stderr, "the storage engine cannot go on", what, index, kind, stderr)
				outcomes[kind+": process ended"]++
			case 2:
				require.Contains(t, stderr, "cockroachdb/pebble/v2.", what, index, kind, stderr)
				outcomes[kind+": process ended by the runtime"]++
			case 3:
				require.NotContains(t, stderr, "panic", what, index, kind, stderr)
				outcomes[kind+": error"]++
			default:
				require.Fail(t, "exit status", "%d: "+what, status, index, kind, stderr)
			}
		}
	}
	n := 0
	for _, k := range outcomes {
		n += k
	}
	t.Logf("%d of %d operations failed, 0 losses: %v", n, 2*total, outcomes)
}
