package sealfs_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// tornFS is a file system whose machine may stop at any moment: of what was written to a file since its
// last Sync each sector of 512 bytes is on the disk or is not, in whatever order it was written, and a file
// that was made shorter is or is not. Names are durable at once.
type tornFS struct {
	vfs.FS
	mu    sync.Mutex
	nodes map[string]*tornNode // by the last element of the path
	// before, if any, is called before each write and Sync.
	before func()
}

type tornNode struct {
	synced  []byte
	pending []tornOp
}

// tornOp is a write or, without bytes, that the file was made as long.
type tornOp struct {
	at int64
	b  []byte
}

func newTornFS(under vfs.FS) *tornFS { return &tornFS{FS: under, nodes: map[string]*tornNode{}} }

func (op tornOp) apply(b []byte) []byte {
	if op.b == nil {
		return b[:min(int64(len(b)), op.at)]
	}
	if grow := op.at + int64(len(op.b)) - int64(len(b)); grow > 0 {
		b = append(b, make([]byte, grow)...)
	}
	copy(b[op.at:], op.b)
	return b
}

const sector = 512

// crash puts what the disk may have into another file system: of each sector that was written since, a
// number of percents.
func (f *tornFS) crash(t testing.TB, to vfs.FS, dir string, rng *rand.Rand, percent int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.nodes)) {
		n := f.nodes[name]
		b := bytes.Clone(n.synced)
		for _, op := range n.pending {
			if op.b == nil {
				if rng.IntN(100) < percent {
					b = op.apply(b)
				}
				continue
			}
			for at := op.at; at < op.at+int64(len(op.b)); {
				end := min((at/sector+1)*sector, op.at+int64(len(op.b)))
				if rng.IntN(100) < percent {
					b = tornOp{at, op.b[at-op.at : end-op.at]}.apply(b)
				}
				at = end
			}
		}
		putRaw(t, to, to.PathJoin(dir, name), b)
	}
}

func (f *tornFS) record(name string, fresh bool) *tornNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[path.Base(name)]
	if n == nil || fresh {
		n = new(tornNode)
		f.nodes[path.Base(name)] = n
	}
	return n
}

func (f *tornFS) file(u vfs.File, n *tornNode) vfs.File {
	file := &tornFile{File: u, fs: f, node: n}
	if cut, ok := u.(interface{ Truncate(int64) error }); ok {
		return &tornCutFile{file, cut}
	}
	return file
}

func (f *tornFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	u, err := f.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	return f.file(u, f.record(name, true)), nil
}

func (f *tornFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	u, err := f.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return f.file(u, f.record(name, false)), nil
}

func (f *tornFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	u, err := f.FS.ReuseForWrite(oldname, newname, c)
	if err != nil {
		return nil, err
	}
	f.moved(oldname, newname)
	return f.file(u, f.record(newname, false)), nil
}

func (f *tornFS) Rename(oldname, newname string) error {
	err := f.FS.Rename(oldname, newname)
	if err == nil {
		f.moved(oldname, newname)
	}
	return err
}

func (f *tornFS) moved(oldname, newname string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[path.Base(newname)] = f.nodes[path.Base(oldname)]
	delete(f.nodes, path.Base(oldname))
}

type tornFile struct {
	vfs.File
	fs   *tornFS
	node *tornNode
	pos  int64
}

func (f *tornFile) do(op tornOp) {
	if f.fs.before != nil {
		f.fs.before()
	}
	op.b = bytes.Clone(op.b)
	f.fs.mu.Lock()
	f.node.pending = append(f.node.pending, op)
	f.fs.mu.Unlock()
}

func (f *tornFile) Write(p []byte) (int, error) {
	f.do(tornOp{f.pos, p})
	n, err := f.File.Write(p)
	f.pos += int64(n)
	return n, err
}

func (f *tornFile) WriteAt(p []byte, off int64) (int, error) {
	f.do(tornOp{off, p})
	return f.File.WriteAt(p, off)
}

// Sync does not sync beneath, where the machine does not stop.
func (f *tornFile) Sync() error {
	if f.fs.before != nil {
		f.fs.before()
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	for _, op := range f.node.pending {
		f.node.synced = op.apply(f.node.synced)
	}
	f.node.pending = nil
	return nil
}

func (f *tornFile) SyncData() error { return f.Sync() }

func (f *tornFile) SyncTo(int64) (bool, error) { return false, nil }

// tornCutFile is one that can be made shorter.
type tornCutFile struct {
	*tornFile
	cut interface{ Truncate(int64) error }
}

func (f *tornCutFile) Truncate(size int64) error {
	f.do(tornOp{at: size})
	return f.cut.Truncate(size)
}

// What the disk has is what was synced, with more of what was written since the more percents there are.
func TestTornFS(t *testing.T) {
	fs := newTornFS(vfs.NewMem())
	f, err := fs.Create("f", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	one, two := bytes.Repeat([]byte{1}, 10*sector), bytes.Repeat([]byte{2}, 10*sector)
	_, err = f.Write(bytes.Clone(one)) // which it may change
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(1, 1))
	after := func(percent int) []byte {
		mem := vfs.NewMem()
		fs.crash(t, mem, "", rng, percent)
		return raw(t, mem, "f")
	}
	require.Empty(t, after(0))
	require.NoError(t, f.Sync())
	_, err = f.WriteAt(bytes.Clone(two), 0)
	require.NoError(t, err)
	require.Equal(t, one, after(0))
	require.Equal(t, two, after(100))
	half := after(50)
	for i := range 10 {
		require.Contains(t, [][]byte{one[:sector], two[:sector]}, half[i*sector:(i+1)*sector])
	}
}
