package block_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func (g *dbRig) stats() block.DBStats {
	g.t.Helper()
	st, err := g.db.Stats(g.ctx)
	require.NoError(g.t, err)
	b, err := json.Marshal(st)
	require.NoError(g.t, err)
	require.Less(g.t, len(b), 64<<10, "its size does not grow with the number of stores")
	return st
}

// troubles returns them as texts, and requires that the counts are theirs.
func troubles(t *testing.T, st block.DBStats) (out []string) {
	t.Helper()
	counts := map[block.TroubleKind]int{}
	for _, kind := range block.TroubleKinds() {
		counts[kind] = 0
	}
	for _, tr := range st.Troubles {
		counts[tr.Kind]++
		out = append(out, fmt.Sprintf("%s %s", tr.Kind, tr.Store))
	}
	require.Equal(t, counts, st.TroubleCounts)
	return out
}

// What the stores have done is counted together, and stays when they are closed.
func TestStatsOfADB(t *testing.T) {
	g := newDBRig(t)
	g.opts.MaxOpen = 2
	g.reopen()
	for i := range 5 {
		s := g.create(fmt.Sprint(i))
		require.NoError(t, s.Put(g.ctx, []byte("id"), make([]byte, 100)))
		requireData(t, s, "id", string(make([]byte, 100)))
		require.NoError(t, s.Close())
	}
	st := g.stats()
	require.Equal(t, 5, st.Stores)
	require.Equal(t, start, st.Counted)
	require.Zero(t, st.Open)
	require.Equal(t, map[string]int{"available": 0, "degraded": 0, "inaccessible": 0}, st.States)
	require.Len(t, st.Instance, 32)
	require.EqualValues(t, 5, st.Puts)
	require.EqualValues(t, 500, st.WrittenBytes)
	require.EqualValues(t, 5, st.Gets)
	require.EqualValues(t, 5, st.Calls[1].Outcomes["ok"], "each was wrapped once")
	require.EqualValues(t, 0, st.Failures["get"]["corrupt"])
	require.NotZero(t, st.Engine.DiskBytes)
	require.Empty(t, troubles(t, st))

	_, release := g.acquire("0")
	one, releaseOne := g.acquire("1")
	g.vault.SetOutage(&vault.Error{Kind: vault.ErrUnavailable})
	require.Error(t, one.Revalidate(g.ctx))
	st = g.stats()
	require.Equal(t, 2, st.Open)
	require.Equal(t, map[string]int{"available": 1, "degraded": 1, "inaccessible": 0}, st.States)
	require.EqualValues(t, 1, st.Checks.Unanswered)
	require.Empty(t, troubles(t, st), "that a vault does not answer is one trouble, and not one of each store")
	g.vault.SetOutage(nil)
	requireData(t, one, "id", string(make([]byte, 100)))
	release()
	releaseOne()

	// The counting is what lags.
	require.NoError(t, g.create("5").Close())
	require.Equal(t, 5, g.stats().Stores)
	g.clock.Advance(10 * time.Second)
	st = g.stats()
	require.Equal(t, 6, st.Stores)
	require.EqualValues(t, 6, st.Gets)

	require.NoError(t, g.db.Close())
	st = g.stats()
	require.True(t, st.Closed)
	require.Equal(t, 6, st.Stores)
	require.Zero(t, st.Open)
	require.EqualValues(t, 6, st.Gets)
	require.Zero(t, st.Engine)
}

// Each kind of trouble is named with its store, and is over when its reason is.
func TestTroublesOfADB(t *testing.T) {
	g := newDBRig(t)
	resolve := g.opts.Resolve
	var unknown error
	g.opts.Resolve = func(ctx context.Context, name string) (*kek.KEK, *block.Options, error) {
		if name == "unresolved" && unknown != nil {
			return nil, nil, unknown
		}
		return resolve(ctx, name)
	}
	g.reopen()
	anchor := newNotch()
	stores := map[string]*block.Store{}
	for _, name := range []string{"well", "revoked", "expiring", "damaged", "unresolved"} {
		stores[name] = g.create(name)
		require.NoError(t, stores[name].Put(g.ctx, []byte("account-4711"), make([]byte, 100)))
	}
	o := g.store
	o.Keyring.Anchor = anchor
	lagging, err := g.db.Create(g.ctx, "lagging", g.kek("lagging"), &o)
	require.NoError(t, err)
	require.Empty(t, troubles(t, g.stats()))

	g.vault.SetEnabled(g.kek("revoked").ID(), false)
	require.Error(t, stores["revoked"].Revalidate(g.ctx))
	g.vault.SetDates(g.kek("expiring").ID(), time.Time{}, start.Add(29*24*time.Hour))
	require.NoError(t, stores["expiring"].Revalidate(g.ctx))
	anchor.set(anchor.at(), errors.New("no space"))
	require.NoError(t, lagging.RotateEpoch(g.ctx, nil))
	require.Eventually(t, func() bool { return lagging.State().AnchorErr != nil }, time.Minute, time.Millisecond)
	require.NoError(t, stores["unresolved"].Close())
	unknown = errors.New("no such customer")
	_, _, err = g.db.Acquire(g.ctx, "unresolved")
	require.ErrorIs(t, err, unknown)
	_, _, err = g.db.Acquire(g.ctx, "nobody")
	require.ErrorIs(t, err, block.ErrNoStore, "which is about no store")
	st := g.stats()
	require.Equal(t, []string{"not_opened unresolved", "inaccessible revoked", "anchor_lags lagging", "key_near_expiry expiring"}, troubles(t, st))
	require.ErrorIs(t, st.Troubles[0].Err, unknown)
	require.ErrorIs(t, st.Troubles[1].Err, vault.ErrKeyDisabled)
	require.Equal(t, start, st.Troubles[1].Since)
	b, err := json.Marshal(st.Troubles)
	require.NoError(t, err)
	require.Contains(t, string(b), `"error":"no such customer"`)
	require.Contains(t, string(b), `"status":"Inaccessible"`)

	unknown = nil
	_, release := g.acquire("unresolved")
	release()
	g.vault.SetEnabled(g.kek("revoked").ID(), true)
	require.NoError(t, stores["revoked"].Revalidate(g.ctx))
	g.vault.SetDates(g.kek("expiring").ID(), time.Time{}, time.Time{})
	require.NoError(t, stores["expiring"].Revalidate(g.ctx))
	anchor.set(anchor.at(), nil)
	require.NoError(t, lagging.RotateEpoch(g.ctx, nil))
	require.Eventually(t, func() bool { return lagging.State().AnchorErr == nil }, time.Minute, time.Millisecond)
	require.Empty(t, troubles(t, g.stats()))
}

// behind changes what a partition of the DB's engine has, while the DB is closed.
func (g *dbRig) behind(f func(e *pebble.DB)) {
	g.t.Helper()
	fs := g.opts.Pebble.FS
	lock, err := pebble.LockDir("db", fs, false)
	require.NoError(g.t, err)
	e, err := pebble.Open("db", lock, pebble.Options{FS: fs})
	require.NoError(g.t, err)
	f(e)
	require.NoError(g.t, errors.Join(e.Close(), unclose.Store(fs, "db"), lock.Close()))
}

// damageRow flips a bit of a sealed block.
func damageRow(t *testing.T, e *pebble.DB, number uint32, id string) {
	key := append(binary.BigEndian.AppendUint32([]byte{3}, number), id...)
	value, closer, err := e.Get(key)
	require.NoError(t, err)
	value = bytes.Clone(value)
	value[len(value)-1] ^= 1
	b := e.NewBatch()
	require.NoError(t, b.Set(key, value))
	require.NoError(t, errors.Join(closer.Close(), e.Commit(b, true), b.Close()))
}

// damageMeta flips a bit of a meta record.
func damageMeta(t *testing.T, e *pebble.DB, number uint32, name string) {
	p := e.Partition(number)
	defer p.Release()
	value, err := engine.ReadMeta(t.Context(), p, name)
	require.NoError(t, err)
	value = bytes.Clone(value)
	value[len(value)-1] ^= 1
	require.NoError(t, engine.SetMeta(t.Context(), p, name, value))
}

// Blocks that do not authenticate are counted with the store that has them, and a store that does
// not open for damage is named all the same. Its text stays with whoever asks for it.
func TestDamagedStoresOfADB(t *testing.T) {
	g := newDBRig(t)
	for _, name := range []string{"block", "document", "well"} {
		s := g.create(name)
		require.NoError(t, s.Put(g.ctx, []byte("id"), nil))
		require.NoError(t, s.Put(g.ctx, []byte("account-4711"), make([]byte, 100)))
	}
	require.NoError(t, g.db.Close())
	g.behind(func(e *pebble.DB) {
		c := catalogue.Of(e)
		damage := func(name string, what func(number uint32)) {
			entry, err := c.Find(g.ctx, name)
			require.NoError(t, err)
			what(entry.Number)
		}
		damage("block", func(n uint32) { damageRow(t, e, n, "account-4711") })
		damage("document", func(n uint32) { damageMeta(t, e, n, "keyring") })
	})
	g.openDB()
	for _, name := range []string{"well", "block"} {
		s, release := g.acquire(name)
		defer release()
		_, err := s.Get(g.ctx, []byte("account-4711"), nil)
		if name == "block" {
			require.ErrorIs(t, err, block.ErrCorrupt)
		} else {
			require.NoError(t, err)
		}
	}
	_, _, err := g.db.Acquire(g.ctx, "document")
	require.ErrorIs(t, err, block.ErrCorrupt)
	st := g.stats()
	require.Equal(t, []string{"damaged block", "damaged document"}, troubles(t, st))
	require.NotContains(t, st.Troubles[0].Err.Error(), "4711")
}

// Many with one trouble do not hide the one with another, and what is named is bounded.
func TestTroublesAreBounded(t *testing.T) {
	g := newDBRig(t)
	const many = 50
	for i := range many {
		s := g.create(fmt.Sprintf("revoked %02d", i))
		g.vault.SetEnabled(g.kek(fmt.Sprintf("revoked %02d", i)).ID(), false)
		require.Error(t, s.Revalidate(g.ctx))
		g.clock.Advance(time.Millisecond)
	}
	for _, name := range []string{"expiring", "expiring too"} {
		s := g.create(name)
		g.vault.SetDates(g.kek(name).ID(), time.Time{}, start.Add(24*time.Hour))
		require.NoError(t, s.Revalidate(g.ctx))
	}
	st := g.stats()
	require.Equal(t, many, st.TroubleCounts[block.TroubleInaccessible])
	require.Equal(t, 2, st.TroubleCounts[block.TroubleKeyNearExpiry])
	require.Len(t, st.Troubles, block.MaxTroubles)
	for i, tr := range st.Troubles[:block.MaxTroubles-2] {
		require.Equal(t, fmt.Sprintf("revoked %02d", i), tr.Store, "those that began first, so that the list stays as it is")
	}
	require.Equal(t, "expiring", st.Troubles[block.MaxTroubles-2].Store)
	require.Equal(t, many, st.States["inaccessible"])
}

// stopping is a clock that is asked for the time in the middle of a drop, when ctx is made to end.
type stopping struct {
	*vaulttest.Clock
	asked int // how often it is to be asked until then
	stop  func()
}

func (c *stopping) Now() time.Time {
	if c.asked--; c.asked == 0 {
		c.stop()
	}
	return c.Clock.Now()
}

// A drop that has failed, or lasts, or that another process began, is told until it is over; and one
// that OpenDB has finished is told as well, because nobody has its receipt.
func TestDropsThatNeedAPerson(t *testing.T) {
	g := newDBRig(t)
	clock := &stopping{Clock: g.clock}
	g.opts.Clock = clock
	g.reopen()
	for _, name := range []string{"a", "b"} {
		s := g.create(name)
		require.NoError(t, s.Put(g.ctx, []byte("id"), make([]byte, 100)))
		require.NoError(t, s.Close())
	}
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	_, err := g.db.Drop(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, troubles(t, g.stats()), "nothing has happened")

	g.clock.Advance(time.Hour) // for which that drop was not under way
	ctx, cancel = context.WithCancel(g.ctx)
	meanwhile := []string{"not looked"}
	clock.asked, clock.stop = 2, func() { // when the engine is to forget what was deleted
		meanwhile = troubles(t, g.stats())
		cancel()
	}
	_, err = g.db.Drop(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, meanwhile)
	st := g.stats()
	require.Equal(t, []string{"drop_unfinished a"}, troubles(t, st))
	require.Equal(t, 1, st.Dropping)
	require.ErrorIs(t, st.Troubles[0].Err, context.Canceled)
	left, err := g.db.Unfinished(g.ctx)
	require.NoError(t, err)
	require.Equal(t, []block.UnfinishedStore{{Name: "a", Dropping: true}}, left)

	// As a process sees it that only reads.
	require.NoError(t, g.db.Close())
	g.opts.ReadOnly = true
	g.openDB()
	st = g.stats()
	require.Equal(t, []string{"drop_unfinished a"}, troubles(t, st))
	require.Equal(t, 1, st.Stores)
	require.NoError(t, g.db.Close())

	g.opts.ReadOnly = false
	g.openDB()
	st = g.stats()
	require.Equal(t, []string{"drop_finished a"}, troubles(t, st))
	require.Zero(t, st.Dropping)
	left, err = g.db.Unfinished(g.ctx)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = g.db.Drop(g.ctx, "a")
	require.ErrorIs(t, err, block.ErrNoStore)
	_, err = g.db.Drop(g.ctx, "b")
	require.NoError(t, err)
	require.Equal(t, []string{"drop_finished a"}, troubles(t, g.stats()))
	require.NoError(t, g.db.Close())
	_, err = g.db.Unfinished(g.ctx)
	require.ErrorIs(t, err, block.ErrClosed)
}

// Statistics are read while stores come and go, and no counter goes back; run with -race.
func TestStatsWhileStoresComeAndGo(t *testing.T) {
	g := newDBRig(t)
	g.opts.MaxOpen = 2
	g.reopen()
	const stores, rounds = 6, 20
	for i := range stores {
		require.NoError(t, g.create(fmt.Sprint(i)).Close())
	}
	before := g.stats()
	done := make(chan error, 1)
	go func() {
		for i := range stores * rounds {
			s, release, err := g.db.Acquire(g.ctx, fmt.Sprint(i%stores))
			if err == nil {
				err = s.Put(g.ctx, []byte("id"), nil)
				release()
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	last := before
	for len(done) == 0 {
		st := g.stats()
		require.GreaterOrEqual(t, st.Puts, last.Puts)
		for i := range st.Calls {
			require.GreaterOrEqual(t, st.Calls[i].Ended(), last.Calls[i].Ended())
		}
		last = st
	}
	require.NoError(t, <-done)
	require.EqualValues(t, stores*rounds, g.stats().Puts-before.Puts)
}
