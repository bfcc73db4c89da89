package pause_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/enginetest"
	"github.com/blockseal/blockseal/internal/engine/pause"
	"github.com/blockseal/blockseal/internal/engine/pebble"
)

// onFS is an engine that can be paused, over one on a file system.
type onFS struct {
	*pause.Engine
	fs   *vfs.MemFS
	lock *pebble.Lock
}

func (e onFS) Close() error {
	if err := e.Engine.Close(); err != nil {
		return err
	}
	return e.lock.Close()
}

var errPaused = errors.New("it is paused")

// openOn opens an engine, pauses it, and opens it again: the suite is to see no difference.
func openOn(t enginetest.T, fs *vfs.MemFS, dir string, o pebble.Options) onFS {
	lock, err := pebble.LockDir(dir, fs, o.ReadOnly)
	require.NoError(t, err)
	e := pause.New(errPaused, nil, nil)
	for range 2 {
		require.NoError(t, e.Pause(errPaused, func() {}))
		o.FS = pebble.NewSeverFS(fs)
		beneath, err := pebble.Open(dir, lock, o)
		require.NoError(t, err)
		require.NoError(t, e.Resume(beneath))
	}
	return onFS{e, fs, lock}
}

func TestPausedPebbleConforms(t *testing.T) {
	var copies atomic.Uint64
	enginetest.Run(t, enginetest.Subject{
		New: func(t enginetest.T) engine.Engine {
			fs := vfs.NewCrashableMem()
			require.NoError(t, fs.MkdirAll("db", 0o755))
			return openOn(t, fs, "db", pebble.Options{Create: true})
		},
		Crash: func(t enginetest.T, e engine.Engine) engine.Engine {
			left := e.(onFS).fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 2))})
			return openOn(t, left, "db", pebble.Options{})
		},
		Copy: func(t enginetest.T, e engine.Engine, frozen func(raise func(partition, epoch uint32))) engine.Engine {
			dir := fmt.Sprintf("copy%d", copies.Add(1))
			require.NoError(t, e.(engine.Checkpointer).Checkpoint(t.(*testing.T).Context(), dir, frozen))
			return openOn(t, e.(onFS).fs, dir, pebble.Options{ReadOnly: true})
		},
		Bytes: func(t enginetest.T, e engine.Engine) (all []byte) {
			fs := e.(onFS).fs
			names, err := fs.List("db")
			require.NoError(t, err)
			for _, name := range names {
				f, err := fs.Open("db/" + name)
				if errors.Is(err, os.ErrNotExist) {
					continue // Pebble has removed it meanwhile
				}
				require.NoError(t, err)
				b, err := io.ReadAll(f)
				require.NoError(t, err)
				require.NoError(t, f.Close())
				all = append(all, b...)
			}
			return all
		},
	})
}
