package block_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// newFilesRig returns a rig whose DB has sealed files.
func newFilesRig(t *testing.T) (g *filesRig) {
	g = &filesRig{dbRig: newDBRig(t)}
	require.NoError(t, g.db.Close())
	g.operator = vaulttest.New(&vaulttest.Options{Name: "operator", Clock: g.clock})
	files := kek.New(g.operator, g.operator.CreateKey("files").Versionless())
	g.opts.Pebble.FS = vfs.NewCrashableMem()
	g.opts.FileKEK = files
	g.opts.FileKeyring = keyring.Options{Clock: g.clock}
	g.openDB()
	return g
}

// filesRig is a dbRig with the KEK of the files in a vault of its own.
type filesRig struct {
	*dbRig
	operator *vaulttest.Vault
}

// enable gives the KEK of the files, or takes it away, and has the vault asked.
func (g *filesRig) enable(enabled bool) {
	g.t.Helper()
	g.operator.SetEnabled(g.opts.FileKEK.ID(), enabled)
	err := g.db.RevalidateFileKEK(g.ctx)
	if enabled {
		require.NoError(g.t, err)
		g.eventually(func() bool { return g.db.FileKEK().Open })
		return
	}
	require.ErrorIs(g.t, err, vault.ErrKeyDisabled)
	g.eventually(func() bool { return !g.db.FileKEK().Open })
}

func (g *filesRig) eventually(is func() bool) {
	g.t.Helper()
	require.Eventually(g.t, is, 2*time.Minute, time.Millisecond)
}

func put(t *testing.T, s *block.Store, id, data string) {
	t.Helper()
	require.NoError(t, s.Put(t.Context(), []byte(id), []byte(data)))
}

func holds(t *testing.T, s *block.Store, id, data string) {
	t.Helper()
	got, err := s.Get(t.Context(), []byte(id), nil)
	require.NoError(t, err)
	require.Equal(t, data, string(got))
}

// isFileKEK requires an error of a store that is inaccessible because of the KEK of the files.
func isFileKEK(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.ErrorIs(t, err, block.ErrFileKEK)
	require.ErrorContains(t, err, "DBOptions.FileKEK")
}

func TestFileKEKRevokedAndGivenBack(t *testing.T) {
	g := newFilesRig(t)
	s := g.create("a")
	put(t, s, "one", "first")
	put(t, s, "three", "third")
	holds(t, s, "one", "first")
	holds(t, s, "one", "first") // now it is in the row cache
	for range 3 {
		snap := s.Snapshot()
		_, err := snap.Get(g.ctx, []byte("one"), nil)
		require.NoError(t, err)
		next, stop := iter.Pull2(s.Blocks(g.ctx, block.Range{}))
		_, err, _ = next()
		require.NoError(t, err)
		batch := s.NewBatch()
		require.NoError(t, batch.Put(g.ctx, []byte("two"), []byte("second")))

		g.enable(false)
		_, err = s.Get(g.ctx, []byte("one"), nil)
		isFileKEK(t, err)
		require.ErrorIs(t, err, vault.ErrKeyDisabled, "the vault's reason")
		_, err = s.Has(g.ctx, []byte("one"))
		isFileKEK(t, err)
		isFileKEK(t, s.Put(g.ctx, []byte("one"), nil))
		isFileKEK(t, s.Delete(g.ctx, []byte("one")))
		isFileKEK(t, s.RotateEpoch(g.ctx, nil))
		for _, err = range s.Blocks(g.ctx, block.Range{}) {
			isFileKEK(t, err)
		}
		require.Error(t, err)
		_, err = g.db.Create(g.ctx, "b", g.kek("b"), &g.store)
		isFileKEK(t, err)
		_, err = g.db.Open(g.ctx, "other", g.kek("b"), &g.store)
		isFileKEK(t, err)
		isFileKEK(t, g.db.Checkpoint(g.ctx, "copy"))
		_, err = g.db.RotateFileEpoch(g.ctx)
		isFileKEK(t, err)
		require.Equal(t, keyring.Inaccessible, s.State().Status)
		isFileKEK(t, s.State().Cause)
		st, err := g.db.Stats(g.ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"files_closed "}, troubles(t, st))
		require.Equal(t, 1, st.States["inaccessible"])
		require.False(t, st.Files.Open)
		require.Equal(t, keyring.Inaccessible, st.Files.State.Status)

		g.enable(true)
		require.Equal(t, keyring.Available, s.State().Status)
		holds(t, s, "one", "first")
		put(t, s, "one", "first")
		_, err = snap.Get(g.ctx, []byte("one"), nil)
		require.ErrorIs(t, err, block.ErrViewEnded, "the snapshot was of the engine before")
		isFileKEK(t, err)
		require.NoError(t, snap.Close())
		_, err, _ = next()
		isFileKEK(t, err)
		stop()
		isFileKEK(t, batch.Commit(g.ctx))
		_, err = s.Get(g.ctx, []byte("two"), nil)
		require.ErrorIs(t, err, block.ErrNotFound)
		st, err = g.db.Stats(g.ctx)
		require.NoError(t, err)
		require.Empty(t, st.Troubles)
	}
	rep, err := s.Verify(g.ctx, nil)
	require.NoError(t, err)
	require.Empty(t, rep.Damaged)
}

// TestFileKEKLeaseEnds has the vault of the files not answer, at which nothing ends before the lease; and
// answer again, after which the DB serves by itself. The stores' own leases go on meanwhile.
func TestFileKEKLeaseEnds(t *testing.T) {
	g := newFilesRig(t)
	s := g.create("a")
	put(t, s, "one", "first")
	g.operator.SetOutage(&vault.Error{Op: vault.OpUnwrapKey, Kind: vault.ErrUnavailable})
	minutes := func(n int) {
		for range n {
			g.clock.Advance(time.Minute)
			require.NoError(t, s.Revalidate(g.ctx))
		}
	}
	minutes(5)
	holds(t, s, "one", "first")
	minutes(6)
	isFileKEK(t, s.Put(g.ctx, []byte("two"), nil))
	require.ErrorIs(t, s.State().Cause, keyring.ErrLeaseEnded)
	g.eventually(func() bool { return !g.db.FileKEK().Open })
	minutes(15) // longer than a lease
	g.operator.SetOutage(nil)
	g.eventually(func() bool {
		g.clock.Advance(time.Second)
		return g.db.FileKEK().Open
	})
	holds(t, s, "one", "first")
	put(t, s, "two", "second")
}

func TestOpenDBWithoutAccessToFileKEK(t *testing.T) {
	g := newFilesRig(t)
	s := g.create("a")
	put(t, s, "one", "first")
	instance := s.Instance()
	require.NoError(t, g.db.Close())
	g.operator.SetEnabled(g.opts.FileKEK.ID(), false)

	required := g.opts
	required.FileKeyring.RequireAccess = true
	_, err := block.OpenDB(g.ctx, "db", &required)
	isFileKEK(t, err)

	g.openDB()
	require.False(t, g.db.FileKEK().Open)
	_, _, err = g.db.Acquire(g.ctx, "a")
	isFileKEK(t, err)
	st, err := g.db.Stats(g.ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"files_closed "}, troubles(t, st))
	g.reopen() // what was never open is closed

	g.enable(true)
	s, release, err := g.db.Acquire(g.ctx, "a")
	require.NoError(t, err)
	defer release()
	holds(t, s, "one", "first")
	require.Equal(t, instance, s.Instance())
}

// TestFileKEKDoesNotGoWithTheDirectory shows that the wrong choice is refused, that the error says which
// command makes it the right one, and that nothing was written.
func TestFileKEKDoesNotGoWithTheDirectory(t *testing.T) {
	g := newFilesRig(t)
	put(t, g.create("a"), "one", "first")
	require.NoError(t, g.db.Close())
	sealed, plain := g.opts, g.opts
	plain.FileKEK = nil
	plain.Pebble.FS = vfs.NewMem()
	db, err := block.OpenDB(g.ctx, "db", &plain)
	require.NoError(t, err)
	require.NoError(t, db.Close())

	refused := func(o block.DBOptions, want error, text string) {
		t.Helper()
		before := contents(t, o.Pebble.FS, "db")
		_, err := block.OpenDB(g.ctx, "db", &o)
		require.ErrorIs(t, err, block.ErrFileKEK)
		require.ErrorContains(t, err, text)
		if want != nil {
			require.ErrorIs(t, err, want)
		}
		require.Equal(t, before, contents(t, o.Pebble.FS, "db"))
	}
	o := sealed
	o.FileKEK = nil
	refused(o, nil, "files unseal")
	o = plain
	o.FileKEK = sealed.FileKEK
	refused(o, nil, "files seal")
	o = sealed
	o.FileKEK = g.kek("a")
	refused(o, keyring.ErrWrongKEK, "not by")

	_, err = block.Open(g.ctx, "db", g.kek("a"), &block.Options{Pebble: sealed.Pebble, Keyring: g.store.Keyring})
	require.ErrorIs(t, err, block.ErrFileKEK)
	_, err = block.InspectKeyring("db", &block.Options{Pebble: sealed.Pebble})
	require.ErrorIs(t, err, block.ErrFileKEK)

	require.NoError(t, sealed.Pebble.FS.Remove("db/BLOCKSEAL.keyring"))
	refused(sealed, nil, "BLOCKSEAL.keyring")
}

// contents returns the contents of a directory's files by their names.
func contents(t *testing.T, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	names, err := fs.List(dir)
	require.NoError(t, err)
	all := map[string]string{}
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin(dir, name))
		require.NoError(t, err)
		b, err := io.ReadAll(f)
		require.NoError(t, errors.Join(err, f.Close()))
		all[name] = string(b)
	}
	return all
}

// TestFileKEKRefusedAtCreation shows that without access no directory is made.
func TestFileKEKRefusedAtCreation(t *testing.T) {
	g := newFilesRig(t)
	g.operator.SetEnabled(g.opts.FileKEK.ID(), false)
	_, err := block.OpenDB(g.ctx, "new", &g.opts)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	require.ErrorIs(t, err, block.ErrFileKEK)
	_, err = g.opts.Pebble.FS.Stat("new")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestFileKEKRotations rotates and changes the key and the epoch of the files, beside a checkpoint, which
// opens with what it was made with, whatever its source does.
func TestFileKEKRotations(t *testing.T) {
	g := newFilesRig(t)
	s := g.create("a")
	for i := range 50 {
		put(t, s, fmt.Sprint(i), strings.Repeat("x", 4000)) // some of it in tables and blob files
	}
	require.NoError(t, g.db.Checkpoint(g.ctx, "copy"))
	first := g.opts.FileKEK
	for range 10 { // more than a head has room for
		dropped, err := g.db.RotateFileEpoch(g.ctx)
		require.NoError(t, err)
		require.NotEmpty(t, dropped)
		put(t, s, "one", "first")
	}
	before := g.db.FileKEK().State.KEK
	g.operator.Rotate("files")
	require.NoError(t, g.db.RotateFileKEK(g.ctx))
	require.NotEqual(t, before, g.db.FileKEK().State.KEK)
	other := kek.New(g.operator, g.operator.CreateKey("other").Versionless())
	require.NoError(t, g.db.ChangeFileKEK(g.ctx, other))
	require.NoError(t, g.db.Close())
	_, err := block.OpenDB(g.ctx, "db", &g.opts)
	require.ErrorIs(t, err, keyring.ErrWrongKEK)
	g.opts.FileKEK = other
	g.openDB()
	s, err = g.db.Open(g.ctx, "a", g.kek("a"), &g.store)
	require.NoError(t, err)
	holds(t, s, "one", "first")
	holds(t, s, "49", strings.Repeat("x", 4000))

	o := g.opts
	o.FileKEK = first
	copied, err := block.OpenDB(g.ctx, "copy", &o)
	require.NoError(t, err)
	c, err := copied.Open(g.ctx, "a", g.kek("a"), &g.store)
	require.NoError(t, err)
	require.NoError(t, c.Revalidate(g.ctx))
	holds(t, c, "49", strings.Repeat("x", 4000))
	_, err = c.Get(g.ctx, []byte("one"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	put(t, c, "one", "the copy's")
	_, err = copied.RotateFileEpoch(g.ctx)
	require.NoError(t, err)
	require.NoError(t, copied.Close())
	holds(t, s, "one", "first")
}

// TestReceiptsNameTheFileKEK erases and drops under a file KEK: receipts name the version that its
// document names then, as an earlier copy of the files takes that too.
func TestReceiptsNameTheFileKEK(t *testing.T) {
	g := newFilesRig(t)
	a := g.create("a")
	for _, name := range []string{"b", "c"} {
		require.NoError(t, g.create(name).Close())
	}
	named := func(r block.Receipt, name string) {
		t.Helper()
		b, err := g.opts.Pebble.FS.Open("db/BLOCKSEAL.keyring")
		require.NoError(t, err)
		document, err := io.ReadAll(b)
		require.NoError(t, errors.Join(err, b.Close()))
		in, err := keyring.Inspect(document)
		require.NoError(t, err)
		require.Equal(t, name, in.KEK.Name)
		require.Len(t, in.KEKs, 1)
		require.Equal(t, []vault.KeyID{in.KEK}, r.FileKEKs)
		text, err := json.Marshal(r)
		require.NoError(t, err)
		require.Contains(t, string(text), `"fileKEKs":["`+in.KEK.String()+`"],`)
		sum := sha256.Sum256([]byte(strings.Replace(string(text), r.Hash, "", 1)))
		require.Equal(t, hex.EncodeToString(sum[:]), r.Hash)
	}

	r, err := a.Erase(g.ctx, nil)
	require.NoError(t, err)
	named(r, "files")
	last, found, err := a.LastReceipt(g.ctx)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, r, last)

	first := r.FileKEKs
	g.operator.Rotate("files")
	require.NoError(t, g.db.RotateFileKEK(g.ctx))
	r, err = g.db.Drop(g.ctx, "b")
	require.NoError(t, err)
	named(r, "files")
	require.NotEqual(t, first, r.FileKEKs)
	require.Equal(t, []block.Receipt{r}, g.receipts())

	// A drop that was cut off, which the next OpenDB finishes.
	g.opts.FileKEK = kek.New(g.operator, g.operator.CreateKey("other").Versionless())
	require.NoError(t, g.db.ChangeFileKEK(g.ctx, g.opts.FileKEK))
	g.db.MarkDropping(t, "c", nil)
	g.reopen()
	all := g.receipts()
	require.Len(t, all, 2)
	require.Equal(t, "c", all[1].Name)
	named(all[1], "other")
}

func TestFileKEKCallsNeedOne(t *testing.T) {
	g := newDBRig(t)
	require.ErrorIs(t, g.db.RotateFileKEK(g.ctx), block.ErrFileKEK)
	require.ErrorIs(t, g.db.ChangeFileKEK(g.ctx, g.kek("a")), block.ErrFileKEK)
	require.ErrorIs(t, g.db.RevalidateFileKEK(g.ctx), block.ErrFileKEK)
	_, err := g.db.RotateFileEpoch(g.ctx)
	require.ErrorIs(t, err, block.ErrFileKEK)
	require.Zero(t, g.db.FileKEK())
	st, err := g.db.Stats(g.ctx)
	require.NoError(t, err)
	require.Nil(t, st.Files)
}
