package block_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// model is a store beside a plain map that says what must be in it, through
// rotations at every level, copies, revocations and crashes.
type model struct {
	*rig
	rt       *rapid.T
	s        *block.Store
	disk     *watchedFS
	want     map[string][]byte
	byItself bool // DEKs follow the KEK by themselves

	// KEKs: every key that there was, and which is the store's.
	places   []place
	at       int
	versions map[vault.KeyID]bool // that exist
	table    map[vault.KeyID]*listed

	batches []*openBatch
	kept    []keptCopy
	copies  int
}

func newModel(t *testing.T, rt *rapid.T) *model {
	g := newRig(t)
	m := &model{rig: g, rt: rt, disk: &watchedFS{FS: vfs.NewCrashableMem()}, want: map[string][]byte{},
		versions: map[vault.KeyID]bool{}, table: map[vault.KeyID]*listed{}}
	g.opts.Pebble.FS = m.disk
	g.opts.Keyring.EpochMaxDEKs = 50 // new epochs by count, too
	g.opts.VaultRate = 1 << 30       // the clock stands still, and nobody would wake who waits
	if rapid.Bool().Draw(rt, "ByKEK") {
		g.opts.Keyring.Wrapping = keyring.ByKEK
	}
	m.byItself = rapid.Bool().Draw(rt, "DEKs follow by themselves")
	g.opts.ManualRewrap = !m.byItself
	m.newPlace()
	m.reopen()
	return m
}

// reopen opens the store with whichever KEK wraps it: a crash may have come in the
// middle of a change.
func (m *model) reopen() {
	m.batches, m.table = nil, map[vault.KeyID]*listed{}
	if in, err := block.InspectKeyring(m.dir, &m.opts); err == nil {
		m.at = m.placeOf(in.KEK)
	}
	m.opts.Keyring.OtherKEKs = m.allKEKs()
	s, err := block.Open(m.ctx, m.dir, m.drawKEK(m.at), &m.opts)
	require.NoError(m.rt, err)
	require.Equal(m.rt, keyring.Available, s.State().Status)
	m.s = s
}

func (m *model) id() []byte {
	return fmt.Appendf(nil, "%02d", rapid.IntRange(0, 29).Draw(m.rt, "id"))
}

func (m *model) data() []byte {
	return bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(m.rt, "byte"))}, rapid.IntRange(0, 3000).Draw(m.rt, "size"))
}

func (m *model) Put(*rapid.T) {
	id, data := m.id(), m.data()
	require.NoError(m.rt, m.s.Put(m.ctx, id, data))
	m.want[string(id)] = data
}

func (m *model) Delete(*rapid.T) {
	id := m.id()
	require.NoError(m.rt, m.s.Delete(m.ctx, id))
	delete(m.want, string(id))
}

func (m *model) rekey() error {
	r := block.Range{Start: m.id()}
	if rapid.Bool().Draw(m.rt, "bounded") {
		if r.End = m.id(); bytes.Compare(r.Start, r.End) > 0 {
			r.Start, r.End = r.End, r.Start
		}
	}
	return m.s.Rekey(m.ctx, r, nil)
}

func (m *model) Rekey(*rapid.T) { require.NoError(m.rt, m.rekey()) }

func (m *model) RotateEpoch(*rapid.T) { require.NoError(m.rt, m.s.RotateEpoch(m.ctx, nil)) }

func (m *model) Erase(*rapid.T) {
	r, err := m.s.Erase(m.ctx, nil)
	if len(m.batches) > 0 {
		require.ErrorIs(m.rt, err, block.ErrPinned)
		return
	}
	require.NoError(m.rt, err)
	require.EqualValues(m.rt, len(m.want), r.Kept)
}

func (m *model) RevokeAndRestore(*rapid.T) {
	op := rapid.SampledFrom([]vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}).Draw(m.rt, "permission")
	v := m.places[m.at].vault
	v.Revoke(op)
	require.ErrorIs(m.rt, m.s.Revalidate(m.ctx), vault.ErrAccessDenied)
	require.ErrorIs(m.rt, m.s.Put(m.ctx, m.id(), nil), block.ErrInaccessible)
	_, err := m.s.Get(m.ctx, m.id(), nil)
	require.ErrorIs(m.rt, err, block.ErrInaccessible)
	v.Restore(op)
	require.NoError(m.rt, m.s.Revalidate(m.ctx))
	for _, b := range m.batches {
		require.ErrorIs(m.rt, b.Commit(m.ctx), block.ErrInaccessible)
		require.NoError(m.rt, b.Close())
	}
	m.batches = nil
}

// cut returns what a crash would leave now: what was not synced, some of it or all, is
// lost.
func (m *model) cut() *vfs.MemFS {
	seed := rapid.Uint64().Draw(m.rt, "seed")
	percent := rapid.IntRange(0, 100).Draw(m.rt, "unsynced data kept")
	return m.disk.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 1))})
}

// goOnWith reopens the store from what a crash has left.
func (m *model) goOnWith(fs *vfs.MemFS) {
	old := m.s
	m.disk = &watchedFS{FS: fs}
	old.Close() // of a file system that nobody sees any more
	m.opts.Pebble.FS = m.disk
	m.reopen()
}

func (m *model) Crash(*rapid.T) { m.goOnWith(m.cut()) }

// CrashWithin crashes in the middle of an operation that changes no block.
func (m *model) CrashWithin(*rapid.T) {
	what := rapid.SampledFrom([]string{"rotate KEK", "change KEK", "rewrap DEKs", "rotate epoch", "rekey", "erase"}).Draw(m.rt, "operation")
	m.dropBatches()
	run := map[string]func() error{
		"rotate KEK": m.rotateKEK, "change KEK": m.changeKEK, "rekey": m.rekey,
		"rewrap DEKs":  func() error { return m.s.RewrapDEKs(m.ctx, nil) },
		"rotate epoch": func() error { return m.s.RotateEpoch(m.ctx, nil) },
		"erase":        func() error { _, err := m.s.Erase(m.ctx, nil); return err },
	}[what]
	left := rapid.IntRange(1, 40).Draw(m.rt, "changes of files before it")
	seed := rapid.Uint64().Draw(m.rt, "seed")
	percent := rapid.IntRange(0, 100).Draw(m.rt, "unsynced data kept")
	cut := make(chan *vfs.MemFS, 1)
	count := make(chan int, 1)
	count <- left
	see := func(string, string) {
		n := <-count
		if count <- n - 1; n == 1 {
			cut <- m.disk.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 1))})
		}
	}
	m.disk.watch.Store(&see)
	err := run()
	m.disk.watch.Store(nil)
	require.NoError(m.rt, err, what)
	select {
	case fs := <-cut:
		m.goOnWith(fs)
	default:
		m.Crash(nil) // it takes fewer
	}
}

func (m *model) Reopen(*rapid.T) {
	require.NoError(m.rt, m.s.Close())
	m.reopen()
}

// Check is run after every step.
func (m *model) Check(*rapid.T) {
	m.same(m.s, m.want)
	rep, err := m.s.Verify(m.ctx, nil)
	require.NoError(m.rt, err)
	require.EqualValues(m.rt, len(m.want), rep.Blocks)
}

func (m *model) same(s *block.Store, want map[string][]byte) {
	got := map[string][]byte{}
	for b, err := range s.Blocks(m.ctx, block.Range{}) {
		require.NoError(m.rt, err)
		got[string(b.ID)] = append([]byte{}, b.Data...)
	}
	require.Len(m.rt, got, len(want))
	for id, data := range want {
		require.True(m.rt, bytes.Equal(data, got[id]), "block %s", id)
		one, err := s.Get(m.ctx, []byte(id), nil)
		require.NoError(m.rt, err)
		require.True(m.rt, bytes.Equal(data, one), "block %s", id)
	}
}

// checks is how many runs a model test takes, unless -rapid.checks says otherwise:
// rapid's own default is for models that cost less.
func checks(t *testing.T, n int) {
	f := flag.Lookup("rapid.checks")
	if f.Value.String() != f.DefValue {
		return
	}
	require.NoError(t, flag.Set("rapid.checks", strconv.Itoa(n)))
	t.Cleanup(func() { flag.Set("rapid.checks", f.DefValue) })
}

func TestModelWithRotations(t *testing.T) {
	checks(t, 40)
	seed.Rapid(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt)
		defer func() { m.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"": m.Check, "put": m.Put, "put again": m.Put, "delete": m.Delete, "batch": m.Batch, "batch again": m.Batch,
			"commit": m.Commit, "commit again": m.Commit, "rekey": m.Rekey, "rotate epoch": m.RotateEpoch, "erase": m.Erase,
			"rotate KEK": m.RotateKEK, "change KEK": m.ChangeKEK, "change KEK again": m.ChangeKEK, "rewrap DEKs": m.RewrapDEKs,
			"checkpoint": m.Checkpoint, "check a copy": m.CheckCopy, "forget a copy": m.ForgetCopy,
			"revoke": m.RevokeAndRestore, "crash": m.Crash, "crash within": m.CrashWithin, "reopen": m.Reopen,
		})
		for len(m.batches) > 0 {
			m.Commit(nil)
		}
		m.RewrapDEKs(nil)
		m.Reopen(nil)
		m.Check(nil)
		for range m.kept {
			m.CheckCopy(nil)
		}
	})
}
