package sealfs_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// silentStorage does not answer who saves.
type silentStorage struct {
	keyring.MemStorage
	down atomic.Bool
}

var errSilent = errors.New("the storage of the document does not answer")

func (s *silentStorage) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if s.down.Load() {
		return "", errSilent
	}
	return s.MemStorage.Swap(ctx, was, document)
}

// silentRig is a rig whose keyring has access, and needs for each DEK what does not answer, or says no.
func silentRig(t *testing.T, who string) (g *rig, fail, mend func(), is error) {
	if who == "storage" {
		g = newRig(t, nil)
		s := new(silentStorage)
		ring, err := keyring.Create(t.Context(), s, g.kek, &keyring.Options{Clock: g.clock})
		require.NoError(t, err)
		t.Cleanup(func() { ring.Close() })
		g.ring = ring
		return g, func() { s.down.Store(true) }, func() { s.down.Store(false) }, errSilent
	}
	g = newRig(t, &keyring.Options{Wrapping: keyring.ByKEK})
	if who == "vault" {
		return g, func() { g.vault.SetOutage(vaulttest.NetworkGone()) }, func() { g.vault.SetOutage(nil) }, vault.ErrUnavailable
	}
	return g, func() { g.vault.Revoke(vault.OpWrapKey, vault.OpUnwrapKey) },
		func() { g.vault.Restore(vault.OpWrapKey, vault.OpUnwrapKey) }, vault.ErrAccessDenied
}

// A write that needs a DEK, and for that a vault or a storage which does not answer or says no, waits or
// fails as one without access does, by Options.NoAccess, although the keyring has access.
func TestWritesWhileNobodyAnswers(t *testing.T) {
	for _, c := range []struct {
		policy sealfs.NoAccess
		who    string
		waits  bool
	}{
		{sealfs.Wait, "vault", true}, {sealfs.Wait, "storage", true}, {sealfs.Wait, "vault's no", true},
		{sealfs.WaitOutage, "vault", true}, {sealfs.WaitOutage, "storage", true}, {sealfs.WaitOutage, "vault's no", false},
		{sealfs.Fail, "vault", false}, {sealfs.Fail, "storage", false}, {sealfs.Fail, "vault's no", false},
	} {
		t.Run(fmt.Sprintf("%v, %s", c.policy, c.who), func(t *testing.T) {
			g, fail, mend, is := silentRig(t, c.who)
			under := vfs.NewMem()
			fs, err := sealfs.New(under, g.ring, &sealfs.Options{NoAccess: c.policy})
			require.NoError(t, err)
			open, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = open.Write(content(1, 100))
			require.NoError(t, err)
			closed, err := fs.Create("000002.log", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			write(t, fs, "000003.log", content(3, 100))
			write(t, fs, "000004.sst", content(4, 100))
			g.deny() // what is in memory of keys, and of what was reserved, is gone
			g.allow()
			fail()
			looks := g.clock.looks.Load()
			ops := []<-chan error{
				async(func() error {
					f, err := fs.Create("000005.sst", vfs.WriteCategoryUnspecified)
					if err != nil {
						return err
					}
					return f.Close()
				}),
				async(func() error {
					f, err := fs.ReuseForWrite("000003.log", "000006.log", vfs.WriteCategoryUnspecified)
					if err != nil {
						return err
					}
					return f.Close()
				}),
			}
			if c.who != "storage" { // which has no part in the opening of keys
				ops = append(ops,
					async(func() error { _, err := open.Write(content(2, 100)); return err }),
					async(func() error { return fs.Rename("000004.sst", "000007.sst") }))
			}
			if !c.waits {
				for _, op := range ops {
					err := <-op
					require.ErrorIs(t, err, is)
				}
			} else {
				g.waits(looks, int64(len(ops)))
				g.clock.Advance(50 * time.Millisecond)
				for _, op := range ops {
					require.Empty(t, op, "it did not wait")
				}
			}
			// The end of a log is not waited for, and that there is none is no error.
			require.NoError(t, closed.Close())
			mend()
			g.allow()
			if c.waits {
				for _, op := range ops {
					g.tick(done(op))
					require.NoError(t, <-op)
				}
				require.Empty(t, mustRead(t, fs, "000005.sst"))
				require.Empty(t, mustRead(t, fs, "000006.log"))
			} else {
				require.Equal(t, content(3, 100), mustRead(t, fs, "000003.log"))
			}
			require.NoError(t, open.Close())
			want := string(content(1, 100))
			name := "000004.sst"
			if c.waits && c.who != "storage" {
				want += string(content(2, 100))
				name = "000007.sst"
			}
			require.Equal(t, want, string(mustRead(t, fs, "000001.log")))
			require.Equal(t, content(4, 100), mustRead(t, fs, name))
		})
	}
}

// Who does not answer is asked less and less often, and as late as they say.
func TestAVaultInTroubleIsLeftAlone(t *testing.T) {
	for _, c := range []struct {
		err   error
		calls int
	}{
		{vaulttest.NetworkGone(), 6 + 12},
		{&vault.Error{Op: vault.OpWrapKey, Kind: vault.ErrThrottled, RetryAfter: 20 * time.Second}, 4},
	} {
		g := newRig(t, &keyring.Options{Wrapping: keyring.ByKEK})
		fs := g.over(vfs.NewMem())
		before := g.vault.Calls().Wrap
		remove := g.vault.Inject(vaulttest.Fault{Err: c.err, Op: vault.OpWrapKey})
		op := async(func() error {
			f, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			return f.Close()
		})
		require.Eventually(t, func() bool { return g.vault.Calls().Wrap > before }, time.Minute, time.Millisecond)
		for range 600 {
			g.clock.Advance(100 * time.Millisecond)
			runtime.Gosched()
		}
		const checks = 4 // of the keyring, which wrap too
		require.LessOrEqual(t, int(g.vault.Calls().Wrap-before), c.calls+checks, "in a minute")
		require.Empty(t, op)
		remove()
		g.tick(done(op))
		require.NoError(t, <-op)
	}
}

// What no waiting mends is told at once, whatever was chosen: Pebble tries a flush that failed again
// without end, and would wait without end for what does not come.
func TestWhatNoWaitingMendsIsTold(t *testing.T) {
	g := newRig(t, nil)
	mem := vfs.NewMem()
	fs := g.over(mem)
	create := func(fs *sealfs.FS) error {
		_, err := fs.Create("000002.sst", vfs.WriteCategoryUnspecified)
		return err
	}
	ring, err := keyring.Open(t.Context(), g.storage, g.kek, &keyring.Options{Clock: g.clock, ReadOnly: true})
	require.NoError(t, err)
	defer ring.Close()
	readOnly, err := sealfs.New(mem, ring, nil)
	require.NoError(t, err)
	require.ErrorIs(t, create(readOnly), keyring.ErrReadOnly)

	require.ErrorIs(t, create(g.over(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate {
			return errorfs.ErrInjected
		}
		return nil
	})))), errorfs.ErrInjected)

	write(t, fs, "000001.sst", content(1, 100))
	b := raw(t, mem, "000001.sst")
	b[32+2+20] ^= 1 // in the record
	putRaw(t, mem, "000001.sst", b)
	require.ErrorIs(t, fs.Rename("000001.sst", "000003.sst"), keyring.ErrCorrupt)

	fs.Stop(nil)
	require.ErrorIs(t, create(fs), sealfs.ErrStopped)
	fs = g.over(mem)
	require.NoError(t, g.ring.Close())
	require.ErrorIs(t, create(fs), keyring.ErrClosed)
}

// A Pebble over a keyring that wraps by the KEK exchanges its log, flushes and compacts while the vault
// does not answer: it waits, does not end the process, and goes on.
func TestPebbleWhileTheVaultDoesNotAnswer(t *testing.T) {
	g := newRig(t, &keyring.Options{Wrapping: keyring.ByKEK})
	opts := pebbleOptions(g.over(vfs.NewMem()))
	db, err := pebble.Open("db", opts)
	require.NoError(t, err)
	g.vault.SetOutage(vaulttest.NetworkGone())
	looks := g.clock.looks.Load()
	const n = 100 // more than a memtable
	op := async(func() error {
		for i := range n {
			if err := db.Set([]byte{byte(i)}, content(uint64(i), 4000), pebble.Sync); err != nil {
				return err
			}
		}
		return db.Flush()
	})
	g.waits(looks, 1)
	require.Empty(t, op)
	require.NotEqual(t, keyring.Inaccessible, g.ring.State().Status)
	g.vault.SetOutage(nil)
	g.tick(done(op))
	require.NoError(t, <-op)
	for i := range n {
		v, closer, err := db.Get([]byte{byte(i)})
		require.NoError(t, err)
		require.Equal(t, content(uint64(i), 4000), v)
		require.NoError(t, closer.Close())
	}
	require.Empty(t, opts.Logger.(*logger).fatal)
	closed := async(db.Close)
	g.tick(done(closed))
	require.NoError(t, <-closed)
}
