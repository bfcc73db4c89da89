package sealfs_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// direction is a migration, and where it starts.
type direction struct {
	name  string
	there func(context.Context, vfs.FS, string, *keyring.Keyring, *sealfs.MigrateOptions) (sealfs.Migrated, error)
	back  func(context.Context, vfs.FS, string, *keyring.Keyring, *sealfs.MigrateOptions) (sealfs.Migrated, error)
	start func(t *testing.T, g *rig) *vfs.MemFS
	end   func(g *rig, under vfs.FS) vfs.FS // that it opens with afterwards
	begin func(g *rig, under vfs.FS) vfs.FS // and before
}

func directions() []direction {
	plain := func(g *rig, under vfs.FS) vfs.FS { return under }
	sealed := func(g *rig, under vfs.FS) vfs.FS { return g.over(under) }
	return []direction{
		{"seal", sealfs.SealDir, sealfs.UnsealDir, func(t *testing.T, g *rig) *vfs.MemFS { return plainDatabase(t) }, sealed, plain},
		{"unseal", sealfs.UnsealDir, sealfs.SealDir, func(t *testing.T, g *rig) *vfs.MemFS {
			mem := plainDatabase(t)
			_, err := sealfs.SealDir(t.Context(), mem, "db", g.ring, nil)
			require.NoError(t, err)
			return mem
		}, plain, sealed},
	}
}

// half holds of a directory that a migration left: it opens in one way, with everything, or in none, and
// then says what to do.
func half(t *testing.T, g *rig, d direction, left *vfs.MemFS, why string) {
	t.Helper()
	names, err := kept(left).List("db")
	require.NoError(t, err)
	marked := slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "marker.half-") })
	before, after := opens(d.begin(g, kept(left)), "db"), opens(d.end(g, kept(left)), "db")
	if marked {
		require.ErrorContains(t, before, "run-the-same-migration-again", why)
		require.ErrorContains(t, after, "run-the-same-migration-again", why)
		return
	}
	require.True(t, (before == nil) != (after == nil), "%s: %v, %v", why, before, after)
	if before == nil {
		hasAll(t, d.begin(g, kept(left)), "db", why)
	} else {
		hasAll(t, d.end(g, kept(left)), "db", why)
	}
}

// The machine may stop before any operation on the disk, in both directions, with none, half or all kept
// of what was not synced. The same migration goes on, and the other one goes back.
func TestMigrationAcrossCrashes(t *testing.T) {
	for _, d := range directions() {
		t.Run(d.name, func(t *testing.T) {
			g := newRig(t, nil)
			mem := d.start(t, g)
			type crash struct {
				at   int
				left *vfs.MemFS
			}
			var crashes []crash
			n := 0
			_, err := d.there(t.Context(), errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if n++; op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					percent := []int{0, 50, 100}[len(crashes)%3]
					crashes = append(crashes, crash{n, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(n), 1))})})
				}
				return nil
			})), "db", g.ring, nil)
			require.NoError(t, err)
			require.Greater(t, len(crashes), 50)
			crashes = append(crashes, crash{n, mem})
			for i, c := range crashes {
				why := fmt.Sprintf("crash before operation %d", c.at)
				half(t, g, d, c.left, why)
				if i%2 == 0 {
					_, err := d.there(t.Context(), c.left, "db", g.ring, nil)
					require.NoError(t, err, why)
					hasAll(t, d.end(g, c.left), "db", why)
					continue
				}
				_, err := d.back(t.Context(), c.left, "db", g.ring, nil)
				require.NoError(t, err, why)
				hasAll(t, d.begin(g, c.left), "db", why)
			}
			t.Logf("%d crashes at %d operations", len(crashes), n)
		})
	}
}

// Any operation on the disk may fail, once: an error, and nothing is lost. go test takes every third.
func TestMigrationEveryIOFails(t *testing.T) {
	for _, d := range directions() {
		t.Run(d.name, func(t *testing.T) {
			g := newRig(t, nil)
			start := d.start(t, g)
			failed, step := 0, 3
			if *everyIO {
				step = 1
			}
			for at := 0; ; at += step {
				mem, n, hit := kept(start), -1, false
				_, err := d.there(t.Context(), errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if n++; n == at {
						hit = true
						return errorfs.ErrInjected
					}
					return nil
				})), "db", g.ring, nil)
				why := fmt.Sprintf("operation %d failed: %v", at, err)
				if !hit {
					require.NoError(t, err)
					break
				}
				if err != nil {
					require.ErrorIs(t, err, errorfs.ErrInjected)
					failed++
				}
				half(t, g, d, mem, why)
				do, with := d.there, d.end
				if at/step%2 == 1 {
					do, with = d.back, d.begin
				}
				_, err = do(t.Context(), mem, "db", g.ring, nil)
				require.NoError(t, err, why)
				hasAll(t, with(g, mem), "db", why)
			}
			require.Greater(t, failed, 50)
		})
	}
}
