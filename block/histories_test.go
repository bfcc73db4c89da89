package block_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// A checkpoint's files copied over those of a store that went on: two histories in one
// directory. Nothing is served, and nothing is changed.
func TestCheckpointCopiedOverItsStore(t *testing.T) {
	for name, meanwhile := range map[string]func(g *rig, s *block.Store){
		"nothing":           func(*rig, *block.Store) {},
		"writes":            func(g *rig, s *block.Store) { require.NoError(g.t, s.Put(g.ctx, []byte("b"), []byte("2"))) },
		"RotateEpoch":       func(g *rig, s *block.Store) { require.NoError(g.t, s.RotateEpoch(g.ctx, nil)) },
		"RotateKEK":         func(g *rig, s *block.Store) { g.vault.Rotate("customer"); require.NoError(g.t, s.RotateKEK(g.ctx)) },
		"the copy unknown":  func(g *rig, s *block.Store) { g.forgetCopies(s) },
		"a flushed memtabl": func(g *rig, s *block.Store) { require.NoError(g.t, s.FlushEngine(g.ctx)) },
	} {
		for _, crashed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crashed %v", name, crashed), func(t *testing.T) {
				g := newRig(t)
				g.t = t
				open := func() *block.Store {
					s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
					require.NoError(t, err)
					return s
				}
				s := open()
				require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
				require.NoError(t, s.Checkpoint(g.ctx, "copy"))
				require.NoError(t, s.Close())
				s = open()
				require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("changed")))
				meanwhile(g, s)
				left := directory(files(t, g.opts.Pebble.FS, g.dir))
				require.NoError(t, s.Close())
				if !crashed {
					left = files(t, g.opts.Pebble.FS, g.dir)
				}
				copied := files(t, g.opts.Pebble.FS, "copy")

				mem := vfs.NewMem()
				maps.Copy(left, copied)
				left.put(t, mem, g.dir)
				g.opts.Pebble.FS = mem
				for _, readOnly := range []bool{true, false} {
					g.opts.ReadOnly = readOnly
					err := g.tryOpen()
					require.ErrorIs(t, err, block.ErrCorrupt)
					require.ErrorContains(t, err, "is of another history")
					require.ErrorContains(t, err, "restore the whole directory, into an empty one")
					require.Empty(t, left.changed(files(t, mem, g.dir)))
				}
				// As the text says it is done.
				g.opts.ReadOnly = false
				directory(copied).put(t, mem, g.dir)
				s = open()
				require.Equal(t, keyring.Inaccessible, s.State().Status, "it is a copy, and waits")
				require.NoError(t, s.Close())
			})
		}
	}
}

func (g *rig) forgetCopies(s *block.Store) {
	copies, err := s.Copies(g.ctx)
	require.NoError(g.t, err)
	for _, c := range copies {
		require.NoError(g.t, s.ForgetCopy(g.ctx, c.Instance))
	}
}

// A checkpoint that is copied elsewhere, file by file, while it is rewrapped to another
// KEK: what arrives is whole, or is refused. Each split is tried: the files before it are
// copied before the rewrap, those after it after.
func TestCheckpointCopiedWhileItIsRewrapped(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping, g.opts.VaultRate = w, 1<<30
			s := g.open()
			for i := range 60 {
				require.NoError(t, s.Put(g.ctx, fmt.Appendf(nil, "%03d", i), make([]byte, 2000)))
			}
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			before := files(t, g.opts.Pebble.FS, "copy")
			g.vault.Rotate("customer")
			require.NoError(t, s.RotateKEK(g.ctx))
			after := files(t, g.opts.Pebble.FS, "copy")
			copies, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Equal(t, s.State().KEK, copies[0].KEK)

			names := slices.Sorted(maps.Keys(before))
			refused, whole := 0, 0
			for _, order := range []string{"up", "down"} {
				for split := range len(names) + 1 {
					for _, listed := range []string{"as it was", "anew"} {
						arrived := directory{}
						for i, n := range names {
							if content, ok := after[n]; i < split {
								arrived[n] = before[n]
							} else if ok {
								arrived[n] = content
							} // else it is gone, and the tool that copies says so, or does not
						}
						if listed == "anew" && split < len(names) {
							for n, content := range after {
								if _, ok := arrived[n]; !ok {
									arrived[n] = content
								}
							}
						}
						mem := vfs.NewMem()
						arrived.put(t, mem, "arrived")
						c := *g
						c.dir, c.opts.Pebble.FS = "arrived", mem
						r, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
						if err != nil {
							require.ErrorIs(t, err, block.ErrCorrupt, "%s, %d, listed %s", order, split, listed)
							refused++
							continue
						}
						require.NoError(t, r.Revalidate(c.ctx))
						rep, err := r.Verify(c.ctx, nil)
						require.NoError(t, err)
						require.EqualValues(t, 60, rep.Blocks, "%s, %d, listed %s", order, split, listed)
						require.NoError(t, r.Close())
						whole++
					}
				}
				slices.Reverse(names)
			}
			require.Positive(t, refused)
			require.Positive(t, whole)
		})
	}
}

// A copy that was made of an open store's files, by a tool that knows nothing of it, has
// the store's instance. It is found out where the store still is; where the store is not,
// it was moved.
func TestCopyMadeByHand(t *testing.T) {
	for _, where := range []string{"in memory", "on a disk"} {
		t.Run(where, func(t *testing.T) {
			g := newRig(t)
			copyTo := func(to string) {
				d := directory(files(t, g.opts.Pebble.FS, g.dir))
				d.put(t, g.opts.Pebble.FS, to)
			}
			other, moved := "other", "moved"
			if where == "on a disk" {
				root := t.TempDir()
				g.dir, g.opts.Pebble.FS = filepath.Join(root, "store"), vfs.Default
				other, moved = filepath.Join(root, "other"), filepath.Join(root, "moved")
			}
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
			copyTo(other)
			instance := s.Instance()

			at := func(dir string) *rig { c := *g; c.dir = dir; return &c }
			check := func(readOnly bool) {
				c := at(other)
				c.opts.ReadOnly = readOnly
				in, err := block.Inspect(c.ctx, c.dir, &c.opts)
				require.NoError(t, err)
				require.Equal(t, instance, in.CopyOf)
				r, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
				require.NoError(t, err)
				require.Equal(t, keyring.Inaccessible, r.State().Status)
				require.NotEqual(t, instance, r.Instance())
				if !readOnly {
					require.NoError(t, r.Revalidate(c.ctx))
					got, err := r.Get(c.ctx, []byte("a"), nil)
					require.NoError(t, err)
					require.Equal(t, "1", string(got))
				}
				require.NoError(t, r.Close())
			}
			check(true)
			check(false)
			r := at(other).open()
			require.Equal(t, keyring.Available, r.State().Status, "it is a store of its own now")
			require.NotEqual(t, instance, r.Instance())

			require.NoError(t, s.Close())
			if where == "on a disk" {
				link := filepath.Join(filepath.Dir(g.dir), "link")
				require.NoError(t, os.Symlink(g.dir, link))
				s, err = block.Open(g.ctx, link, g.kek, &g.opts)
				require.NoError(t, err)
				require.Equal(t, instance, s.Instance(), "another name for the same directory")
				require.Equal(t, keyring.Available, s.State().Status)
				require.NoError(t, s.Close())
			}
			require.NoError(t, g.opts.Pebble.FS.Rename(g.dir, moved))
			s = at(moved).open()
			require.Equal(t, keyring.Available, s.State().Status, "it was moved")
			require.Equal(t, instance, s.Instance())
		})
	}
}

// A format version of the engine that is not known is that, and no damage.
func TestUnknownEngineVersion(t *testing.T) {
	for version, want := range map[string]error{"999": block.ErrVersion, "025": block.ErrVersion, "012": block.ErrVersion, "abc": block.ErrCorrupt, "000": block.ErrCorrupt} {
		for _, closed := range []bool{true, false} {
			g := newRig(t)
			s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
			require.NoError(t, err)
			require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
			d := directory(files(t, g.opts.Pebble.FS, g.dir))
			require.NoError(t, s.Close())
			if closed {
				d = files(t, g.opts.Pebble.FS, g.dir)
			}
			for n := range d {
				if strings.HasPrefix(n, "marker.format-version.") {
					delete(d, n)
				}
			}
			d["marker.format-version.000011."+version] = nil
			g.opts.Pebble.FS = vfs.NewMem()
			d.put(t, g.opts.Pebble.FS, g.dir)
			_, inspected := block.Inspect(g.ctx, g.dir, &g.opts)
			for _, err := range []error{g.tryOpen(), inspected} {
				if closed { // that the list does not have it is said first
					require.ErrorIs(t, err, block.ErrCorrupt)
					require.ErrorContains(t, err, "marker.format-version.000011.024 is missing")
					continue
				}
				require.ErrorIs(t, err, want, version)
			}
			require.Empty(t, d.changed(files(t, g.opts.Pebble.FS, g.dir)))
		}
	}
}

// A directory that exists is not written to, and the text says what to do.
func TestCheckpointToADirectoryThatExists(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, g.opts.Pebble.FS.MkdirAll("copy", 0o700))
	err := s.Checkpoint(g.ctx, "copy")
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, "name a directory that does not exist")
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Empty(t, copies)
}

// The list of a checkpoint's files is its store's own, where the store had the keys when
// it was made: one that somebody else wrote is refused as soon as there is access.
func TestCheckpointsListIsAuthenticated(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	text := string(files(t, g.opts.Pebble.FS, "copy")["BLOCKSEAL"])
	body, _, found := strings.Cut(text, "sha256 ")
	require.True(t, found)
	require.Contains(t, body, "\ntag ")
	body = strings.Replace(body, "\npath \"", "\npath \"/elsewhere/", 1)
	write(t, g.opts.Pebble.FS, "copy/BLOCKSEAL", sum(body))
	c := *g
	c.dir = "copy"
	r, err := block.Open(c.ctx, c.dir, c.kek, &c.opts)
	require.NoError(t, err)
	err = r.Revalidate(c.ctx)
	require.ErrorIs(t, err, block.ErrCorrupt)
	require.ErrorContains(t, err, "was not made by this store")
	require.Equal(t, keyring.Inaccessible, r.State().Status)
	_, err = r.Get(c.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.NoError(t, r.Close())
	r, err = block.Open(c.ctx, c.dir, c.kek, &c.opts)
	require.NoError(t, err)
	require.ErrorIs(t, r.Revalidate(c.ctx), block.ErrCorrupt, "and again")
	require.NoError(t, r.Close())

	// Without the keys there is a list, and no tag.
	g.vault.SetEnabled(g.key, false)
	require.Error(t, s.Revalidate(g.ctx))
	require.NoError(t, s.Checkpoint(g.ctx, "locked"))
	require.NotContains(t, string(files(t, g.opts.Pebble.FS, "locked")["BLOCKSEAL"]), "\ntag ")
	g.vault.SetEnabled(g.key, true)
	require.NoError(t, s.Revalidate(g.ctx))
	c.dir = "locked"
	require.NoError(t, c.tryOpen())
}

// Files that are nobody's in a store's directory are no concern of the store's, whatever
// happens to them.
func TestStrayFiles(t *testing.T) {
	g := newRig(t)
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(t, err)
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	stray := []string{"app.log", "._000012.log", "000002.sync-conflict.log", "OPTIONS-old", "MANIFEST-", "notes", "new\nline.log"}
	for _, n := range stray {
		write(t, g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, n), "at Close")
	}
	require.NoError(t, g.opts.Pebble.FS.MkdirAll(g.opts.Pebble.FS.PathJoin(g.dir, "old.log"), 0o700))
	require.NoError(t, s.Close())
	for _, n := range stray[1:] {
		write(t, g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, n), "changed since")
	}
	require.NoError(t, g.opts.Pebble.FS.Remove(g.opts.Pebble.FS.PathJoin(g.dir, stray[0])))
	write(t, g.opts.Pebble.FS, g.opts.Pebble.FS.PathJoin(g.dir, "rsync.log"), "new")
	for range 2 {
		s = g.open()
		got, err := s.Get(g.ctx, []byte("a"), nil)
		require.NoError(t, err)
		require.Equal(t, "1", string(got))
		require.NoError(t, s.Close())
	}
}

// A checkpoint that fails removes nothing that somebody else made meanwhile.
func TestCheckpointLosesARace(t *testing.T) {
	g := newRig(t)
	disk := &watchedFS{FS: g.opts.Pebble.FS}
	g.opts.Pebble.FS = disk
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	made := false
	watch := func(op, name string) { // the engine writes its memtables out before it makes the directory
		if op == "create" && strings.HasSuffix(name, ".sst") && !made {
			made = true
			write(t, disk.FS, "copy/theirs", "a backup")
		}
	}
	disk.watch.Store(&watch)
	require.ErrorIs(t, s.Checkpoint(g.ctx, "copy"), fs.ErrExist)
	disk.watch.Store(nil)
	require.True(t, made)
	require.Contains(t, files(t, disk.FS, "copy"), "theirs")
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Empty(t, copies)
}
