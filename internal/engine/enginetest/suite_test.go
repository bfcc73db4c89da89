package enginetest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
)

// recorder notes what a part of the suite finds.
type recorder struct {
	failed   []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failed = append(r.failed, fmt.Sprintf(format, args...))
}
func (r *recorder) FailNow()         { runtime.Goexit() }
func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// fails returns what a part of the suite finds wrong with an engine.
func fails(p part, s Subject) []string {
	r := &recorder{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if v := recover(); v != nil {
				r.Errorf("panic: %v", v)
			}
		}()
		p.run(r, s)
	}()
	<-ended
	for _, f := range r.cleanups {
		f()
	}
	return r.failed
}

func named(t *testing.T, name string) part {
	for _, p := range parts() {
		if p.name == name {
			return p
		}
	}
	t.Fatalf("the suite has no part %q", name)
	return part{}
}

// The suite finds each engine that is broken, in the part that is about it; what is broken by a
// race it finds in a few tries.
func TestSuiteFindsBrokenEngines(t *testing.T) {
	for _, b := range brokenEngines() {
		t.Run(b.name, func(t *testing.T) {
			p := named(t, b.part)
			s := Subject{New: func(T) engine.Engine { return &brokenEngine{memory.New(), b.wrong} }}
			require.Empty(t, fails(p, Subject{New: func(T) engine.Engine { return &brokenEngine{memory.New(), func(*brokenPartition) {}} }}),
				"the wrapper alone breaks nothing")
			for try := 0; len(fails(p, s)) == 0; try++ {
				require.Less(t, try, 50, "the suite does not find it")
			}
		})
	}
	t.Run("partitions are one", func(t *testing.T) {
		s := Subject{New: func(T) engine.Engine { return &onePartition{memory.New()} }}
		require.NotEmpty(t, fails(named(t, "partitions have nothing in common"), s))
	})
	t.Run("a closed engine is open", func(t *testing.T) {
		s := Subject{New: func(T) engine.Engine { return &neverClosed{memory.New()} }}
		require.NotEmpty(t, fails(named(t, "a closed engine says so"), s))
	})
	t.Run("a crash takes everything", func(t *testing.T) {
		s := Subject{New: func(T) engine.Engine { return memory.New() }, Crash: func(T, engine.Engine) engine.Engine { return memory.New() }}
		require.NotEmpty(t, fails(named(t, "what is durable survives a crash"), s))
	})
	t.Run("what is swapped later is never durable", func(t *testing.T) {
		for _, good := range []bool{true, false} {
			s := Subject{
				New: func(T) engine.Engine { return deferring{memory.New()} },
				Crash: func(_ T, e engine.Engine) engine.Engine {
					if good {
						return e
					}
					return memory.New()
				},
			}
			require.Equal(t, good, len(fails(named(t, "what is swapped later is durable with what follows"), s)) == 0)
		}
	})
	t.Run("a copy is empty", func(t *testing.T) {
		s := Subject{New: func(T) engine.Engine { return memory.New() },
			Copy: func(T, engine.Engine, func(func(uint32, uint32))) engine.Engine { return memory.New() }}
		require.NotEmpty(t, fails(named(t, "a copy has what was before it was decided"), s))
	})
	t.Run("a purge takes too much", func(t *testing.T) {
		s := Subject{New: func(T) engine.Engine { return &brokenPurge{memory.New()} }}
		require.NotEmpty(t, fails(named(t, "a purge leaves what is there"), s))
	})
	t.Run("a purge takes too little", func(t *testing.T) {
		for _, good := range []bool{true, false} {
			s := Subject{
				New:   func(T) engine.Engine { return remembering{memory.New(), good, new([]byte)} },
				Bytes: func(_ T, e engine.Engine) []byte { return *e.(remembering).given },
			}
			require.Equal(t, good, len(fails(named(t, "what was purged is in no file"), s)) == 0)
			s.Bytes = nil
			require.NotEmpty(t, fails(named(t, "what was purged is in no file"), s), "nobody looks")
		}
	})
}

// Each part of the suite has an engine that it finds, but for the one that is left out here.
func TestEveryPartFindsSomething(t *testing.T) {
	finds := map[string]bool{"what is durable survives a crash": true, "what is swapped later is durable with what follows": true, "a copy has what was before it was decided": true,
		"a purge leaves what is there": true, "what was purged is in no file": true, "partitions have nothing in common": true, "a batch that is not applied changes nothing": true}
	for _, b := range brokenEngines() {
		finds[b.part] = true
	}
	for _, p := range parts() {
		require.True(t, finds[p.name], "%s", p.name)
		require.Equal(t, strings.ToLower(p.name[:1]), p.name[:1])
	}
}
