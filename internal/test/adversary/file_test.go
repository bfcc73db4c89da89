package adversary

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/keyring"
)

// positions bounds how many bytes of each file TestEveryFile alters.
var positions = flag.Int("positions", 8, "alter this many bytes of each of a store's files (0: every one)")

// outcome is what a store with altered files came to.
type outcome struct{ refused, damaged, whole, partial int }

// use opens a store whose files were altered, and reads everything in it. Whatever it
// says, it must be the truth: a block reads as it was put, or with an error.
func (g *rig) use(t testing.TB, ids []string, what string, out *outcome) {
	defer func() {
		if r := recover(); r != nil {
			t.Fatalf("%s: panic: %v\n%s", what, r, debug.Stack())
		}
	}()
	typed := func(err error) {
		require.True(t, damaged(err) || errors.Is(err, block.ErrNotStore), "%s: %v", what, err)
		require.NotContains(t, err.Error(), canary, what)
	}
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	if err != nil {
		typed(err)
		out.refused++
		return
	}
	if st := s.State(); st.Status != keyring.Available { // what says that it is no copy is another store's
		require.ErrorContains(t, st.Cause, "a copy of a store stays locked until Revalidate succeeds", what)
		if err := s.Revalidate(g.ctx); err != nil {
			typed(err)
			out.refused++
			_ = s.Close()
			return
		}
	}
	found, bad := 0, 0
	for b, err := range s.Blocks(g.ctx, block.Range{}) {
		if err != nil {
			typed(err)
			bad++
			break
		}
		require.Equal(t, string(plain(string(b.ID))), string(b.Data), what)
		found++
	}
	for i := 0; i < len(ids); i += 13 {
		got, err := s.Get(g.ctx, []byte(ids[i]), nil)
		switch {
		case err == nil:
			require.Equal(t, string(plain(ids[i])), string(got), what)
		case !errors.Is(err, block.ErrNotFound):
			typed(err)
			bad++
			fallthrough
		default:
			require.Nil(t, got, what)
		}
	}
	if _, err := s.Verify(g.ctx, nil); err != nil {
		typed(err)
		bad++
	}
	switch {
	case bad > 0:
		out.damaged++
	case found < len(ids):
		out.partial++
	default:
		out.whole++
	}
	_ = s.Close() // a damaged engine may say so here
}

// engineFiles makes a store whose blocks lie in tables of several blocks each, in blob
// files and in the log, and returns its files.
func (g *rig) engineFiles() (map[string]string, []string) {
	var ids []string
	for i := range 120 {
		ids = append(ids, numbered("b", i))
	}
	fill := func(separate int, ids []string) {
		g.opts.Pebble.ValueSeparation = separate
		require.NoError(g.t, g.tryOpen()) // moves what is in the log into a table
		g.fill(ids...)
	}
	fill(-1, ids[:80])
	fill(-1, ids[80:110])
	fill(80, ids[110:])
	// Of a closed store the list of its files would say all there is to say.
	require.NoError(g.t, unclose.Store(g.opts.Pebble.FS, g.dir))
	out := files(g.t, g.opts.Pebble.FS, g.dir)
	kinds := map[string]int{}
	for path := range out {
		_, kind, _ := strings.Cut(path, ".")
		kinds[kind]++
	}
	require.Positive(g.t, kinds["sst"])
	require.Positive(g.t, kinds["blob"], "%v", kinds)
	return out, ids
}

// A store whose engine's files were altered says so, or serves what was put: never
// anything else. The engine parses its files before anything authenticates, so that
// what it makes of them may be an error of its own, or a block that is not there.
func TestEveryFile(t *testing.T) {
	g := newRig(t)
	good, ids := g.engineFiles()
	alter1 := func(v string, i int) string { return alter(v, i) }
	zero := func(v string, i int) string { return v[:i] + "\x00" + v[i+1:] }
	cut := func(v string, i int) string { return v[:i] }
	var total outcome
	n := 0
	for _, path := range slices.Sorted(maps.Keys(good)) {
		var out outcome
		step := 1
		if *positions > 0 && !strings.HasSuffix(path, "BLOCKSEAL") {
			step = max(1, len(good[path]) / *positions)
		}
		for i := 0; i < len(good[path]); i += step {
			for what, change := range map[string]func(string, int) string{"altered": alter1, "zeroed": zero, "truncated": cut} {
				content := maps.Clone(good)
				content[path] = change(content[path], i)
				if content[path] == good[path] {
					continue
				}
				n++
				bad := *g
				bad.opts.Pebble.FS = restore(t, content)
				bad.opts.Pebble.Fatal = func(msg string) { panic(msg) }
				bad.use(t, ids, fmt.Sprintf("%s %s at byte %d", path, what, i), &out)
			}
		}
		t.Logf("%-45s %6d bytes: %+v", path, len(good[path]), out)
		total.refused += out.refused
		total.damaged += out.damaged
		total.partial += out.partial
		total.whole += out.whole
	}
	require.Positive(t, total.refused)
	require.Positive(t, total.damaged)
	t.Logf("%d altered directories: %d refused at Open, %d with blocks that do not read, %d with blocks missing, %d whole",
		n, total.refused, total.damaged, total.partial, total.whole)
}

// Files exchanged between two stores of one KEK.
func TestFilesOfAnotherStore(t *testing.T) {
	g := newRig(t)
	own, ids := g.engineFiles()
	o := g.sibling()
	foreign, _ := o.engineFiles()
	var total outcome
	for _, path := range slices.Sorted(maps.Keys(own)) {
		other, ok := foreign[path]
		if !ok || other == own[path] {
			continue
		}
		content := maps.Clone(own)
		content[path] = other
		bad := *g
		bad.opts.Pebble.FS = restore(t, content)
		bad.opts.Pebble.Fatal = func(msg string) { panic(msg) }
		bad.use(t, ids, path, &total)
	}
	// The identity file alone is not authenticated, and nothing depends on it.
	require.Positive(t, total.refused+total.damaged)
	t.Logf("%+v", total)
}

// A file that is taken away.
func TestMissingFiles(t *testing.T) {
	g := newRig(t)
	good, ids := g.engineFiles()
	var total outcome
	for _, path := range slices.Sorted(maps.Keys(good)) {
		content := maps.Clone(good)
		delete(content, path)
		bad := *g
		bad.opts.Pebble.FS = restore(t, content)
		bad.opts.Pebble.Fatal = func(msg string) { panic(msg) }
		bad.use(t, ids, path+" missing", &total)
	}
	require.Positive(t, total.refused)
	t.Logf("%+v", total)
}

// Directories, links and oddities in the place of files, on a real disk.
func TestOddFiles(t *testing.T) {
	g := newRig(t)
	g.opts.Pebble.FS = nil
	g.dir = t.TempDir() + "/store"
	g.fill("a")
	identity := g.dir + "/BLOCKSEAL"
	good, err := os.ReadFile(identity)
	require.NoError(t, err)
	for what, put := range map[string]func() error{
		"a directory":     func() error { return os.Mkdir(identity, 0o700) },
		"a dangling link": func() error { return os.Symlink("nowhere", identity) },
		"a link to /dev/zero": func() error {
			return os.Symlink("/dev/zero", identity)
		},
		"nothing": func() error { return nil },
	} {
		require.NoError(t, os.RemoveAll(identity))
		require.NoError(t, put())
		require.Error(t, g.tryOpen(), what)
	}
	require.NoError(t, os.RemoveAll(identity))
	require.NoError(t, os.WriteFile(identity, good, 0o600))
	g.intact("a")
}
