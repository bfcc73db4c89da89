package block_test

import (
	"errors"
	"fmt"
	"maps"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// place is a key in a vault. All have one name, so that only the vault tells them apart.
type place struct{ vault *vaulttest.Vault }

const placeKey = "key"

func (p place) kek() *kek.KEK {
	return kek.New(p.vault, vault.KeyID{Vault: p.vault.Name(), Name: placeKey})
}

// newPlace makes a key in a vault of its own.
func (m *model) newPlace() int {
	v := vaulttest.New(&vaulttest.Options{Name: fmt.Sprintf("mem:vault-%d", len(m.places)), Clock: m.clock})
	m.places = append(m.places, place{v})
	m.versions[v.CreateKey(placeKey)] = true
	return len(m.places) - 1
}

func (m *model) placeOf(id vault.KeyID) int {
	for i, p := range m.places {
		if p.vault.Name() == id.Vault {
			return i
		}
	}
	m.rt.Fatalf("nobody knows the vault of %s", id)
	return 0
}

func (m *model) allKEKs() (all []*kek.KEK) {
	for _, p := range m.places {
		all = append(all, p.kek())
	}
	return all
}

// drawKEK returns the KEK of a place as one program or another gives it.
func (m *model) drawKEK(i int) *kek.KEK {
	if rapid.Bool().Draw(m.rt, "without its vault") {
		return kek.New(m.places[i].vault, vault.KeyID{Name: placeKey})
	}
	return m.places[i].kek()
}

// listed is an entry of the keyring's table of KEKs: one that comes back after it had
// left is another.
type listed struct{ key vault.KeyID }

// current is the entry of the KEK that wraps the store.
func (m *model) current() *listed {
	now := m.s.State().KEK
	if m.table[now] == nil {
		m.table[now] = &listed{now}
	}
	return m.table[now]
}

func (m *model) rotateKEK() error {
	m.versions[m.places[m.at].vault.Rotate(placeKey)] = true
	return m.s.RotateKEK(m.ctx)
}

// changeKEK moves to a key in a new vault, or back to one.
func (m *model) changeKEK() error {
	to := m.newPlace()
	if back := rapid.IntRange(0, to).Draw(m.rt, "to"); back < to {
		to = back
	}
	p := m.places[to]
	if rapid.Bool().Draw(m.rt, "a new version") || !m.exists(p) {
		m.versions[p.vault.Rotate(placeKey)] = true
	}
	m.at = to
	return m.s.ChangeKEK(m.ctx, m.drawKEK(to))
}

// exists reports whether any version of a place's key is left.
func (m *model) exists(p place) bool {
	for id := range m.versions {
		if id.Vault == p.vault.Name() {
			return true
		}
	}
	return false
}

func (m *model) RotateKEK(*rapid.T) { m.moved(m.rotateKEK()) }
func (m *model) ChangeKEK(*rapid.T) { m.moved(m.changeKEK()) }

// moved is what holds after the KEK was changed. DEKs may follow, or wait.
func (m *model) moved(err error) {
	require.NoError(m.rt, err)
	now := m.s.State().KEK
	copies, err := m.s.Copies(m.ctx)
	require.NoError(m.rt, err)
	require.Len(m.rt, copies, len(m.kept))
	for _, c := range copies {
		require.Equal(m.rt, now, c.KEK, "copies that can be reached follow")
	}
	if rapid.Bool().Draw(m.rt, "DEKs follow") {
		m.RewrapDEKs(nil)
	}
}

// RewrapDEKs has the store need one KEK version, and destroys what nothing needs.
func (m *model) RewrapDEKs(*rapid.T) {
	require.NoError(m.rt, m.s.RewrapDEKs(m.ctx, nil))
	now := m.s.State().KEK
	maps.DeleteFunc(m.table, func(id vault.KeyID, _ *listed) bool { return id != now })
	uses, err := m.s.KeyUsage(m.ctx)
	require.NoError(m.rt, err)
	needed := map[vault.KeyID]bool{}
	for _, u := range uses {
		require.Equal(m.rt, u.Key == now, u.Document, "%+v", u)
		require.True(m.rt, u.Key == now || u.Records == 0, "%+v", u)
		needed[u.Key] = u.Needed()
	}
	for id := range m.versions {
		if !needed[id] {
			m.places[m.placeOf(id)].vault.DestroyVersion(id)
			delete(m.versions, id)
		}
	}
}

// openBatch is a batch that waits to be committed, across whatever comes.
type openBatch struct {
	*block.Batch
	next map[string][]byte // nil: deleted
	keks []*listed         // that its records are wrapped by
}

// Batch begins a batch, or goes on with one.
func (m *model) Batch(*rapid.T) {
	var b *openBatch
	if i := rapid.IntRange(0, 2).Draw(m.rt, "batch"); i < len(m.batches) {
		b = m.batches[i]
	} else {
		b = &openBatch{Batch: m.s.NewBatch(), next: map[string][]byte{}}
		m.batches = append(m.batches, b)
	}
	for range rapid.IntRange(1, 8).Draw(m.rt, "changes") {
		id := m.id()
		if rapid.IntRange(0, 3).Draw(m.rt, "kind") == 0 {
			require.NoError(m.rt, b.Delete(m.ctx, id))
			b.next[string(id)] = nil
			continue
		}
		data := m.data()
		require.NoError(m.rt, b.Put(m.ctx, id, data))
		b.next[string(id)] = append([]byte{}, data...)
		b.keks = append(b.keks, m.current())
	}
}

// Commit commits a batch: it happens, unless a KEK that it needs has left the keyring.
func (m *model) Commit(*rapid.T) {
	if len(m.batches) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.batches)-1).Draw(m.rt, "batch")
	b := m.batches[i]
	m.batches = append(m.batches[:i:i], m.batches[i+1:]...)
	stale := false
	for _, k := range b.keks {
		stale = stale || m.opts.Keyring.Wrapping == keyring.ByKEK && m.table[k.key] != k
	}
	err := b.Commit(m.ctx)
	if m.byItself && err != nil || stale {
		require.ErrorIs(m.rt, err, block.ErrStale)
		return
	}
	require.NoError(m.rt, err)
	for id, data := range b.next {
		if data == nil {
			delete(m.want, id)
		} else {
			m.want[id] = data
		}
	}
}

func (m *model) dropBatches() {
	for _, b := range m.batches {
		require.NoError(m.rt, b.Close())
	}
	m.batches = nil
}

// keptCopy is a copy, and what was in the store when it was made.
type keptCopy struct {
	dir, instance string
	want          map[string][]byte
}

func (m *model) Checkpoint(*rapid.T) {
	m.copies++
	c := keptCopy{dir: fmt.Sprintf("copy-%d", m.copies), want: maps.Clone(m.want)}
	require.NoError(m.rt, m.s.Checkpoint(m.ctx, c.dir))
	var in block.Inspection
	m.free(func() (err error) { in, err = block.Inspect(m.ctx, c.dir, &m.opts); return err })
	c.instance = in.Instance
	m.checkCopy(c)
	if m.kept = append(m.kept, c); len(m.kept) > 2 {
		m.ForgetCopy(nil)
	}
}

// free does something with a copy as soon as the store, which moves its copies by itself,
// has it open no more.
func (m *model) free(f func() error) {
	var err error
	eventually(m.t, func() bool { err = f(); return !errors.Is(err, block.ErrLocked) }, "the store is done with the copy")
	require.NoError(m.rt, err)
}

// CheckCopy looks at a copy that was made a while ago: whatever became of the store
// and its KEKs, the copy has what it had, and what it needs exists.
func (m *model) CheckCopy(*rapid.T) {
	if len(m.kept) > 0 {
		m.kept = append(m.kept[1:len(m.kept):len(m.kept)], m.kept[0])
		m.checkCopy(m.kept[0])
	}
}

func (m *model) checkCopy(c keptCopy) {
	var in keyring.Info
	m.free(func() (err error) { in, err = block.InspectKeyring(c.dir, &m.opts); return err })
	o := m.opts
	o.ReadOnly = true // it stays a copy
	o.Keyring.OtherKEKs = m.allKEKs()
	k := m.drawKEK(m.placeOf(in.KEK))
	var s *block.Store
	m.free(func() (err error) { s, err = block.Open(m.ctx, c.dir, k, &o); return err })
	require.Equal(m.rt, keyring.Inaccessible, s.State().Status)
	require.NoError(m.rt, s.Revalidate(m.ctx))
	m.same(s, c.want)
	require.NoError(m.rt, s.Close())
}

// ForgetCopy gives the oldest copy up.
func (m *model) ForgetCopy(*rapid.T) {
	if len(m.kept) > 0 {
		require.NoError(m.rt, m.s.ForgetCopy(m.ctx, m.kept[0].instance))
		require.NoError(m.rt, m.disk.RemoveAll(m.kept[0].dir))
		m.kept = m.kept[1:]
	}
}
