package sealfs

import (
	"bytes"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The DEKs of open files are overwritten within a second of a lock, and when a file is closed; they are
// opened again when they are needed.
func TestKeysAreForgotten(t *testing.T) {
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("operator")
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, id.Versionless()), &keyring.Options{Clock: clock})
	require.NoError(t, err)
	defer r.Close()
	fs, err := New(vfs.NewMem(), r, nil)
	require.NoError(t, err)
	f, err := fs.Create("000001.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	p, err := fs.OpenFile("pages", nil)
	require.NoError(t, err)
	_, err = p.WriteAt([]byte("content"), 0)
	require.NoError(t, err)
	require.Len(t, fs.keys, 2)
	keys := func() (n int) {
		for _, k := range fs.keys {
			k.mu.RLock()
			if k.session != 0 {
				require.False(t, zero(k.raw[:]))
				n++
			} else {
				require.True(t, zero(k.raw[:]))
				require.Equal(t, dek.AEAD{}, withoutModule(k.aead))
				require.Empty(t, k.runs)
			}
			k.mu.RUnlock()
		}
		return n
	}
	require.Equal(t, 2, keys())
	clock.Advance(5 * time.Second)
	require.Equal(t, 2, keys(), "forgotten while there is access")
	v.SetEnabled(id, false)
	require.Error(t, r.Revalidate(t.Context()))
	clock.Advance(forgetEvery)
	require.Zero(t, keys())
	v.SetEnabled(id, true)
	require.NoError(t, r.Revalidate(t.Context()))
	_, err = f.Write([]byte("more"))
	require.NoError(t, err)
	require.Equal(t, 1, keys())

	// A key of the stretch of access before is not used in the next, nor kept.
	_, err = p.ReadAt(make([]byte, 7), 0)
	require.NoError(t, err)
	was := fs.keys[p.shared.key.id].session
	v.SetEnabled(id, false)
	require.Error(t, r.Revalidate(t.Context()))
	v.SetEnabled(id, true)
	require.NoError(t, r.Revalidate(t.Context()))
	got := make([]byte, 7)
	_, err = p.ReadAt(got, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal([]byte("content"), got))
	require.NotEqual(t, was, fs.keys[p.shared.key.id].session)

	require.NoError(t, f.Close())
	k := fs.keys[p.shared.key.id]
	require.NoError(t, p.Close())
	require.Empty(t, fs.keys)
	require.Empty(t, fs.logs.places)
	require.Empty(t, fs.logs.byPlace)
	require.Empty(t, fs.pages.places)
	require.Empty(t, fs.pages.byPlace)
	require.True(t, zero(k.raw[:]))
	clock.Advance(5 * time.Second)
	require.False(t, fs.ticking)
}

// stuckFS is a file system whose Create stands still.
type stuckFS struct {
	vfs.FS
	at, goOn chan struct{}
}

func (s *stuckFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	close(s.at)
	<-s.goOn
	return s.FS.Create(name, c)
}

// A lock waits for no disk: while one stands still in the making of a file, access ends, and the new key
// is overwritten as those of open files are.
func TestLocksWaitForNoDisk(t *testing.T) {
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("operator")
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, id.Versionless()), &keyring.Options{Clock: clock})
	require.NoError(t, err)
	defer r.Close()
	s := &stuckFS{FS: vfs.NewMem(), at: make(chan struct{}), goOn: make(chan struct{})}
	fs, err := New(s, r, nil)
	require.NoError(t, err)
	var f vfs.File
	created := make(chan error, 1)
	go func() {
		var err error
		f, err = fs.Create("000001.log", vfs.WriteCategoryUnspecified)
		created <- err
	}()
	<-s.at
	v.SetEnabled(id, false)
	require.Error(t, r.Revalidate(t.Context())) // when the lock is done
	require.Equal(t, keyring.Inaccessible, r.State().Status)
	clock.Advance(forgetEvery)
	fs.mu.Lock()
	require.Len(t, fs.keys, 1)
	for _, k := range fs.keys {
		require.Zero(t, k.session)
		require.True(t, zero(k.raw[:]))
	}
	fs.mu.Unlock()
	v.SetEnabled(id, true)
	require.NoError(t, r.Revalidate(t.Context()))
	close(s.goOn)
	require.NoError(t, <-created)
	_, err = f.Write([]byte("content"))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Empty(t, fs.keys)
	require.Empty(t, fs.makings)
}

// While a name is being changed, the listing of the directories proves nothing, however often it is done.
func TestRotationBesideARenameThatLasts(t *testing.T) {
	v := vaulttest.New(nil)
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, v.CreateKey("operator").Versionless()), nil)
	require.NoError(t, err)
	defer r.Close()
	fs, err := New(vfs.NewMem(), r, nil)
	require.NoError(t, err)
	over := during(&fs.moves)
	dropped, err := fs.RotateEpoch(t.Context(), "")
	require.ErrorContains(t, err, "each time that the directories were listed")
	require.Empty(t, dropped)
	over()
	dropped, err = fs.RotateEpoch(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 2}, dropped)
}

// When the keyring was closed, nothing of an FS goes on, whatever files are still open.
func TestNothingGoesOnAfterClose(t *testing.T) {
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	r, err := keyring.Create(t.Context(), new(keyring.MemStorage), kek.New(v, v.CreateKey("operator").Versionless()), &keyring.Options{Clock: clock})
	require.NoError(t, err)
	fs, err := New(vfs.NewMem(), r, nil)
	require.NoError(t, err)
	_, err = fs.Create("000001.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	clock.Advance(5 * time.Second)
	require.True(t, fs.ticking)
	require.NoError(t, r.Close())
	clock.Advance(forgetEvery)
	require.False(t, fs.ticking)
	for _, k := range fs.keys {
		require.Zero(t, k.session)
		require.True(t, zero(k.raw[:]))
	}
}

// withoutModule is an AEAD as if it were one that was destroyed before it was anything.
func withoutModule(a dek.AEAD) dek.AEAD {
	if b, err := dek.NewAEAD(make([]byte, dek.Size)); err == nil {
		b.Destroy()
		if a == b {
			return dek.AEAD{}
		}
	}
	return a
}
