package accesstest

import (
	"embed"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

//go:embed scripts/*.txt
var scripts embed.FS

// start is when every script starts.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Run runs every script, each in a world of its own. newWorld makes one whose vault
// goes by the given clock; it is called once more than there are scripts, to see
// which of them it can run.
//
// Each script runs in a bubble of package bubbles: after each step the
// interpreter waits until whatever the step set off, such as a check, has come to
// rest. Nothing sleeps, and nothing is left to chance.
func Run(t *testing.T, newWorld func(t *testing.T, clock *vaulttest.Clock) World) {
	run(t, newWorld, func([]line) bool { return true })
}

// RunAdministration is [Run] for those scripts alone that need a World with
// Administration.
func RunAdministration(t *testing.T, newWorld func(t *testing.T, clock *vaulttest.Clock) World) {
	run(t, newWorld, func(lines []line) bool { return slices.ContainsFunc(lines, line.administers) })
}

func run(t *testing.T, newWorld func(t *testing.T, clock *vaulttest.Clock) World, wanted func([]line) bool) {
	probe := newWorld(t, vaulttest.NewClock(start))
	files, err := scripts.ReadDir("scripts")
	require.NoError(t, err)
	ran := 0
	for _, f := range files {
		text, err := scripts.ReadFile(path.Join("scripts", f.Name()))
		require.NoError(t, err)
		lines := parse(f.Name(), string(text), probe.Name)
		if !wanted(lines) {
			continue
		}
		if probe.DeletedIsNotFound {
			for _, l := range lines {
				if i := slices.Index(l.words, "ErrKeyDeleted"); i >= 0 {
					l.words[i] = "ErrKeyNotFound"
				}
			}
		}
		if why := probe.cannot(t, f.Name(), lines); why != "" {
			t.Logf("%s is not run: %s", f.Name(), why)
			continue
		}
		ran++
		t.Run(strings.TrimSuffix(f.Name(), ".txt"), func(t *testing.T) {
			bubbles.Test(t, func(t *testing.T) {
				clock := vaulttest.NewClock(start)
				runScript(t, clock, newWorld(t, clock), lines)
			})
		})
	}
	require.NotZero(t, ran)
}

// cannot says why the world cannot run a script, if it cannot.
func (w World) cannot(t *testing.T, file string, lines []line) string {
	for _, l := range lines {
		if l.administers() && w.Administration == nil {
			return l.words[0] + " " + l.arg(1) + ": the administrators' side of this vault is not the scripts'"
		}
		if l.words[0] != "vault" {
			continue
		}
		verb := l.arg(1)
		_, _, refused := l.refused()
		if w.Administration[verb] != nil || w.Verbs[verb] != nil && !refused {
			continue
		}
		why, ok := w.NotApplicable[verb]
		if !ok {
			t.Fatalf("%s: this world cannot %q and does not say why", l, verb)
		}
		return verb + ": " + why
	}
	return ""
}
