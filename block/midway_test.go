package block

import (
	"context"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// midwayEngine is Pebble, and calls before ahead of each change of the catalogue, and synced ahead of
// each Sync of another partition.
type midwayEngine struct {
	*pebble.DB
	before func(ctx context.Context, swaps []engine.Swap)
	synced func()
}

type midwayStore struct {
	engine.Partition
	e *midwayEngine
}

func (p midwayStore) Sync(ctx context.Context) error {
	p.e.synced()
	return p.Partition.Sync(ctx)
}

type midwayCatalogue struct {
	engine.Partition
	e *midwayEngine
}

func (e *midwayEngine) Partition(number uint32) engine.Partition {
	p := e.DB.Partition(number)
	if number == catalogue.Partition {
		return midwayCatalogue{p, e}
	}
	if e.synced != nil {
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
