package place

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// closed makes an empty store that was closed.
func closed(t *testing.T, fs vfs.FS, dir string) *Place {
	t.Helper()
	p := New(fs, dir, false)
	p.Begin()
	require.NoError(t, p.MakeDir())
	require.NoError(t, p.Lock())
	require.NoError(t, p.Enter(pebble.Creating))
	db, err := p.OpenEngine(pebble.Options{})
	require.NoError(t, err)
	require.NoError(t, errors.Join(p.Enter(pebble.Opened), db.Close(), p.Leave(0, nil), p.Unlock()))
	return p
}

// found looks at a directory as Open does.
func found(t *testing.T, fs vfs.FS, dir string) *Place {
	t.Helper()
	p := New(fs, dir, false)
	require.NoError(t, p.Lock())
	require.NoError(t, errors.Join(p.Survey(), p.Unlock()))
	return p
}

// A store goes through its phases under one instance, and each is what the next one finds.
func TestPhases(t *testing.T) {
	fs := vfs.NewMem()
	some, err := Has(fs, "a/store")
	require.NoError(t, err)
	require.False(t, some)
	made := closed(t, fs, "a/store")
	some, err = Has(fs, "a/store")
	require.NoError(t, err)
	require.True(t, some)

	p := found(t, fs, "a/store")
	require.Equal(t, pebble.Closed, p.Phase())
	require.Equal(t, made.Instance(), p.Instance())
	for _, phase := range []pebble.Phase{pebble.Opening, pebble.Opened} {
		require.NoError(t, p.Enter(phase))
		require.Equal(t, phase, found(t, fs, "a/store").Phase())
	}
	require.NoError(t, p.Leave(0, nil))
	require.Equal(t, pebble.Closed, found(t, fs, "a/store").Phase())
}

// Who has the directory keeps others out, and lets it go once.
func TestLock(t *testing.T) {
	fs := vfs.NewMem()
	p := closed(t, fs, "store")
	require.NoError(t, p.Lock())
	require.ErrorIs(t, New(fs, "store", false).Lock(), ErrLocked)
	require.NoError(t, p.Unlock())
	other := New(fs, "store", false)
	require.NoError(t, other.Lock())
	require.NoError(t, p.Unlock(), "again")
	require.ErrorIs(t, p.Lock(), ErrLocked, "the other one's lock is its own")
	require.NoError(t, other.Unlock())
}

// What is read only writes nothing down.
func TestReadOnlyWritesNothing(t *testing.T) {
	fs := vfs.NewMem()
	closed(t, fs, "store")
	p := New(fs, "store", true)
	require.NoError(t, p.Survey())
	require.NoError(t, errors.Join(p.Enter(pebble.Opened), p.Leave(0, nil)))
	require.Equal(t, pebble.Closed, found(t, fs, "store").Phase())
}

// A copy has another instance than its source, whether blockseal made it or somebody else; so have
// the stores in it.
func TestCopies(t *testing.T) {
	for name, copied := range map[string]func(t *testing.T, fs *vfs.MemFS, p *Place){
		"by Checkpoint": func(t *testing.T, fs *vfs.MemFS, p *Place) {
			_, err := vfs.Clone(fs, fs, "store", "copy")
			require.NoError(t, err)
			instance := NewInstance()
			require.NoError(t, p.LeaveCopy("copy", instance, nil))
			at, err := InstanceAt(fs, "copy")
			require.NoError(t, err)
			require.Equal(t, instance, at)
		},
		"by hand": func(t *testing.T, fs *vfs.MemFS, p *Place) {
			_, err := vfs.Clone(fs, fs, "store", "copy")
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			p := closed(t, fs, "store")
			copied(t, fs, p)
			c := found(t, fs, "copy")
			require.NotEqual(t, p.Instance(), c.Instance())
			require.NoError(t, c.Enter(pebble.Opening))
			require.Equal(t, c.Instance(), found(t, fs, "copy").Instance(), "it stays what it is")
			require.Equal(t, p.Instance(), found(t, fs, "store").Instance())
		})
	}
}

// The instance of a store follows from the directory's and from its partition's number.
func TestStoreInstance(t *testing.T) {
	d := inner.InstanceID{1}
	require.Equal(t, "e3aa74aa76f9bbfba46801403ac4c258", StoreInstance(d, 7).String())
	seen := map[inner.InstanceID]bool{d: true}
	for _, d := range []inner.InstanceID{d, {2}} {
		for _, n := range []uint32{0, 1, 256, 1<<32 - 1} {
			require.False(t, seen[StoreInstance(d, n)])
			seen[StoreInstance(d, n)] = true
		}
	}
}

// A tag that its store has not made stays as it was found, so that it is refused again, and keeps
// other stores from nothing.
func TestRefusedTagStays(t *testing.T) {
	fs := vfs.NewMem()
	closed(t, fs, "store")
	id, err := readIdentity(fs, "store")
	require.NoError(t, err)
	id.tags = map[uint32]Tag{0: {}, 7: {9}}
	require.NoError(t, writeIdentity(fs, "store", id))
	tag := func(first byte) func(string, []byte) [inner.TagSize]byte {
		return func(purpose string, _ []byte) (tag [inner.TagSize]byte) {
			require.Equal(t, "identity", purpose)
			tag[0] = first
			return tag
		}
	}
	p := found(t, fs, "store")
	require.NoError(t, p.Enter(pebble.Opening))
	require.ErrorIs(t, p.CheckTag(0, tag(1)), keyring.ErrCorrupt)
	require.NoError(t, p.CheckTag(7, tag(9)))
	require.NoError(t, p.CheckTag(8, tag(1)), "it has none")
	require.NoError(t, p.Leave(0, nil))
	p = found(t, fs, "store")
	require.ErrorIs(t, p.CheckTag(0, tag(1)), keyring.ErrCorrupt)
	require.NoError(t, p.CheckTag(7, tag(1)), "of a list that it had no part in it has none")
	require.NoError(t, p.CheckTag(0, tag(0)), "of the tag's maker")
}

// A directory that has something else is not a store.
func TestHasRefusesWhatIsNoStore(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("other", 0o700))
	f, err := fs.Create("other/file", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = Has(fs, "other")
	require.ErrorIs(t, err, ErrNotStore)
	require.ErrorContains(t, err, `there is "file" in other`)
}

// A directory that somebody made, who may have died before it was durable where it is, is durable
// when a store was made in it.
func TestADirectoryThatWasThereIsDurable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	require.NoError(t, fs.MkdirAll("a", 0o755))
	require.NoError(t, syncDir(fs, "/"))
	require.NoError(t, fs.MkdirAll("a/store", 0o755))
	crash := func() *vfs.MemFS {
		return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 2))})
	}
	_, err := crash().Stat("a/store")
	require.ErrorIs(t, err, os.ErrNotExist, "it is not, so far")
	closed(t, fs, "a/store")
	some, err := Has(crash(), "a/store")
	require.NoError(t, err)
	require.True(t, some)
}

// orderFS notes files that were removed since their directory was synced.
type orderFS struct {
	vfs.FS
	removed, unsynced atomic.Int64
	renamed           func(to string)
}

func (f *orderFS) Remove(name string) error {
	f.removed.Add(1)
	f.unsynced.Add(1)
	return f.FS.Remove(name)
}

func (f *orderFS) Rename(from, to string) error {
	f.renamed(to)
	return f.FS.Rename(from, to)
}

func (f *orderFS) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	return orderDir{d, f}, err
}

type orderDir struct {
	vfs.File
	fs *orderFS
}

func (d orderDir) Sync() error {
	before := d.fs.unsynced.Load()
	err := d.File.Sync()
	d.fs.unsynced.Add(-before)
	return err
}

// On a disk that does not keep the order of a directory's entries, a file that the engine removed
// does not come back beside an identity that lists the files: the store would be refused for it.
// The directory is synced between the two.
func TestRemovalsAreDurableBeforeTheList(t *testing.T) {
	listed := 0
	fs := &orderFS{FS: vfs.NewMem()}
	closing := false
	fs.renamed = func(to string) {
		if closing && fs.PathBase(to) == identityName {
			require.Zero(t, fs.unsynced.Load(), "files that may come back")
			listed++
		}
	}
	closed(t, fs, "store")
	for range 3 {
		p := New(fs, "store", false)
		require.NoError(t, errors.Join(p.Lock(), p.Survey(), p.Enter(pebble.Opening)))
		db, err := p.OpenEngine(pebble.Options{})
		require.NoError(t, err)
		require.NoError(t, p.Enter(pebble.Opened))
		part := db.Partition(0)
		_, err = part.SwapMeta(t.Context(), engine.Swap{Name: "name", Revision: engine.AnyRevision, Value: []byte("value")})
		require.NoError(t, err)
		require.NoError(t, db.Close())
		require.NotZero(t, fs.removed.Swap(0), "the engine removed some")
		closing = true
		require.NoError(t, errors.Join(p.Leave(0, nil), p.Unlock()))
		closing = false
	}
	require.Equal(t, 3, listed)
}
