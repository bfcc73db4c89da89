package pebble

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
)

// onFS is an engine with the file system that it is on.
type onFS struct {
	*DB
	fs   *vfs.MemFS
	lock *Lock
}

func (e onFS) Close() error {
	if err := e.DB.Close(); err != nil {
		return err
	}
	return e.lock.Close()
}

func openOn(t enginetest.T, fs *vfs.MemFS, dir string, o Options) onFS {
	lock, err := LockDir(dir, fs, o.ReadOnly)
	require.NoError(t, err)
	o.FS = fs
	d, err := Open(dir, lock, o)
	require.NoError(t, err)
	return onFS{d, fs, lock}
}

func TestPebbleConforms(t *testing.T) {
	for name, o := range map[string]Options{
		"as it is":                           {},
		"with small memtables and few blobs": {MemTableBytes: 256 << 10, ValueSeparation: 300},
	} {
		t.Run(name, func(t *testing.T) {
			var copies atomic.Uint64
			o.Create = true
			enginetest.Run(t, enginetest.Subject{
				New: func(t enginetest.T) engine.Engine {
					fs := vfs.NewCrashableMem()
					require.NoError(t, fs.MkdirAll("db", 0o755))
					return openOn(t, fs, "db", o)
				},
				Crash: func(t enginetest.T, e engine.Engine) engine.Engine {
					left := e.(onFS).fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 2))})
					return openOn(t, left, "db", Options{})
				},
				Copy: func(t enginetest.T, e engine.Engine, frozen func(raise func(partition, epoch uint32))) engine.Engine {
					dir := fmt.Sprintf("copy%d", copies.Add(1))
					require.NoError(t, e.(engine.Checkpointer).Checkpoint(t.(*testing.T).Context(), dir, frozen))
					return openOn(t, e.(onFS).fs, dir, Options{ReadOnly: true})
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
		})
	}
}
