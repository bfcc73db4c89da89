// Package dirlock tries to open one store twice: in one process and in two, under every
// name that a directory can have, and after everything that could drop a lock.
//
//	go test ./internal/dirlock -v                                   # a few rounds
//	go test ./internal/dirlock -v -run Campaign -rounds 1000 -timeout 60m
package dirlock

import (
	"context"
	"flag"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/load"
	"github.com/blockseal/blockseal/internal/test/seed"
)

var (
	rounds = flag.Int("rounds", 20, "of two processes and two names in TestCampaign")
)

// spelling is a name of the store's directory, for a process whose working directory is
// the one above.
type spelling struct{ name, path string }

// spellings are the names that can be had here, and why one cannot.
func spellings(t testing.TB, d load.Dir) (out []spelling, missing map[string]error) {
	root, missing := string(d), map[string]error{}
	out = []spelling{
		{"the same", d.Store()},
		{"trailing separator", d.Store() + string(filepath.Separator)},
		{"dot", root + "/./store/."},
		{"up and down", root + "/vault/../store"},
		{"relative", "store"},
		{"relative with a dot", "./store"},
		{"relative, up and down", "../" + filepath.Base(root) + "/store"},
	}
	links := t.TempDir()
	add := func(name, path string, err error) {
		if err != nil {
			missing[name] = err
			return
		}
		out = append(out, spelling{name, path})
	}
	link := filepath.Join(links, "link")
	add("symbolic link", link, os.Symlink(d.Store(), link))
	above := filepath.Join(links, "above")
	add("symbolic link above", filepath.Join(above, "store"), os.Symlink(root, above))
	bound := filepath.Join(links, "bound")
	require.NoError(t, os.Mkdir(bound, 0o700))
	add("bind mount", bound, bind(t, d.Store(), bound))
	return out, missing
}

// Whatever the name, and whichever process, a store that is open for writing is not opened
// a second time.
func TestEverySpelling(t *testing.T) {
	u := prepare(t)
	t.Chdir(string(u.dir))
	other := start(t, u.dir)
	names, missing := spellings(t, u.dir)
	for _, has := range names {
		t.Run(has.name, func(t *testing.T) {
			require.Equal(t, "ok", u.one("write", has.path))
			for _, s := range names {
				for _, do := range []string{"write", "read", "inspect"} {
					require.Equal(t, "locked", u.one(do, s.path), "%s, %s, in this process", do, s.name)
					require.Equal(t, "locked", other.one(do, s.path), "%s, %s, in another process", do, s.name)
				}
			}
			require.Equal(t, "ok", u.one("put", ""), "the one that is open is none the worse")
			require.Equal(t, "ok", u.one("close", ""))
			require.Equal(t, "ok", other.one("check", has.path))
		})
	}
	for name, err := range missing {
		t.Run(name, func(t *testing.T) { t.Skipf("cannot be had here: %v", err) })
	}
}

// Nothing that a process does beside its store takes the lock from it.
func TestNothingDropsTheLock(t *testing.T) {
	u := prepare(t)
	other := start(t, u.dir)
	path := u.dir.Store()
	require.Equal(t, "ok", u.one("write", path))
	for _, c := range []struct{ do, answer string }{
		{"read LOCK", "ok"}, {"inspect", "locked"}, {"write", "locked"}, {"read", "locked"}, {"checkpoint", "ok"}, {"put", "ok"},
	} {
		t.Run(c.do, func(t *testing.T) {
			require.Equal(t, c.answer, u.one(c.do, path))
			require.Equal(t, "locked", other.one("write", path))
			require.Equal(t, "locked", other.one("inspect", path))
		})
	}
	t.Run("a process that was started meanwhile", func(t *testing.T) {
		// It was given no descriptor of the file that would keep the lock.
		late := start(t, u.dir)
		require.Equal(t, "locked", late.one("write", path))
		require.Equal(t, "ok", u.one("close", ""))
		require.Equal(t, "ok", other.one("check", path))
	})
	t.Run("and killed", func(t *testing.T) {
		late := start(t, u.dir)
		require.Equal(t, "ok", late.one("write", path))
		require.Equal(t, "locked", u.one("write", path))
		late.kill()
		require.Equal(t, "ok", u.one("write", path))
	})
}

// state is the files of a directory, and when each was written.
func state(t *testing.T, dir string) map[string]string {
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = info.ModTime().String() + string(b)
		return err
	}))
	return out
}

// Who only reads does so beside others, changes nothing, and keeps out who writes.
func TestReaders(t *testing.T) {
	u := prepare(t)
	t.Chdir(string(u.dir))
	other := start(t, u.dir)
	require.Equal(t, "ok", u.one("write", "store"))
	require.Equal(t, "ok", u.one("put", ""))
	require.Equal(t, "ok", u.one("close", ""))
	names, _ := spellings(t, u.dir)
	before := state(t, u.dir.Store())
	for _, s := range names {
		require.Equal(t, "ok", u.one("read", s.path), s.name)
		require.Equal(t, "ok", other.one("read", s.path), s.name)
		require.Equal(t, "ok", u.one("inspect", s.path), s.name)
		require.Equal(t, "ok", other.one("inspect", s.path), s.name)
	}
	for _, s := range u.open {
		require.NoError(t, check(context.Background(), s, 0))
		rep, err := s.Verify(context.Background(), nil)
		require.NoError(t, err)
		require.EqualValues(t, puts, rep.Blocks)
		require.ErrorIs(t, s.Put(context.Background(), []byte("x"), nil), block.ErrReadOnly)
	}
	for _, s := range names {
		require.Equal(t, "locked", u.one("write", s.path), s.name)
		require.Equal(t, "locked", other.one("write", s.path), s.name)
	}
	require.Equal(t, before, state(t, u.dir.Store()))
	require.Equal(t, "ok", u.one("close", ""))
	require.Equal(t, "locked", u.one("write", "store"), "the other process reads")
	require.Equal(t, "ok", other.one("close", ""))
	require.Equal(t, "ok", u.one("write", "store"))
	require.Equal(t, "locked", other.one("read", "store"))
}

// Two processes want one store at the same time, each under two names: one of the four
// gets it, and what it was acknowledged is there afterwards, also if it was killed.
func TestCampaign(t *testing.T) {
	t.Logf("-rounds %d", *rounds)
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	u := prepare(t)
	names, missing := spellings(t, u.dir)
	t.Logf("%d names; cannot be had here: %v", len(names), missing)
	two := [2]*process{start(t, u.dir), start(t, u.dir)}
	kills := 0
	for round := range *rounds {
		a, b := names[rng.IntN(len(names))], names[rng.IntN(len(names))]
		paths := []string{a.path, b.path}
		both := func(r request) (answers [2][]string) {
			var wg sync.WaitGroup
			for i, p := range two {
				wg.Go(func() { answers[i] = p.ask(r) })
			}
			wg.Wait()
			return answers
		}
		opened := both(request{Do: "write", Paths: paths})
		all := slices.Sorted(slices.Values(slices.Concat(opened[0], opened[1])))
		require.Equal(t, []string{"locked", "locked", "locked", "ok"}, all, "round %d: %s, %s", round, a.name, b.name)
		w := 0
		if slices.Contains(opened[1], "ok") {
			w = 1
		}
		winner, loser := two[w], two[1-w]

		// Each does what could drop the lock, while the loser tries again.
		for _, r := range []struct{ do, answer string }{{"read LOCK", "ok"}, {"inspect", "locked"}, {"write", "locked"}} {
			for _, answers := range both(request{Do: r.do, Paths: paths}) {
				require.Equal(t, []string{r.answer, r.answer}, answers, "round %d: %s", round, r.do)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if got := loser.ask(request{Do: "write", Paths: paths}); !slices.Equal(got, []string{"locked", "locked"}) {
				t.Errorf("round %d: beside writes: %q", round, got)
			}
		})
		put := winner.ask(request{Do: "put", Paths: []string{""}, Round: round})
		wg.Wait()
		require.Equal(t, []string{"ok"}, put)
		if rng.IntN(5) == 0 {
			winner.kill()
			kills++
			two[w] = start(t, u.dir)
		} else {
			require.Equal(t, "ok", winner.one("close", ""))
		}
		require.Equal(t, []string{"ok"}, loser.ask(request{Do: "check", Paths: paths[:1], Round: round}), "round %d", round)
	}

	s, err := u.openStore(context.Background(), u.dir.Store(), false)
	require.NoError(t, err)
	for round := range *rounds {
		require.NoError(t, check(context.Background(), s, round))
	}
	rep, err := s.Verify(context.Background(), nil)
	require.NoError(t, err)
	require.EqualValues(t, *rounds*puts, rep.Blocks)
	require.NoError(t, s.Close())
	t.Logf("%d rounds on %s: 0 double opens, 0 of %d blocks lost, %d processes killed", *rounds, runtime.GOOS, *rounds*puts, kills)
}
