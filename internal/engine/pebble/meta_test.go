package pebble

import (
	"errors"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// standingLinks is a file system on which a checkpoint stands while it takes its tables.
type standingLinks struct {
	vfs.FS
	stands, goOn chan struct{}
}

func (f standingLinks) Link(from, to string) error {
	if filepath.Ext(from) == ".sst" {
		f.stands <- struct{}{}
		<-f.goOn
	}
	return f.FS.Link(from, to)
}

// Who reads a meta record waits for nobody who changes one, also where that one waits for a
// checkpoint that takes long. What is read meanwhile is what was there, and cannot be swapped by
// the revision that it is read with.
func TestLoadMetaBesideASwapThatWaits(t *testing.T) {
	fs := standingLinks{vfs.NewMem(), make(chan struct{}), make(chan struct{})}
	require.NoError(t, fs.MkdirAll("db", 0o755))
	d := openDir(t, "db", fs)
	p := d.Partition(7)
	swap := func(revision uint64, value string) error {
		_, err := p.SwapMeta(t.Context(), engine.Swap{Name: "name", Revision: revision, Value: []byte(value)})
		return err
	}
	require.NoError(t, swap(0, "before"))
	value, found, err := p.LoadMeta(t.Context(), "name")
	require.NoError(t, err)
	require.Equal(t, "before", string(value))

	copied, swapped := make(chan error, 1), make(chan error, 1)
	go func() { copied <- d.Checkpoint(t.Context(), "copy", nil) }()
	<-fs.stands
	go func() { swapped <- swap(found, "after") }()
	var meanwhile atomic.Uint64
	loads := make(chan error, 1)
	go func() {
		for {
			value, revision, err := p.LoadMeta(t.Context(), "name")
			if err == nil && string(value) != "before" {
				err = errors.New("it was changed")
			}
			if err != nil || revision != found {
				meanwhile.Store(revision)
				loads <- err
				return
			}
			runtime.Gosched()
		}
	}()
	select {
	case err := <-loads:
		require.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("reading waits for the change")
	}
	close(fs.goOn)
	go func() {
		for range fs.stands { // the other tables
		}
	}()
	require.NoError(t, <-swapped)
	require.NoError(t, <-copied)
	close(fs.stands)
	value, revision, err := p.LoadMeta(t.Context(), "name")
	require.NoError(t, err)
	require.Equal(t, "after", string(value))
	require.NotContains(t, []uint64{found, meanwhile.Load()}, revision)
	require.ErrorIs(t, swap(meanwhile.Load(), "never"), engine.ErrConflict)
	require.ErrorIs(t, swap(found, "never"), engine.ErrConflict)
	require.NoError(t, swap(revision, "last"))
}

// A change that could not be applied leaves the revision that was read.
func TestRevisionOfASwapThatFailed(t *testing.T) {
	m := newRevisions()
	changes := []engine.Swap{{Name: "a", Value: []byte("x")}, {Name: "b"}}
	given := m.begin(changes)(true)
	require.Equal(t, []uint64{m.revision("a"), 0}, given)
	before := m.revision("a")
	end := m.begin(changes)
	require.NotEqual(t, before, m.revision("a"))
	require.Nil(t, end(false))
	require.Equal(t, before, m.revision("a"))
	require.Greater(t, m.begin(changes)(true)[0], before+1, "no revision is given twice")
}

// One purge at a time: what one has forgotten, the end of another would leave in a log that is
// written over.
func TestPurgesTakeTurns(t *testing.T) {
	d := openMem(t)
	p := d.Partition(7)
	d.purges <- struct{}{} // another partition's
	var over atomic.Bool
	purged := make(chan error, 1)
	go func() {
		purged <- p.(engine.Purger).Purge(t.Context(), func() error {
			if !over.Load() {
				return errors.New("another purge is under way")
			}
			_, err := p.SwapMeta(t.Context(), engine.Swap{Name: "t", Revision: engine.AnyRevision, Value: []byte("x")})
			return err
		}, func() bool { return false })
	}()
	for range 1000 {
		runtime.Gosched()
	}
	over.Store(true)
	<-d.purges
	require.NoError(t, <-purged)
}
