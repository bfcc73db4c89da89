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
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// model is a store beside a plain map that says what must be in it, through
// rotations at every level, copies, revocations and crashes.
type model struct {
	*rig
	rt     *rapid.T
	s      *block.Store
	fs     *vfs.MemFS
	want   map[string][]byte
	vaults int
	copies int
}

func newModel(t *testing.T, rt *rapid.T) *model {
	g := newRig(t)
	m := &model{rig: g, rt: rt, fs: vfs.NewCrashableMem(), want: map[string][]byte{}}
	g.opts.FS = m.fs
	g.opts.Keyring.EpochMaxDEKs = 50 // new epochs by count, too
	g.opts.VaultRate = 1 << 30       // the clock stands still, and nobody would wake who waits
	if rapid.Bool().Draw(rt, "ByKEK") {
		g.opts.Keyring.Wrapping = keyring.ByKEK
	}
	m.reopen()
	return m
}

func (m *model) reopen() {
	s, err := block.Open(m.ctx, m.dir, m.kek, &m.opts)
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

// Batch may span a rotation of the epoch between its making and its commit.
func (m *model) Batch(*rapid.T) {
	b := m.s.NewBatch()
	next := map[string][]byte{}
	for range rapid.IntRange(1, 8).Draw(m.rt, "changes") {
		id := m.id()
		if rapid.IntRange(0, 3).Draw(m.rt, "kind") == 0 {
			require.NoError(m.rt, b.Delete(m.ctx, id))
			next[string(id)] = nil
			continue
		}
		data := m.data()
		require.NoError(m.rt, b.Put(m.ctx, id, data))
		next[string(id)] = append([]byte{}, data...)
	}
	if rapid.Bool().Draw(m.rt, "rotate in between") {
		require.NoError(m.rt, m.s.RotateEpoch(m.ctx, nil))
	}
	require.NoError(m.rt, b.Commit(m.ctx))
	for id, data := range next {
		if data == nil {
			delete(m.want, id)
		} else {
			m.want[id] = data
		}
	}
}

func (m *model) Rekey(*rapid.T) {
	r := block.Range{Start: m.id()}
	if rapid.Bool().Draw(m.rt, "bounded") {
		if r.End = m.id(); bytes.Compare(r.Start, r.End) > 0 {
			r.Start, r.End = r.End, r.Start
		}
	}
	require.NoError(m.rt, m.s.Rekey(m.ctx, r, nil))
}

func (m *model) RotateEpoch(*rapid.T) { require.NoError(m.rt, m.s.RotateEpoch(m.ctx, nil)) }

func (m *model) Erase(*rapid.T) {
	r, err := m.s.Erase(m.ctx, nil)
	require.NoError(m.rt, err)
	require.EqualValues(m.rt, len(m.want), r.Kept)
}

func (m *model) RotateKEK(*rapid.T) {
	m.vault.Rotate(m.kek.ID().Name)
	require.NoError(m.rt, m.s.RotateKEK(m.ctx))
	require.NoError(m.rt, m.s.RewrapDEKs(m.ctx, nil))
	m.onlyNeeds(m.s.State().KEK)
}

// ChangeKEK moves to a key in another vault, after which the old one is deleted.
func (m *model) ChangeKEK(*rapid.T) {
	m.vaults++
	v := vaulttest.New(&vaulttest.Options{Name: fmt.Sprintf("mem:vault-%d", m.vaults), Clock: m.clock})
	k := kek.New(v, v.CreateKey("key").Versionless())
	require.NoError(m.rt, m.s.ChangeKEK(m.ctx, k))
	require.NoError(m.rt, m.s.RewrapDEKs(m.ctx, nil))
	m.onlyNeeds(m.s.State().KEK)
	m.vault.Delete(m.kek.ID().Name)
	m.vault.Purge(m.kek.ID().Name)
	m.vault, m.kek = v, k
}

// onlyNeeds checks that nothing of the store or its copies needs another KEK.
func (m *model) onlyNeeds(id vault.KeyID) {
	uses, err := m.s.KeyUsage(m.ctx)
	require.NoError(m.rt, err)
	for _, u := range uses {
		require.Equal(m.rt, u.Key == id, u.Needed(), "%+v", u)
	}
}

func (m *model) Checkpoint(*rapid.T) {
	m.copies++
	dir := fmt.Sprintf("copy-%d", m.copies)
	require.NoError(m.rt, m.s.Checkpoint(m.ctx, dir))
	m.checkCopy(dir)
}

func (m *model) checkCopy(dir string) {
	o := m.opts
	c, err := block.Open(m.ctx, dir, m.kek, &o)
	require.NoError(m.rt, err)
	require.Equal(m.rt, keyring.Inaccessible, c.State().Status)
	require.NoError(m.rt, c.Revalidate(m.ctx))
	m.same(c)
	require.NoError(m.rt, c.Close())
}

func (m *model) RevokeAndRestore(*rapid.T) {
	op := rapid.SampledFrom([]vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}).Draw(m.rt, "permission")
	m.vault.Revoke(op)
	require.ErrorIs(m.rt, m.s.Revalidate(m.ctx), vault.ErrAccessDenied)
	require.ErrorIs(m.rt, m.s.Put(m.ctx, m.id(), nil), block.ErrInaccessible)
	_, err := m.s.Get(m.ctx, m.id(), nil)
	require.ErrorIs(m.rt, err, block.ErrInaccessible)
	m.vault.Restore(op)
	require.NoError(m.rt, m.s.Revalidate(m.ctx))
}

// Crash loses what was not synced, some of it or all, and reopens.
func (m *model) Crash(*rapid.T) {
	seed := rapid.Uint64().Draw(m.rt, "seed")
	percent := rapid.IntRange(0, 100).Draw(m.rt, "unsynced data kept")
	old := m.s
	m.fs = m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 1))})
	old.Close() // of a file system that nobody sees any more
	m.opts.FS = m.fs
	m.reopen()
}

func (m *model) Reopen(*rapid.T) {
	require.NoError(m.rt, m.s.Close())
	m.reopen()
}

// Check is run after every step.
func (m *model) Check(*rapid.T) {
	m.same(m.s)
	rep, err := m.s.Verify(m.ctx, nil)
	require.NoError(m.rt, err)
	require.EqualValues(m.rt, len(m.want), rep.Blocks)
}

func (m *model) same(s *block.Store) {
	got := map[string][]byte{}
	for b, err := range s.Blocks(m.ctx, block.Range{}) {
		require.NoError(m.rt, err)
		got[string(b.ID)] = append([]byte{}, b.Data...)
	}
	require.Len(m.rt, got, len(m.want))
	for id, data := range m.want {
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
	checks(t, 10)
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt)
		defer func() { m.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"": m.Check, "put": m.Put, "put again": m.Put, "delete": m.Delete, "batch": m.Batch, "rekey": m.Rekey,
			"rotate epoch": m.RotateEpoch, "erase": m.Erase, "rotate KEK": m.RotateKEK, "change KEK": m.ChangeKEK,
			"checkpoint": m.Checkpoint, "revoke": m.RevokeAndRestore, "crash": m.Crash, "reopen": m.Reopen,
		})
	})
}
