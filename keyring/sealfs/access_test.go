package sealfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// tick lets time go on until cond holds: who waits for access looks again on the keyring's clock.
func (g *rig) tick(cond func() bool) {
	g.t.Helper()
	require.Eventually(g.t, func() bool {
		g.clock.Advance(50 * time.Millisecond)
		runtime.Gosched()
		return cond()
	}, time.Minute, time.Millisecond)
}

func done(ch <-chan error) func() bool { return func() bool { return len(ch) > 0 } }

func async(f func() error) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- f() }()
	return ch
}

// Without access nothing is read, whatever a handle has in its buffers, and with it again everything.
func TestNothingIsReadWithoutAccess(t *testing.T) {
	g := newRig(t, nil)
	fs, _ := small(t, g)
	k := kinds(t, fs)
	open := map[string]vfs.File{}
	buf := make([]byte, 100)
	for name := range k {
		f, err := fs.Open(name)
		require.NoError(t, err)
		_, err = f.ReadAt(buf, 10)
		require.NoError(t, err)
		_, err = f.Read(buf[:50])
		require.NoError(t, err)
		open[name] = f
	}
	g.deny()
	for name, f := range open {
		for _, read := range []func() (int, error){
			func() (int, error) { return f.ReadAt(buf, 10) },
			func() (int, error) { return f.Read(buf) },
		} {
			clear(buf)
			n, err := read()
			require.ErrorIs(t, err, keyring.ErrInaccessible, name)
			require.ErrorIs(t, err, vault.ErrKeyDisabled)
			require.Zero(t, n)
			require.Equal(t, make([]byte, 100), buf)
		}
		_, err := fs.Open(name)
		require.ErrorIs(t, err, keyring.ErrInaccessible)
		_, err = fs.Stat(name)
		if name != "000002.sst" { // arithmetic
			require.ErrorIs(t, err, keyring.ErrInaccessible)
		}
	}
	_, err := fs.RotateEpoch(t.Context(), "")
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	// Names of directories, and removals, take no key.
	names, err := fs.List("")
	require.NoError(t, err)
	require.Len(t, names, 3)
	g.allow()
	for name, f := range open {
		n, err := f.Read(buf)
		require.NoError(t, err)
		require.Equal(t, k[name].content[50:50+n], buf[:n])
		require.NoError(t, f.Close())
		got, err := k[name].read()
		require.NoError(t, err)
		require.Equal(t, k[name].content, got)
	}
}

// What writes do without access, by Options.NoAccess and by why there is none.
func TestWritesWithoutAccess(t *testing.T) {
	outage := func(g *rig) {
		g.vault.SetOutage(vaulttest.NetworkGone())
		g.clock.Advance(11 * time.Minute)
		require.Eventually(g.t, func() bool { return g.ring.State().Status == keyring.Inaccessible }, time.Minute, time.Millisecond)
		require.ErrorIs(g.t, g.ring.State().Cause, keyring.ErrLeaseEnded)
	}
	for _, c := range []struct {
		policy sealfs.NoAccess
		why    string
		waits  bool
	}{
		{sealfs.Wait, "denied", true}, {sealfs.Wait, "outage", true},
		{sealfs.WaitOutage, "denied", false}, {sealfs.WaitOutage, "outage", true},
		{sealfs.Fail, "denied", false}, {sealfs.Fail, "outage", false},
	} {
		t.Run(fmt.Sprintf("%v, %s", c.policy, c.why), func(t *testing.T) {
			g := newRig(t, nil)
			under := vfs.NewMem()
			fs, err := sealfs.New(under, g.ring, &sealfs.Options{NoAccess: c.policy})
			require.NoError(t, err)
			log, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = log.Write(content(1, 100))
			require.NoError(t, err)
			table, err := fs.Create("000002.sst", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = table.Write(content(2, 100))
			require.NoError(t, err)
			write(t, fs, "000004.sst", content(4, 100))
			if c.why == "denied" {
				g.deny()
			} else {
				outage(g)
			}
			// Degraded is not that: see TestDegraded. What takes no key goes on.
			require.NoError(t, log.Sync())
			size := len(raw(t, under, "000001.log"))
			looks := g.clock.looks.Load()
			ops := []<-chan error{
				async(func() error { _, err := log.Write(content(3, 100)); return err }),
				async(func() error { return table.Sync() }),
				async(func() error {
					f, err := fs.Create("000003.sst", vfs.WriteCategoryUnspecified)
					if err != nil {
						return err
					}
					return f.Close()
				}),
				async(func() error { return fs.Rename("000004.sst", "000005.sst") }),
			}
			if !c.waits {
				for _, op := range ops {
					require.ErrorIs(t, <-op, keyring.ErrInaccessible)
				}
				require.NoError(t, log.Close()) // without the frame that would say so
				return
			}
			g.waits(looks, int64(len(ops)))
			g.clock.Advance(time.Second) // and again
			g.waits(looks, 2*int64(len(ops)))
			for _, op := range ops {
				require.Empty(t, op, "it did not wait")
			}
			require.Len(t, raw(t, under, "000001.log"), size)
			if c.why == "denied" {
				g.allow()
			} else {
				g.vault.SetOutage(nil)
				require.NoError(t, g.ring.Revalidate(t.Context()))
			}
			for _, op := range ops {
				g.tick(done(op))
				require.NoError(t, <-op)
			}
			require.NoError(t, table.Close())
			require.NoError(t, log.Close())
			require.Equal(t, string(content(1, 100))+string(content(3, 100)), string(mustRead(t, fs, "000001.log")))
			require.Equal(t, content(2, 100), mustRead(t, fs, "000002.sst"))
			require.Equal(t, content(4, 100), mustRead(t, fs, "000005.sst"))
		})
	}
}

// While the vault does not answer and the lease holds, nothing waits.
func TestDegraded(t *testing.T) {
	g := newRig(t, nil)
	fs, _ := small(t, g)
	g.vault.SetOutage(vaulttest.NetworkGone())
	_ = g.ring.Revalidate(t.Context())
	require.Equal(t, keyring.Degraded, g.ring.State().Status)
	for name, k := range kinds(t, fs) {
		got, err := k.read()
		require.NoError(t, err, name)
		require.Equal(t, k.content, got)
	}
}

// Stop, and Close of the keyring, end what waits, with their reason; nothing goes on afterwards.
func TestWaitingEnds(t *testing.T) {
	reason := errors.New("the program is being ended")
	for _, c := range []struct {
		name string
		end  func(g *rig, fs *sealfs.FS)
		is   error
	}{
		{"Stop", func(g *rig, fs *sealfs.FS) { fs.Stop(reason) }, reason},
		{"Close of the keyring", func(g *rig, fs *sealfs.FS) { require.NoError(g.t, g.ring.Close()) }, keyring.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			fs, _ := small(t, g)
			log, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = log.Write(content(1, 100))
			require.NoError(t, err)
			g.deny()
			looks := g.clock.looks.Load()
			op := async(func() error { _, err := log.Write(content(2, 100)); return err })
			g.waits(looks, 1)
			require.Empty(t, op)
			c.end(g, fs)
			require.ErrorIs(t, <-op, c.is)
			_, err = log.Write(content(2, 100))
			require.Error(t, err)
			_, err = read(fs, "000001.log")
			require.Error(t, err)
			require.NoError(t, log.Close())
			if c.name == "Stop" {
				require.ErrorIs(t, err, sealfs.ErrStopped)
				require.ErrorIs(t, err, reason)
				g.allow()
				again := g.over(fs.Unwrap())
				require.Equal(t, string(content(1, 100))+string(tornMark), string(mustRead(t, again, "000001.log")))
			}
		})
	}
}

// A Pebble whose key is taken away commits nothing until it is given back, reads nothing from its files,
// and does not end the process; afterwards it goes on.
func TestPebbleWithoutAccess(t *testing.T) {
	g := newRig(t, nil)
	fs := g.over(vfs.NewMem())
	opts := pebbleOptions(fs)
	opts.CacheSize = 1
	db, err := pebble.Open("db", opts)
	require.NoError(t, err)
	key := func(i int) []byte { return fmt.Appendf(nil, "%05d", i) }
	const n = 200
	for i := range n {
		require.NoError(t, db.Set(key(i), content(uint64(i), 400), pebble.Sync))
	}
	require.NoError(t, db.Flush())
	for range 3 {
		g.deny()
		_, _, err = db.Get(key(3))
		require.ErrorIs(t, err, keyring.ErrInaccessible)
		looks := g.clock.looks.Load()
		op := async(func() error { return db.Set(key(n), []byte("while it was away"), pebble.Sync) })
		g.waits(looks, 1)
		flush := async(db.Flush)
		g.clock.Advance(time.Second)
		g.waits(looks, 2)
		require.Empty(t, op)
		require.Empty(t, flush)
		g.allow()
		g.tick(done(op))
		require.NoError(t, <-op)
		g.tick(done(flush))
		require.NoError(t, <-flush)
		v, closer, err := db.Get(key(n))
		require.NoError(t, err)
		require.Equal(t, "while it was away", string(v))
		require.NoError(t, closer.Close())
		for i := range n {
			v, closer, err := db.Get(key(i))
			require.NoError(t, err)
			require.True(t, bytes.Equal(content(uint64(i), 400), v))
			require.NoError(t, closer.Close())
		}
	}
	require.Empty(t, opts.Logger.(*logger).fatal)
	require.NoError(t, db.Close())
}

// What fails for good, because the keyring was closed, ends the engine as a failed log does, instead of
// being tried again for ever.
func TestPebbleWithAClosedKeyring(t *testing.T) {
	g := newRig(t, nil)
	fs := g.over(vfs.NewMem())
	opts := pebbleOptions(fs)
	l := &goexitLogger{}
	opts.Logger = l
	db, err := pebble.Open("db", opts)
	require.NoError(t, err)
	require.NoError(t, db.Set([]byte("a"), []byte("b"), pebble.Sync))
	require.NoError(t, g.ring.Close())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = db.Set([]byte("c"), []byte("d"), pebble.Sync)
	}()
	<-ended
	require.True(t, l.ended())
}
