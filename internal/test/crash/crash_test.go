// Package crash is a campaign: a store under a random load of several writers and
// every rotation is stopped at random moments, as a crash of the machine would, and
// what is left is opened and compared with what was acknowledged.
//
//	go test ./internal/test/crash -run Campaign -v                      # a hundred crashes
//	go test ./internal/test/crash -run Campaign -v -clones 5000 -timeout 2h
//	BLOCKSEAL_SEED=7 go test ./internal/test/crash -run Campaign -v     # the same load again
package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/ledger"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var (
	clones = flag.Int("clones", 100, "crashes to look at")
)

const (
	writers  = 3
	ids      = 12 // a writer
	perStore = 25 // crashes before the load begins again on a new store
)

// world is a store under load, and what was promised of it.
type world struct {
	t       *testing.T
	ctx     context.Context
	rng     *rand.Rand
	fs      *vfs.MemFS
	locking sync.Mutex
	vaults  []*vaulttest.Vault
	keks    []*kek.KEK
	opts    block.Options
	s       *block.Store
	ledger  *ledger.Ledger
	groups  [][]string
	ops     sync.Map // name of an operation: *atomic.Int64
}

// lockFS keeps locking a file and making a link apart from cloning the file system: MemFS takes the same
// lock twice for them, and a clone in between would stop both for ever.
type lockFS struct {
	vfs.FS
	mu *sync.Mutex
}

func (f lockFS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.FS.Lock(name)
}

func (f lockFS) Link(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.FS.Link(from, to)
}

func newWorld(t *testing.T, rng *rand.Rand) *world {
	w := &world{t: t, ctx: context.Background(), rng: rng, fs: vfs.NewCrashableMem(), ledger: ledger.New(nil)}
	for i := range 2 {
		v := vaulttest.New(&vaulttest.Options{Name: fmt.Sprintf("mem:vault-%d", i)})
		w.vaults = append(w.vaults, v)
		w.keks = append(w.keks, kek.New(v, v.CreateKey("key").Versionless()))
	}
	w.opts = block.Options{Pebble: block.PebbleOptions{MemTable: 256 << 10, BlockCache: 1 << 20}, RowCache: 64 << 10, RecordCache: 4 << 10, VaultRate: 1 << 30, ManualRewrap: true}
	w.opts.Keyring.OtherKEKs = w.keks
	w.opts.Keyring.EpochMaxDEKs = 2000
	if rng.IntN(4) == 0 {
		w.opts.Keyring.Wrapping = keyring.ByKEK
	}
	for i := range writers {
		w.groups = append(w.groups, []string{fmt.Sprintf("%d/group/1", i), fmt.Sprintf("%d/group/2", i), fmt.Sprintf("%d/group/3", i)})
	}
	w.s = w.open(w.fs)
	return w
}

// open opens the store in fs, by whichever KEK it is on.
func (w *world) open(fs *vfs.MemFS) *block.Store {
	w.t.Helper()
	opts := w.opts
	opts.Pebble.FS = lockFS{fs, &w.locking}
	var errs []error
	for _, k := range w.keks {
		s, err := block.Open(w.ctx, "store", k, &opts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if s.State().Status == keyring.Available {
			return s
		}
		errs = append(errs, s.State().Cause, s.Close())
	}
	require.NoError(w.t, errors.Join(errs...), "no KEK opens it")
	return nil
}

func (w *world) count(op string) {
	n, _ := w.ops.LoadOrStore(op, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// write is one writer, until stop.
func (w *world) write(n int, rng *rand.Rand, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		change, op := w.groups[n], "batch"
		if rng.IntN(3) > 0 {
			change, op = []string{fmt.Sprintf("%d/%02d", n, rng.IntN(ids))}, "put or delete"
		}
		v := w.ledger.BeginAll(change)
		if err := ledger.Change(w.ctx, w.s, v, change...); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		w.ledger.Ack(v, change...)
		w.count(op)
	}
}

// rotate does one thing after the other that changes keys, until stop.
func (w *world) rotate(rng *rand.Rand, stop <-chan struct{}) error {
	current := 0
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(time.Duration(rng.IntN(5)) * time.Millisecond):
		}
		var err error
		var op string
		switch rng.IntN(7) {
		case 0:
			op, err = "RotateEpoch", w.s.RotateEpoch(w.ctx, nil)
		case 1:
			op, err = "Rekey", w.s.Rekey(w.ctx, block.Range{}, nil)
		case 2:
			op = "Erase"
			if _, err = w.s.Erase(w.ctx, nil); errors.Is(err, block.ErrPinned) {
				op, err = "Erase refused beside open batches", nil
			}
		case 3:
			w.vaults[current].Rotate("key")
			op, err = "RotateKEK", w.s.RotateKEK(w.ctx)
		case 4:
			current = 1 - current
			op, err = "ChangeKEK", w.s.ChangeKEK(w.ctx, w.keks[current])
		case 5:
			op, err = "RewrapDEKs", w.s.RewrapDEKs(w.ctx, nil)
		case 6:
			op, err = "Checkpoint", w.checkpoint()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		w.count(op)
	}
}

// checkpoint makes a copy in place of the one before: the file system is cloned again
// and again, and must not grow.
func (w *world) checkpoint() error {
	copies, err := w.s.Copies(w.ctx)
	for _, c := range copies {
		err = errors.Join(err, w.s.ForgetCopy(w.ctx, c.Instance))
	}
	if err != nil {
		return err
	}
	if err := w.fs.RemoveAll("copy"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return w.s.Checkpoint(w.ctx, "copy")
}

// crash is what a crash left, and the bounds of what it may hold.
type crash struct {
	fs          *vfs.MemFS
	kept        int // percent of what was not synced
	least, most map[string]uint64
}

// run puts the store under load and returns what n crashes at random moments left.
func (w *world) run(n int) (crashes []crash) {
	stop := make(chan struct{})
	errs := make(chan error, writers+1)
	for i := range writers {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), uint64(i)))
		go func() { errs <- w.write(i, rng, stop) }()
	}
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), writers))
	go func() { errs <- w.rotate(rng, stop) }()
	for range n {
		time.Sleep(time.Duration(w.rng.IntN(30_000)) * time.Microsecond)
		c := crash{kept: []int{0, 50, 100}[w.rng.IntN(3)]}
		c.least = w.ledger.Acked()
		w.locking.Lock()
		c.fs = w.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.kept, RNG: rand.New(rand.NewPCG(w.rng.Uint64(), 1))})
		w.locking.Unlock()
		c.most = w.ledger.Begun()
		crashes = append(crashes, c)
	}
	close(stop)
	for range writers + 1 {
		require.NoError(w.t, <-errs)
	}
	return crashes
}

// check opens what a crash left.
func (w *world) check(c crash) {
	s := w.open(c.fs)
	defer func() { require.NoError(w.t, s.Close()) }()
	_, err := ledger.Check(w.ctx, s, c.least, c.most, w.groups...)
	require.NoError(w.t, err, "%d%% of what was not synced kept", c.kept)
	// And it goes on from there: what was cut off is finished, and nothing is lost.
	require.NoError(w.t, s.RotateEpoch(w.ctx, nil))
	require.NoError(w.t, s.Rekey(w.ctx, block.Range{}, nil))
	_, err = ledger.Check(w.ctx, s, c.least, c.most, w.groups...)
	require.NoError(w.t, err, "after the rotations that follow")
}

func TestCampaign(t *testing.T) {
	t.Logf("-clones %d", *clones)
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	looked, versions := 0, uint64(0)
	total := map[string]int64{}
	for looked < *clones {
		w := newWorld(t, rng)
		for _, c := range w.run(min(perStore, *clones-looked)) {
			w.check(c)
			looked++
		}
		_, err := ledger.Check(w.ctx, w.s, w.ledger.Acked(), w.ledger.Acked(), w.groups...)
		require.NoError(t, err, "the store itself")
		require.NoError(t, w.s.Close())
		_, n := w.ledger.Versions()
		versions += n
		w.ops.Range(func(op, n any) bool {
			total[op.(string)] += n.(*atomic.Int64).Load()
			return true
		})
	}
	require.Equal(t, *clones, looked)
	t.Logf("%d crashes looked at, 0 losses; %d versions acknowledged; operations: %v", looked, versions, total)
}
