package block

import (
	"bytes"
	"context"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// midwayEngine is Pebble, and calls before ahead of each change of the catalogue, and synced ahead of
// each Sync of another partition; noted fails the changes of another partition's meta records.
type midwayEngine struct {
	*pebble.DB
	before func(ctx context.Context, swaps []engine.Swap)
	synced func()
	noted  func() error
	read   func(name string) error // fails the reading of a record of the catalogue's partition
}

type midwayStore struct {
	engine.Partition
	e *midwayEngine
}

func (p midwayStore) Sync(ctx context.Context) error {
	if p.e.synced != nil {
		p.e.synced()
	}
	return p.Partition.Sync(ctx)
}

type midwayCatalogue struct {
	engine.Partition
	e *midwayEngine
}

func (c midwayCatalogue) Purge(ctx context.Context, touch func() error, held func() bool) error {
	return c.Partition.(engine.Purger).Purge(ctx, touch, held)
}

func (c midwayCatalogue) LoadMeta(ctx context.Context, name string) ([]byte, uint64, error) {
	if c.e.read != nil {
		if err := c.e.read(name); err != nil {
			return nil, 0, err
		}
	}
	return c.Partition.LoadMeta(ctx, name)
}

func (p midwayStore) SwapMeta(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	if p.e.noted != nil {
		if err := p.e.noted(); err != nil {
			return nil, err
		}
	}
	return p.Partition.SwapMeta(ctx, swaps...)
}

func (e *midwayEngine) Partition(number uint32) engine.Partition {
	p := e.DB.Partition(number)
	if number == catalogue.Partition {
		return midwayCatalogue{p, e}
	}
	if e.synced != nil || e.noted != nil {
		return midwayStore{p, e}
	}
	return p
}

func (c midwayCatalogue) SwapMeta(ctx context.Context, swaps ...engine.Swap) ([]uint64, error) {
	c.e.before(ctx, swaps)
	return c.Partition.SwapMeta(ctx, swaps...)
}

// becomes reports whether a change of the catalogue brings an entry to a state.
func becomes(swaps []engine.Swap, state catalogue.State) bool {
	e, err := catalogue.Decode(swaps[0].Value)
	return err == nil && e.State == state
}

// midwayRig is a DB whose stores are under KEKs of one vault.
type midwayRig struct {
	t     *testing.T
	vault *vaulttest.Vault
	fs    vfs.FS
	db    *DB
}

func newMidwayRig(t *testing.T, before func(ctx context.Context, swaps []engine.Swap)) *midwayRig {
	g := &midwayRig{t: t, fs: vfs.NewMem(), vault: vaulttest.New(nil)}
	db, err := OpenDB(t.Context(), "db", &DBOptions{RecordCache: -1, RowCache: -1,
		Resolve: func(_ context.Context, name string) (*kek.KEK, *Options, error) { return g.kek(name), nil, nil },
		Pebble:  PebbleOptions{FS: g.fs, MemTable: 1 << 20, BlockCache: 1 << 20}})
	require.NoError(t, err)
	db.engine = &midwayEngine{DB: db.engine.(*pebble.DB), before: before}
	db.catalogue = catalogue.Of(db.engine)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	g.db = db
	return g
}

func (g *midwayRig) kek(name string) *kek.KEK {
	return kek.New(g.vault, g.vault.CreateKey(name).Versionless())
}

func (g *midwayRig) create(name string) (*Store, error) {
	return g.db.Create(g.t.Context(), name, g.kek(name), nil)
}

// A store is found by others as soon as its document is there, which is before its creation has
// ended: by then it has all that they use of it.
func TestAStoreIsFoundBeforeItsCreationHasEnded(t *testing.T) {
	at, goOn := make(chan struct{}), make(chan struct{})
	end := sync.OnceFunc(func() { close(goOn) })
	defer end()
	g := newMidwayRig(t, func(_ context.Context, swaps []engine.Swap) {
		if becomes(swaps, catalogue.Present) {
			close(at)
			<-goOn
		}
	})
	made := make(chan error, 1)
	go func() { _, err := g.create("a"); made <- err }()
	<-at
	keys := g.db.askForKEKsOf(t.Context(), "a") // as Drop does
	require.Len(t, keys, 1)
	require.Equal(t, KeyExists, keys[0].State)
	require.NoError(t, g.db.Checkpoint(t.Context(), "copy"))
	end()
	require.NoError(t, <-made)
}

// A Checkpoint leaves the partition alone of a store that is being made. Else the next one would raise
// the floor of another partition, and what is under way would be sealed with what the copy has.
func TestACheckpointLeavesAloneWhatIsBeingMade(t *testing.T) {
	g := newMidwayRig(t, func(context.Context, []engine.Swap) {})
	at, goOn := make(chan struct{}), make(chan struct{})
	end := sync.OnceFunc(func() { close(goOn) })
	defer end()
	var once sync.Once
	g.db.engine.(*midwayEngine).synced = func() {
		once.Do(func() { close(at); <-goOn })
	}
	var s *Store
	made := make(chan error, 1)
	go func() {
		var err error
		s, err = g.create("a")
		made <- err
	}()
	<-at
	require.NoError(t, g.db.Checkpoint(t.Context(), "copy"))
	end()
	require.NoError(t, <-made)
	require.NoError(t, s.Put(t.Context(), []byte("id"), nil))
	require.NoError(t, g.db.Checkpoint(t.Context(), "another"))
	require.EqualValues(t, 2, s.part.Floor().Epoch)
}

// Only damage excuses a closed store from remembering its copy. A copy that is forgotten because
// nothing could be written would be missing in receipts that say that they are whole.
func TestACheckpointWhoseClosedStoreCannotRemember(t *testing.T) {
	g := newMidwayRig(t, func(context.Context, []engine.Swap) {})
	s, err := g.create("a")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	e := g.db.engine.(*midwayEngine)
	e.noted = func() error { return syscall.EIO }
	err = g.db.Checkpoint(t.Context(), "copy")
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, `store "a"`)
	_, err = g.fs.Stat("copy")
	require.ErrorIs(t, err, fs.ErrNotExist)
	e.noted = nil
	require.NoError(t, g.db.Checkpoint(t.Context(), "copy"))
	require.NoError(t, engine.SetMeta(t.Context(), e.DB.Partition(s.number), register.DocumentName, nil))
	require.NoError(t, g.db.Checkpoint(t.Context(), "another"), "that is damage")
}

// What a receipt says is known to its draft alone once the store is gone: a Drop that cannot read that
// for now has removed nothing more, and ends well when it is called again.
func TestADropThatCannotReadItsDraft(t *testing.T) {
	g := newMidwayRig(t, func(context.Context, []engine.Swap) {})
	s, err := g.create("a")
	require.NoError(t, err)
	e := g.db.engine.(*midwayEngine)
	e.read = func(name string) error {
		if strings.HasPrefix(name, receiptPrefix) {
			return syscall.EIO
		}
		return nil
	}
	_, err = g.db.Drop(t.Context(), "a")
	require.ErrorIs(t, err, syscall.EIO)
	e.read = nil
	r, err := g.db.Drop(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, s.StoreID(), r.Store)
	require.Len(t, r.Keys, 1)
	require.Equal(t, KeyExists, r.Keys[0].State)
	require.False(t, r.Incomplete)
}

// A store arrives before a Checkpoint or after it: else its copy would have it, and it would remember no
// copy.
func TestAStoreArrivesInNoCheckpoint(t *testing.T) {
	from := newMidwayRig(t, func(context.Context, []engine.Swap) {})
	_, err := from.create("a")
	require.NoError(t, err)
	var stream bytes.Buffer
	_, err = from.db.Export(t.Context(), "a", &stream)
	require.NoError(t, err)
	to := newMidwayRig(t, func(context.Context, []engine.Swap) {})
	saved := 0
	to.db.engine.(*midwayEngine).noted = func() error {
		saved++
		if to.db.listing.TryLock() {
			to.db.listing.Unlock()
			t.Error("a Checkpoint could begin")
		}
		return nil
	}
	_, err = to.db.Import(t.Context(), &stream)
	require.NoError(t, err)
	require.Equal(t, 1, saved)
}
