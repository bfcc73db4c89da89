package sealfs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/seldom"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

var everyIO = flag.Bool("everyio", false, "fail, and crash at, every operation on the disk, not a sample")

// life is a short one in a directory. said is called when a write was acknowledged, with how many were.
func life(fs *sealfs.FS, dir string, said func(n int)) error {
	db, err := pebble.Open(fs.PathJoin(dir, "db"), pebbleOptions(fs))
	if err != nil {
		return err
	}
	for i := range 120 {
		if err := db.Set(fmt.Appendf(nil, "%05d", i), content(uint64(i), 700), pebble.Sync); err != nil {
			return errors.Join(err, db.Close())
		}
		said(i + 1)
		switch i {
		case 50:
			err = db.Flush()
		case 80:
			err = db.Compact(background, []byte("0"), []byte("9"), false)
		case 100:
			err = db.Checkpoint(fs.PathJoin(dir, "copy"))
		case 110:
			_, err = fs.RotateEpoch(background, fs.PathJoin(dir, "db"), fs.PathJoin(dir, "copy"))
		}
		if err != nil {
			return errors.Join(err, db.Close())
		}
	}
	return db.Close()
}

// least holds that the first writes of a life are there.
func least(t *testing.T, fs *sealfs.FS, dir string, want int, why string) {
	t.Helper()
	db, err := pebble.Open(fs.PathJoin(dir, "db"), pebbleOptions(fs))
	require.NoError(t, err, why)
	for i := range want {
		v, closer, err := db.Get(fmt.Appendf(nil, "%05d", i))
		require.NoError(t, err, "%s: write %d of %d is lost", why, i, want)
		require.True(t, bytes.Equal(content(uint64(i), 700), v))
		require.NoError(t, closer.Close())
	}
	require.NoError(t, db.Close())
}

// The machine may stop before any operation on the disk in a short life, with none, half or all kept of
// what was not synced: what was acknowledged is there, with the keyring document of that moment.
func TestCrashAtEveryIO(t *testing.T) {
	type crash struct {
		at, acknowledged int
		fs               *vfs.MemFS
		document         []byte
	}
	g := newRig(t, nil)
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex
	var crashes []crash
	n, acknowledged := 0, 0
	fs := g.over(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; op.Kind.ReadOrWrite() == errorfs.OpIsWrite && (*everyIO || n%7 == 0) {
			document, _, err := g.storage.Load(background)
			if err != nil {
				return err
			}
			crashes = append(crashes, crash{n, acknowledged,
				mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[len(crashes)%3], RNG: rand.New(rand.NewPCG(uint64(n), 1))}), document})
		}
		return nil
	})))
	require.NoError(t, life(fs, "", func(n int) {
		mu.Lock()
		acknowledged = n
		mu.Unlock()
	}))
	require.Greater(t, len(crashes), 20)
	for _, c := range crashes {
		storage := new(keyring.MemStorage)
		_, err := storage.Swap(background, "", c.document)
		require.NoError(t, err)
		ring, err := keyring.Open(t.Context(), storage, g.kek, &keyring.Options{Clock: g.clock})
		require.NoError(t, err)
		after, err := sealfs.New(c.fs, ring, nil)
		require.NoError(t, err)
		least(t, after, "", c.acknowledged, fmt.Sprintf("crash before operation %d", c.at))
		require.NoError(t, ring.Close())
	}
	t.Logf("%d crashes at %d operations", len(crashes), n)
}

// In a process of its own, which Pebble ends when it cannot go on: TestMain calls it.
func failOneIO(dir string, at int64) error {
	k, err := fixedKEK(goldenDir)
	if err != nil {
		return err
	}
	r, err := keyring.OpenOrCreate(background, keyring.FileStorage(filepath.Join(dir, "KEYRING")), k, nil)
	if err != nil {
		return err
	}
	var n atomic.Int64
	fs, err := sealfs.New(errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if n.Add(1)-1 != at {
			return nil
		}
		fmt.Println("failed", op.Kind, op.Path)
		return errorfs.ErrInjected
	})), r, nil)
	if err != nil {
		return err
	}
	return errors.Join(life(fs, dir, func(n int) { fmt.Println("acknowledged", n) }), r.Close())
}

const failVariable = "SEALFS_TEST_FAIL_IO"

func TestMain(m *testing.M) {
	if dir, at, ok := strings.Cut(os.Getenv(failVariable), "|"); ok {
		n, err := strconv.ParseInt(at, 10, 64)
		if err == nil {
			err = failOneIO(dir, n)
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	seldom.Collect()
	os.Exit(m.Run())
}

// Every operation on the disk in a short life may fail, once, on a real disk and in a process of its
// own: an error, or the engine's end, and what was acknowledged is there afterwards. go test takes a
// sample.
func TestEveryIOFails(t *testing.T) {
	k, err := fixedKEK(goldenDir)
	require.NoError(t, err)
	outcomes := map[string]int{}
	for at := 0; ; {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d", failVariable, dir, at))
		var out bytes.Buffer
		cmd.Stdout = &out
		err := cmd.Run()
		if !strings.Contains(out.String(), "failed ") {
			require.NoError(t, err, out.String())
			break
		}
		acknowledged := 0
		for line := range strings.Lines(out.String()) {
			if n, ok := strings.CutPrefix(strings.TrimSpace(line), "acknowledged "); ok {
				acknowledged, err = strconv.Atoi(n)
				require.NoError(t, err)
			}
		}
		switch code := cmd.ProcessState.ExitCode(); code {
		case 0:
			outcomes["nothing"]++
		case 3:
			outcomes["an error"]++
			require.Contains(t, out.String(), "injected error")
		default:
			outcomes["the engine's end"]++
		}
		r, err := keyring.Open(t.Context(), keyring.FileStorage(filepath.Join(dir, "KEYRING")), k, nil)
		require.NoError(t, err)
		fs, err := sealfs.New(vfs.Default, r, nil)
		require.NoError(t, err)
		least(t, fs, dir, acknowledged, fmt.Sprintf("operation %d, %s", at, out.String()))
		if acknowledged > 0 {
			_, err = fs.RotateEpoch(t.Context(), filepath.Join(dir, "db"))
			require.NoError(t, err)
			least(t, fs, dir, acknowledged, fmt.Sprintf("operation %d, after a rotation", at))
		}
		require.NoError(t, r.Close())
		at++
		if !*everyIO {
			at += at / 6
		}
	}
	t.Log(outcomes)
	require.NotEmpty(t, outcomes)
}
