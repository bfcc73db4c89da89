package sealfs_test

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/metamorphic"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/seed"
)

var (
	metaRounds = flag.Int("metamorphic.rounds", 2, "how many random operations and options of Pebble's metamorphic test are compared")
	metaOps    = flag.Uint64("metamorphic.ops", 1500, "how many operations each has")
)

// sealedOption seals the file system of a metamorphic test, also that which a simulated crash of the
// machine left.
type sealedOption struct{ g *rig }

func (o sealedOption) Name() string                { return "TestOptions.sealed" }
func (o sealedOption) Value() string               { return "true" }
func (o sealedOption) Close(*pebble.Options) error { return nil }
func (o sealedOption) Open(opts *pebble.Options) error {
	opts.FS = o.g.over(opts.FS)
	return nil
}

// history is what a run wrote. What the engine says in the background comes after the run too.
type history struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (h *history) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.Write(p)
}

func (h *history) bytes() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Clone(h.b.Bytes())
}

// Pebble's own metamorphic test: random operations, under random options, have the same history on
// sealed files as on plain ones. Some of the operations are crashes of the machine, after which what
// was synced has to be there.
func TestMetamorphic(t *testing.T) {
	kf := metamorphic.TestkeysKeyFormat
	first := seed.Of(t)
	for seed := first; seed < first+uint64(*metaRounds); seed++ {
		t.Logf("seed %d", seed)
		dir := t.TempDir()
		var paths []string
		for _, name := range []string{"plain", "sealed"} {
			// The same randomness for both.
			ops := metamorphic.GenerateOps(rand.New(rand.NewPCG(seed, 1)), *metaOps, kf, metamorphic.DefaultOpConfig())
			opts := metamorphic.RandomOptions(rand.New(rand.NewPCG(seed, 2)), kf, metamorphic.RandomOptionsCfg{AlwaysStrictFS: seed%2 == 0, NoRemoteStorage: true, NoWALFailover: true})
			if name == "sealed" {
				opts.CustomOpts = append(opts.CustomOpts, sealedOption{newRig(t, nil)})
			}
			path := filepath.Join(dir, name)
			history := new(history)
			m, err := metamorphic.New(ops, opts, "data", history)
			require.NoError(t, err)
			require.NoError(t, metamorphic.Execute(m))
			require.NoError(t, os.WriteFile(path, history.bytes(), 0o600)) // which a full disk fails
			paths = append(paths, path)
		}
		i, diff := metamorphic.CompareHistories(t, paths)
		require.Zero(t, i, "seed %d: %s", seed, diff)
	}
}
