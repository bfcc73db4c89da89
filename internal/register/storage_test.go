package register

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/storagetest"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// emptyPebble is a partition of a Pebble with nothing in it, in memory.
func emptyPebble(t *testing.T) engine.Partition {
	t.Helper()
	fs := vfs.NewMem()
	require.NoError(t, fs.MkdirAll("store", 0o755))
	lock, err := pebble.LockDir("store", fs, false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lock.Close()) })
	db, err := pebble.Open("store", lock, pebble.Options{FS: fs, Create: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db.Partition(0)
}

// The keyring's storage is what it has to be, in memory, where the document of a new store waits
// for its engine, and in an engine.
func TestStorageConforms(t *testing.T) {
	t.Run("in memory", func(t *testing.T) {
		storagetest.Run(t, func(*testing.T) func() keyring.Storage {
			m := &Storage{}
			return func() keyring.Storage { return m }
		})
	})
	for name, empty := range map[string]func(*testing.T) engine.Partition{
		"in Pebble":              emptyPebble,
		"in an engine in memory": func(*testing.T) engine.Partition { return memory.New().Partition(0) },
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) func() keyring.Storage {
				m := &Storage{part: empty(t)}
				return func() keyring.Storage { return m }
			})
		})
		// As another process has it, which knows nothing of this one's lock.
		t.Run(name+", each with a storage of its own", func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) func() keyring.Storage {
				part := empty(t)
				return func() keyring.Storage { return &Storage{part: part} }
			})
		})
	}
}

// slowDisk is a partition whose changes of meta records are seen at once, and durable only when
// somebody lets them be: as Pebble's are, whose log others sync as well.
type slowDisk struct {
	engine.Partition
	slow          bool
	seen, durable chan struct{}
}

func (p *slowDisk) SwapMeta(ctx context.Context, changes ...engine.Swap) ([]uint64, error) {
	revisions, err := p.Partition.SwapMeta(ctx, changes...)
	if p.slow {
		close(p.seen)
		<-p.durable
	}
	return revisions, err
}

// Who loads the document waits for no disk, and is given none that a crash could take away again.
func TestLoadWaitsForNoSave(t *testing.T) {
	ctx := t.Context()
	part := &slowDisk{Partition: emptyPebble(t), seen: make(chan struct{}), durable: make(chan struct{})}
	m := &Storage{part: part}
	v := vaulttest.New(nil)
	r, err := keyring.Create(ctx, m, kek.New(v, v.CreateKey("customer").Versionless()), nil)
	require.NoError(t, err)
	defer r.Close()
	before, was, err := m.Load(ctx)
	require.NoError(t, err)

	part.slow = true
	rotated := make(chan error, 1)
	go func() { rotated <- r.BeginEpoch(context.WithoutCancel(ctx)) }()
	<-part.seen
	during, still, err := m.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, before, during)
	require.Equal(t, was, still)

	part.slow = false
	close(part.durable)
	require.NoError(t, <-rotated)
	after, now, err := m.Load(ctx)
	require.NoError(t, err)
	require.NotEqual(t, before, after)
	require.Equal(t, keyring.ContentRevision(after), now)
}

// What a keyring saves is made from what it has taken up, with the copies and the KEK versions that
// another one has noted beside it, if that is authentic; else they are in doubt.
func TestRegisterOfAnotherKeyring(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, part engine.Partition)
		doubt bool
	}{
		"authentic": {},
		"it is gone": {func(t *testing.T, part engine.Partition) {
			setMetaRecord(t, part, Name, nil)
		}, true},
		"it was altered": {func(t *testing.T, part engine.Partition) {
			b, err := engine.ReadMeta(t.Context(), part, Name)
			require.NoError(t, err)
			b[len(b)-1] ^= 1
			setMetaRecord(t, part, Name, b)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, part := context.WithoutCancel(t.Context()), emptyPebble(t)
			v := vaulttest.New(nil)
			first, second := kek.New(v, v.CreateKey("first").Versionless()), kek.New(v, v.CreateKey("second").Versionless())
			own := inner.InstanceID{1}
			opts := &keyring.Options{OtherKEKs: []*kek.KEK{first, second}}
			opts.For(inner.Block{}).Instance = own
			one := &Storage{Own: own, part: part}
			a, err := keyring.Create(ctx, one, first, opts)
			require.NoError(t, err)
			defer a.Close()
			other := &Storage{Own: own}
			require.NoError(t, other.Attach(ctx, part))
			admitting := *opts
			admitting.For(inner.Block{}).Admit = func(o inner.Opened) error { other.Admit(o); return nil }
			b, err := keyring.Open(ctx, other, first, &admitting)
			require.NoError(t, err)
			defer b.Close()

			// The first one has made a copy, and moved to another KEK.
			instance := inner.InstanceID{7}
			one.Stage(func(r Register) []Entry {
				return r.With(Entry{Copy: Copy{Instance: instance.String(), Path: "/copy", KEK: a.State().KEK}, Vouched: true})
			})
			require.NoError(t, a.ChangeKEK(ctx, second))
			if c.spoil != nil {
				c.spoil(t, part)
			}
			require.NoError(t, b.BeginEpoch(ctx))

			r, known := other.View()
			require.True(t, known)
			require.Equal(t, b.State().Generation, r.Generation)
			require.Equal(t, c.doubt, r.Past.Incomplete)
			require.Equal(t, c.doubt, r.Lost)
			require.Equal(t, c.doubt, other.Wrong() != "")
			require.Contains(t, r.Past.IDs(), a.State().KEK)
			require.Equal(t, !c.doubt, r.Has(instance.String()))
			if !c.doubt {
				require.Empty(t, r.Copies[0].Doubt)
			}
			// And so it is found by the next one.
			next := &Storage{Own: own}
			require.NoError(t, next.Attach(ctx, part))
			require.Equal(t, r.Generation, next.reg.Generation)
			require.Equal(t, r.Has(instance.String()), next.reg.Has(instance.String()))
		})
	}
}

// setMetaRecord writes a record of the meta space, or removes it.
func setMetaRecord(t *testing.T, part engine.Partition, name string, value []byte) {
	t.Helper()
	require.NoError(t, engine.SetMeta(t.Context(), part, name, value))
}
