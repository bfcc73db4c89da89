package pebble

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// overlapping makes a directory whose next Open has a log to replay, and compactions to do: twelve tables
// and a log, one over the other.
func overlapping(t *testing.T) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewCrashableMem()
	o := Options{FS: mem, Create: true, NoTableStats: true, Fatal: func(msg string) { panic(msg) }}
	p := pebbleOptions(o, nil, mem, &logger{fatal: o.Fatal}, newRoom(o), newRunning(), newScheduler())
	p.DisableAutomaticCompactions = true
	db, err := pebble.Open("db", p)
	require.NoError(t, err)
	for i := range 13 {
		for k := range 10 {
			require.NoError(t, db.Set(fmt.Appendf(nil, "m%d", k), fmt.Append(nil, i), pebble.Sync))
		}
		if i < 12 {
			require.NoError(t, db.Flush())
		}
	}
	require.NoError(t, db.Close())
	return mem
}

func requireOverlapping(t *testing.T, e *DB) {
	t.Helper()
	for k := range 10 {
		v, c, err := e.Get(fmt.Appendf(nil, "m%d", k))
		require.NoError(t, err)
		require.Equal(t, "12", string(v))
		require.NoError(t, c.Close())
	}
}

// working reports whether a goroutine of any Pebble flushes, compacts or looks at tables. One that waits in
// the log of an Open that failed does nothing.
func working() bool {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, does := range []string{"(*DB).flush", "(*DB).compact", "(*DB).collectTableStats"} {
		if bytes.Contains(stacks, []byte(does)) {
			return true
		}
	}
	return false
}

// TestEveryIOFailsWhileItIsOpened fails each operation on the disk of an Open that has a log to replay and
// compactions to do. Open returns an error or an engine, or the MANIFEST cannot be written and Fatal is called
// (docs/adr/0006-wal-failure-ends-the-process.md; where the directory cannot be synced after that, which is left
// out here, Pebble panics by intent). Nothing goes on after an error, which would panic, and
// everything is there the next time.
func TestEveryIOFailsWhileItIsOpened(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("statistics %t", plain), func(t *testing.T) { everyIOFails(t, !plain) })
	}
}

func everyIOFails(t *testing.T, noTableStats bool) {
	clone := func(fs *vfs.MemFS) *vfs.MemFS { // without its locks
		return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
	}
	left := overlapping(t)
	outcomes := map[string]int{}
	for at := int64(0); ; at++ {
		disk := clone(left)
		var n atomic.Int64
		var what atomic.Value
		var over atomic.Bool // Open has come to its end
		o := Options{NoTableStats: noTableStats}
		var moved atomic.Bool // the marker, which says which MANIFEST it is, and not yet durably
		o.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			marker := strings.HasPrefix(path.Base(op.Path), "marker.manifest.")
			if moved.Swap(marker) && !marker || over.Load() || n.Add(1)-1 != at {
				return nil
			}
			what.Store(fmt.Sprintf("operation %d, of kind %d: %s", at, op.Kind, op.Path))
			return syscall.EIO
		}))
		fatal := make(chan string, 1)
		o.Fatal = func(msg string) {
			fatal <- msg
			runtime.Goexit()
		}
		var e *DB
		var err error
		opened := make(chan struct{})
		go func() {
			e, err = Open("db", nil, o)
			close(opened)
		}()
		outcome := "opened"
		select {
		case <-opened:
			if err != nil {
				outcome = "error"
			}
		case msg := <-fatal:
			require.Contains(t, msg, "MANIFEST", what.Load())
			outcome = "fatal"
		}
		over.Store(true)
		if what.Load() == nil { // each was failed
			require.NoError(t, err)
			require.NoError(t, e.Close())
			break
		}
		outcomes[outcome]++
		if outcome == "opened" {
			requireOverlapping(t, e)
			require.NoError(t, e.Close(), what.Load())
		}
		require.Eventually(t, func() bool { return !working() }, time.Minute, time.Millisecond, what.Load())
		o = Options{FS: clone(disk), NoTableStats: noTableStats, Fatal: func(msg string) { panic(msg) }}
		e, err = Open("db", nil, o)
		require.NoError(t, err, what.Load())
		requireOverlapping(t, e)
		require.NoError(t, e.Close())
	}
	t.Logf("%v", outcomes)
	require.Greater(t, outcomes["error"], 20)
	require.NotZero(t, outcomes["opened"])
}
