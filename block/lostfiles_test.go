package block_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/keyring"
)

var lostPairs = flag.Int("lost.pairs", 0, "of the pairs of files that are lost or exchanged, try one in so many (1: all; 0: one in 20, under the race detector in 200)")

func oneOfSoManyPairs() int {
	switch {
	case *lostPairs > 0:
		return *lostPairs
	case race.Enabled:
		return 200
	}
	return 20
}

// directory is the files of a directory, by name.
type directory map[string][]byte

func (d directory) put(t testing.TB, fs vfs.FS, dir string) {
	require.NoError(t, fs.RemoveAll(dir))
	require.NoError(t, fs.MkdirAll(dir, 0o700))
	for name, content := range d {
		f, err := fs.Create(fs.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = f.Write(bytes.Clone(content)) // which may change what it is given
		require.NoError(t, errors.Join(err, f.Sync(), f.Close()))
	}
}

// changed names the files that are not what they were, but for the lock's.
func (d directory) changed(now directory) (names []string) {
	for n := range now {
		if old, ok := d[n]; n != "LOCK" && (!ok || !bytes.Equal(old, now[n])) {
			names = append(names, n)
		}
	}
	for n := range d {
		if _, ok := now[n]; n != "LOCK" && !ok {
			names = append(names, n)
		}
	}
	return names
}

// history is a store's directory at several moments of its life, oldest first: in the
// middle of a session and after each. The last is the one whose files are lost.
type history struct {
	moments []directory
	want    map[string]string // the blocks of the last moment
}

// live writes a store's history: tables, blob files and a log with blocks in it. The last
// moment is after a Close, or a crash that lost nothing.
func (g *rig) live(crashed bool) history {
	h := history{want: map[string]string{}}
	disk := &watchedFS{FS: vfs.NewCrashableMem()} // the engine's own goroutines go on changing files
	g.opts.Pebble.FS = disk
	moment := func() {
		at := disk.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
		h.moments = append(h.moments, files(g.t.(*testing.T), at, g.dir))
	}
	n := 0
	put := func(s *block.Store, count int) {
		for range count {
			id, data := fmt.Sprintf("block %04d", n%150), fmt.Sprintf("%d %s", n, strings.Repeat("x", 40+n*37%3000))
			require.NoError(g.t, s.Put(g.ctx, []byte(id), []byte(data)))
			h.want[id] = data
			n++
		}
	}
	for session := range 3 {
		s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
		require.NoError(g.t, err)
		put(s, 70)
		moment()
		if session > 0 {
			require.NoError(g.t, s.RotateEpoch(g.ctx, nil))
		}
		put(s, 70)
		if session == 2 && crashed {
			require.NoError(g.t, s.FlushEngine(g.ctx))
			put(s, 20)
			moment()
			require.NoError(g.t, s.Close())
			return h
		}
		require.NoError(g.t, s.Close())
		moment()
	}
	return h
}

// loss is what happens to a file.
type loss struct {
	name, what string
	do         func(directory)
}

// role is what a file is to the engine, whatever its number.
func role(name string) string {
	switch i := strings.LastIndexByte(name, '.'); {
	case strings.HasPrefix(name, "marker."):
		return strings.Join(strings.Split(name, ".")[:2], ".")
	case strings.HasPrefix(name, "MANIFEST-"), strings.HasPrefix(name, "OPTIONS-"):
		return name[:strings.IndexByte(name, '-')]
	case i > 0:
		return name[i:]
	}
	return name
}

// losses are all the ways to lose a file of the last moment, and to exchange it for an
// older one that had its place, of its own name or another.
func (h history) losses() (out []loss) {
	last := h.moments[len(h.moments)-1]
	for _, name := range slices.Sorted(maps.Keys(last)) {
		if name == "LOCK" {
			continue
		}
		out = append(out, loss{name, "removed", func(d directory) { delete(d, name) }})
		if n := len(last[name]); n > 0 {
			out = append(out, loss{name, "emptied", func(d directory) { d[name] = nil }},
				loss{name, "cut in the middle", func(d directory) { d[name] = d[name][:len(d[name])/2] }})
		}
		tried := map[string]bool{name + string(last[name]): true}
		for _, m := range h.moments {
			for _, other := range slices.Sorted(maps.Keys(m)) {
				key := other + string(m[other])
				if role(other) != role(name) || tried[key] {
					continue
				}
				tried[key] = true
				if strings.HasPrefix(name, "marker.") {
					out = append(out, loss{name, "exchanged for " + other, func(d directory) { delete(d, name); d[other] = nil }})
				} else if !bytes.Equal(m[other], last[name]) {
					out = append(out, loss{name, fmt.Sprintf("exchanged for an older %s of %d bytes", other, len(m[other])), func(d directory) { d[name] = m[other] }})
				}
			}
		}
	}
	return out
}

// Every file of a store removed, emptied, cut off, or exchanged for an older one of its
// own, alone and in pairs: Open, a read-only Open and Inspect say so, naming a file, and
// change none; or nothing is missing. What a store that was not closed cannot know is
// where the last log ended; keyring.Anchor does.
func TestLostFiles(t *testing.T) {
	for name, crashed := range map[string]bool{"closed": false, "in use": true} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Logger = nil
			g.opts.Pebble.Fatal = func(msg string) { panic(msg) }
			h := g.live(crashed)
			last := h.moments[len(h.moments)-1]
			logs := slices.DeleteFunc(slices.Sorted(maps.Keys(last)), func(n string) bool { return role(n) != ".log" })
			require.NotEmpty(t, logs)
			endOfLog := logs[len(logs)-1]
			kinds := map[string]bool{}
			for n := range last {
				kinds[role(n)] = true
			}
			for _, want := range []string{".sst", ".blob", ".log", "MANIFEST", "OPTIONS", "marker.manifest", "marker.format-version", "BLOCKSEAL"} {
				require.True(t, kinds[want], "the store has no %s", want)
			}

			var refused, whole, short int
			try := func(ls ...loss) lostOutcome {
				d, what := maps.Clone(last), ""
				inUse := crashed // or so says an identity from when it was in use
				for _, l := range ls {
					what += l.name + " " + l.what + "; "
					inUse = inUse || l.name == "BLOCKSEAL"
				}
				mayBeShort := inUse && slices.ContainsFunc(ls, func(l loss) bool { return l.name == endOfLog })
				for _, l := range ls {
					l.do(d)
				}
				outcome := g.lost(t, d, h.want, what)
				switch outcome {
				case lostRefused:
					refused++
				case lostNothing:
					whole++
				case lostSome:
					short++
					require.True(t, mayBeShort, "%sblocks are missing, and nobody says so", what)
				}
				return outcome
			}
			try()
			require.Equal(t, 1, whole, "a store that lost nothing opens")
			all := h.losses()
			for _, l := range all {
				// Its identity from when it was in use says less of a closed store, and nothing untrue.
				if outcome := try(l); !crashed && l.name != "BLOCKSEAL" {
					require.Equal(t, lostRefused, outcome, "%s %s: of a closed store everything is known", l.name, l.what)
				}
			}
			t.Logf("%d losses of one file: %d refused, %d without effect, %d cut the end of the last log", len(all), refused, whole-1, short)
			n := 0
			for i, a := range all {
				for _, b := range all[i+1:] {
					if n++; a.name != b.name && n%oneOfSoManyPairs() == 0 {
						try(a, b)
					}
				}
			}
			t.Logf("with pairs: %d refused, %d without effect, %d cut the end of the last log", refused, whole-1, short)
		})
	}
}

type lostOutcome int

const (
	lostRefused lostOutcome = iota
	lostNothing
	lostSome
)

// lost opens what is left in each way there is, and returns what came of it, which must be
// the same for all.
func (g *rig) lost(t *testing.T, d directory, want map[string]string, what string) lostOutcome {
	fs := vfs.NewMem()
	d.put(t, fs, g.dir)
	o := g.opts
	o.Pebble.FS = fs
	untouched := func() {
		t.Helper()
		if changed := d.changed(files(t, fs, g.dir)); len(changed) > 0 {
			t.Fatalf("%sfiles were changed: %v", what, changed)
		}
	}
	refusal := func(err error) bool {
		return errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrNotStore) || errors.Is(err, block.ErrVersion) || errors.Is(err, block.ErrForeign)
	}
	_, inspected := block.Inspect(g.ctx, g.dir, &o)
	untouched()
	open := func(readOnly bool) (lostOutcome, error) {
		o := o
		o.ReadOnly = readOnly
		s, err := block.Open(g.ctx, g.dir, g.kek, &o)
		if err != nil {
			if !refusal(err) {
				t.Fatalf("%sOpen: %v", what, err)
			}
			return lostRefused, err
		}
		defer func() { _ = s.Close() }() // which may find what was lost
		if s.State().Status != keyring.Available {
			require.NoError(t, s.Revalidate(g.ctx), what)
		}
		rep, err := s.Verify(g.ctx, nil)
		if err != nil {
			if !refusal(err) {
				t.Fatalf("%sVerify: %v", what, err)
			}
			return lostRefused, err
		}
		outcome := lostNothing
		if rep.Blocks != uint64(len(want)) {
			outcome = lostSome
		}
		for id, data := range want {
			got, err := s.Get(g.ctx, []byte(id), nil)
			if err != nil || string(got) != data {
				outcome = lostSome
			}
		}
		return outcome, nil
	}
	readOnly, err := open(true)
	untouched()
	outcome, err2 := open(false)
	if err2 != nil && strings.Contains(err2.Error(), "nothing was changed") {
		untouched()
	}
	if readOnly != outcome {
		t.Fatalf("%sread only it comes to %d (%v), for writing to %d (%v)", what, readOnly, err, outcome, err2)
	}
	if inspected != nil && outcome != lostRefused {
		t.Fatalf("%sInspect says %v", what, inspected)
	}
	return outcome
}
