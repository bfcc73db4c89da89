package sealfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// rig is a keyring on a vault in memory and a clock that the test moves.
type rig struct {
	t       testing.TB
	clock   *clock
	vault   *vaulttest.Vault
	key     vault.KeyID
	kek     *kek.KEK
	storage *keyring.MemStorage
	ring    *keyring.Keyring
}

var background = context.Background()

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRig(t testing.TB, opts *keyring.Options) *rig {
	t.Helper()
	clock := &clock{Clock: vaulttest.NewClock(start)}
	v := vaulttest.New(&vaulttest.Options{Clock: clock.Clock})
	id := v.CreateKey("operator")
	g := &rig{t: t, clock: clock, vault: v, key: id, kek: kek.New(v, id.Versionless()), storage: new(keyring.MemStorage)}
	var o keyring.Options
	if opts != nil {
		o = *opts
	}
	o.Clock = clock
	var err error
	g.ring, err = keyring.Create(t.Context(), g.storage, g.kek, &o)
	require.NoError(t, err)
	t.Cleanup(func() { g.ring.Close() })
	return g
}

// clock counts who waits for access, and looks again after a tenth of a second.
type clock struct {
	*vaulttest.Clock
	looks atomic.Int64
}

func (c *clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	stop = c.Clock.AfterFunc(d, f)
	if d == 100*time.Millisecond {
		c.looks.Add(1)
	}
	return stop
}

// waits holds that n operations wait for access, since looks were counted.
func (g *rig) waits(since int64, n int64) {
	g.t.Helper()
	require.Eventually(g.t, func() bool { return g.clock.looks.Load() >= since+n }, time.Minute, time.Millisecond)
}

// again opens a keyring on the same document, as another process would.
func (g *rig) again() *keyring.Keyring {
	g.t.Helper()
	r, err := keyring.Open(g.t.Context(), g.storage, g.kek, &keyring.Options{Clock: g.clock})
	require.NoError(g.t, err)
	g.t.Cleanup(func() { r.Close() })
	return r
}

// over returns a sealed file system on one beneath.
func (g *rig) over(under vfs.FS) *sealfs.FS {
	g.t.Helper()
	fs, err := sealfs.New(under, g.ring, nil)
	require.NoError(g.t, err)
	return fs
}

// deny takes the key away, and waits until the keyring knows.
func (g *rig) deny() {
	g.vault.SetEnabled(g.key, false)
	_ = g.ring.Revalidate(g.t.Context())
	require.Equal(g.t, keyring.Inaccessible, g.ring.State().Status)
}

// allow gives it back.
func (g *rig) allow() {
	g.vault.SetEnabled(g.key, true)
	require.NoError(g.t, g.ring.Revalidate(g.t.Context()))
}

// content is reproducible, and different for every seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7})
	r.Read(b)
	return b
}

func write(t testing.TB, fs vfs.FS, name string, parts ...[]byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	for _, p := range parts {
		n, err := f.Write(bytes.Clone(p))
		require.NoError(t, err)
		require.Equal(t, len(p), n)
	}
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
}

func read(fs vfs.FS, name string) (b []byte, err error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(f)
}

func mustRead(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	b, err := read(fs, name)
	require.NoError(t, err)
	return b
}

// raw returns and replaces what is beneath.
func raw(t testing.TB, under vfs.FS, name string) []byte { return mustRead(t, under, name) }

func putRaw(t testing.TB, under vfs.FS, name string, b []byte) { write(t, under, name, b) }

// logger passes nothing on and remembers what would have ended the process.
type logger struct {
	mu    sync.Mutex
	fatal []string
}

func (l *logger) Infof(string, ...any)  {}
func (l *logger) Errorf(string, ...any) {}
func (l *logger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	l.fatal = append(l.fatal, fmt.Sprintf(format, args...))
	l.mu.Unlock()
	panic(fmt.Sprintf(format, args...))
}

// pebbleOptions are those of a small database with everything in it: tables, blob files, logs that
// are reused.
func pebbleOptions(fs vfs.FS) *pebble.Options {
	o := &pebble.Options{
		FS: fs, FormatMajorVersion: pebble.FormatNewest, Logger: &logger{},
		MemTableSize: 64 << 10, L0CompactionThreshold: 2,
	}
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{Enabled: true, MinimumSize: 512, MaxBlobReferenceDepth: 5, TargetGarbageRatio: 0.5}
	}
	for i := range o.Levels {
		o.Levels[i].Compression = nil
	}
	return o
}

// goexitLogger ends the goroutine instead of the process.
type goexitLogger struct {
	mu    sync.Mutex
	fatal []string
}

func (l *goexitLogger) Infof(string, ...any)  {}
func (l *goexitLogger) Errorf(string, ...any) {}
func (l *goexitLogger) Fatalf(format string, args ...any) {
	l.mu.Lock()
	l.fatal = append(l.fatal, fmt.Sprintf(format, args...))
	l.mu.Unlock()
	runtime.Goexit()
}

func (l *goexitLogger) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.fatal) > 0
}
