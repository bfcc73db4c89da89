package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
)

// What the MANIFEST is read as is what Pebble reads: a checkpoint has exactly the tables
// and blob files that are needed, and a table is as large as Pebble says.
func TestManifestSaysWhatPebbleSays(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("db", 0o755))
	lock, err := LockDir("db", fs, false)
	require.NoError(t, err)
	o := Options{FS: fs, Create: true, MemTableBytes: 64 << 10, ValueSeparation: 200}
	rng := rand.New(rand.NewPCG(1, 2))
	for session := range 4 {
		d, err := Open("db", lock, o)
		require.NoError(t, err)
		o.Create = false
		for i := range 1500 {
			key := binary.BigEndian.AppendUint16([]byte{3}, uint16(rng.IntN(2000)))
			b := d.NewBatch()
			if i%5 == 0 {
				require.NoError(t, b.Delete(key))
			} else {
				require.NoError(t, b.Set(key, make([]byte, rng.IntN(600))))
			}
			require.NoError(t, d.Commit(b, false))
			require.NoError(t, b.Close())
		}
		require.NoError(t, d.Flush(context.Background()))
		if session%2 == 1 {
			require.NoError(t, d.Compact(context.Background(), []byte{3}, []byte{4}))
		}
		copy := fmt.Sprintf("copy%d", session)
		require.NoError(t, d.Checkpoint(context.Background(), copy, nil))
		m := current(t, fs, copy)
		names, err := fs.List(copy)
		require.NoError(t, err)
		var have []string
		for _, n := range names {
			if strings.HasSuffix(n, ".sst") || strings.HasSuffix(n, ".blob") {
				have = append(have, n)
			}
		}
		slices.Sort(have)
		require.Equal(t, have, m.names())
		require.NotEmpty(t, m.blobs)
		held, err := LockDir(copy, fs, true)
		require.NoError(t, err)
		c, err := Open(copy, held, Options{FS: fs, ReadOnly: true}) // which is at rest
		require.NoError(t, err)
		levels, err := c.p.SSTables()
		require.NoError(t, err)
		tables := 0
		for _, level := range levels {
			for _, table := range level {
				require.Equal(t, table.Size, m.tables[uint64(table.BackingSSTNum)].size)
				tables++
			}
		}
		require.Len(t, m.tables, tables)
		require.NoError(t, c.Close())
		require.NoError(t, held.Close())
		_, err = Survey(copy, fs, Expected{Phase: Opened})
		require.NoError(t, err)
		require.NoError(t, d.Close())
	}
	require.NoError(t, lock.Close())
}

func (m *manifest) names() (names []string) {
	for n := range m.tables {
		names = append(names, fmt.Sprintf("%06d.sst", n))
	}
	for n := range m.blobs {
		names = append(names, fmt.Sprintf("%06d.blob", n))
	}
	slices.Sort(names)
	return names
}

// current reads the MANIFEST in use.
func current(t *testing.T, fs vfs.FS, dir string) *manifest {
	names, err := fs.List(dir)
	require.NoError(t, err)
	name, found := marker(names, "manifest")
	require.True(t, found)
	m, err := readManifest(fs, fs.PathJoin(dir, name))
	require.NoError(t, err)
	return m
}

// FuzzManifest: no record makes the reader panic, or take more memory than it has bytes,
// and Pebble's own are read.
func FuzzManifest(f *testing.F) {
	fs := vfs.NewMem()
	p, err := pebble.Open("db", &pebble.Options{FS: fs, FormatMajorVersion: formatVersion, Logger: &logger{}})
	require.NoError(f, err)
	for i := range 20 {
		require.NoError(f, p.Set([]byte{byte(i)}, make([]byte, 100), nil))
		require.NoError(f, p.Flush())
	}
	require.NoError(f, p.Compact(context.Background(), []byte{0}, []byte{255}, false))
	require.NoError(f, p.Close())
	names, err := fs.List("db")
	require.NoError(f, err)
	for _, n := range names {
		if !strings.HasPrefix(n, "MANIFEST-") {
			continue
		}
		file, err := fs.Open("db/" + n)
		require.NoError(f, err)
		for rr := record.NewReader(file, 0); ; {
			r, err := rr.Next()
			if err != nil {
				break
			}
			b, err := io.ReadAll(r)
			require.NoError(f, err)
			f.Add(b)
		}
		require.NoError(f, file.Close())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &manifest{tables: map[uint64]table{}, blobs: map[uint64]uint64{}}
		live := liveTables{level: map[[2]uint64]uint64{}, uses: map[uint64]int{}}
		_ = m.edit(newEdit(b), &live)
		require.LessOrEqual(t, len(m.tables)+len(m.blobs)+len(live.uses), len(b)+1)
	})
}

// The markers' names are read as Pebble reads them: the highest count is the newest.
func TestMarker(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
		found bool
	}{
		{nil, "", false},
		{[]string{"marker.manifest"}, "", false},
		{[]string{"marker.manifest.x.y"}, "", false},
		{[]string{"marker.manifest.000001.MANIFEST-000001"}, "MANIFEST-000001", true},
		{[]string{"marker.manifest.000010.b", "marker.manifest.000009.a", "marker.other.000011.c"}, "b", true},
		{[]string{"marker.manifest.0.first"}, "first", true},
	} {
		value, found := marker(c.names, "manifest")
		require.Equal(t, c.want, value, "%v", c.names)
		require.Equal(t, c.found, found, "%v", c.names)
	}
}

// refusing is a file system that has no room for tables while it is told so.
type refusing struct {
	vfs.FS
	tables atomic.Bool
}

func (r *refusing) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if r.tables.Load() && strings.HasSuffix(name, ".sst") {
		return nil, syscall.ENOSPC
	}
	return r.FS.Create(name, c)
}

// Logs that are not the last one are a chain, in which nothing can be missing.
func TestSurveyOfLogs(t *testing.T) {
	fs := vfs.NewMem()
	full := &refusing{FS: fs}
	p2, err := pebble.Open("many", &pebble.Options{FS: full, FormatMajorVersion: formatVersion, Logger: &logger{},
		MemTableSize: 32 << 10, MemTableStopWritesThreshold: 100})
	require.NoError(t, err)
	full.tables.Store(true)
	for i := range 400 {
		require.NoError(t, p2.Set(binary.BigEndian.AppendUint32(nil, uint32(i)), make([]byte, 1000), pebble.Sync))
	}
	good := map[string][]byte{}
	names, err := fs.List("many")
	require.NoError(t, err)
	var logs []string
	for _, n := range names {
		f, err := fs.Open("many/" + n)
		if errors.Is(err, os.ErrNotExist) {
			continue // Pebble has removed it meanwhile
		}
		require.NoError(t, err)
		good[n], err = io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		if strings.HasSuffix(n, ".log") && len(good[n]) > 0 {
			logs = append(logs, n)
		}
	}
	slices.Sort(logs)
	// Those from before the first that is needed are there until they are removed.
	needed := fmt.Sprintf("%06d.log", current(t, fs, "many").log)
	logs = slices.DeleteFunc(logs, func(n string) bool { return n < needed })
	require.Greater(t, len(logs), 3)
	full.tables.Store(false)
	require.NoError(t, p2.Close())

	survey := func(change func(map[string][]byte)) error {
		d := maps.Clone(good)
		change(d)
		mem := vfs.NewMem()
		require.NoError(t, mem.MkdirAll("many", 0o755))
		for n, b := range d {
			f, err := mem.Create("many/"+n, vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = f.Write(bytes.Clone(b)) // which may change what it is given
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		var first uint64
		_, err := fmt.Sscanf(logs[0], "%d.log", &first)
		require.NoError(t, err)
		_, err = Survey("many", mem, Expected{Phase: Opened, Log: first})
		return err
	}
	require.NoError(t, survey(func(map[string][]byte) {}))
	for i, n := range logs[:len(logs)-1] {
		err := survey(func(d map[string][]byte) { delete(d, n) })
		require.ErrorIs(t, err, engine.ErrCorrupt, n)
		if i > 0 {
			require.ErrorContains(t, err, "are missing before "+logs[i+1])
		} else {
			require.ErrorContains(t, err, "the log "+n+" is missing")
		}
		err = survey(func(d map[string][]byte) { d[n] = nil })
		require.ErrorIs(t, err, engine.ErrCorrupt, n)
		require.ErrorContains(t, err, n+" is empty, and there is "+logs[i+1])
	}
	newest := logs[len(logs)-1]
	require.NoError(t, survey(func(d map[string][]byte) { d[newest] = d[newest][:len(d[newest])/2] }), "a crash may have done that")
}
