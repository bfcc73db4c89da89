package keyring_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A document in a file is replaced whole, and what fails leaves the old one and no
// other file.
func TestFileStorage(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "keyring")
	s := keyring.FileStorage(path)
	_, _, err := s.Load(ctx)
	require.ErrorIs(t, err, keyring.ErrNoDocument)
	require.ErrorContains(t, err, path)
	// What a process left that was killed while it saved is in nobody's way.
	require.NoError(t, os.WriteFile(path+".new", []byte("half"), 0o600))
	var revision keyring.Revision
	for _, document := range []string{"one", "", "three"} {
		revision, err = s.Swap(ctx, revision, []byte(document))
		require.NoError(t, err)
		got, at, err := s.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, document, string(got))
		require.Equal(t, revision, at)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	_, err = keyring.FileStorage(filepath.Join(dir, "missing", "keyring")).Swap(ctx, "", nil)
	require.Error(t, err)
	inTheWay := filepath.Join(dir, "directory")
	require.NoError(t, os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700))
	_, err = keyring.FileStorage(inTheWay).Swap(ctx, "", []byte("x"))
	require.Error(t, err, "a directory is not replaced")
	_, _, err = keyring.FileStorage(inTheWay).Load(ctx)
	require.Error(t, err)
	require.NotErrorIs(t, err, keyring.ErrNoDocument)
	// Whose lock is another's is not replaced either.
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(path, link))
	_, err = keyring.FileStorage(link).Swap(ctx, revision, []byte("x"))
	require.ErrorContains(t, err, "is a link")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{"directory", "directory.lock", "keyring", "keyring.lock", "link", "link.lock"}, names, "no temporary file is left")

	t.Chdir(dir)
	_, err = keyring.FileStorage("relative").Swap(ctx, "", []byte("r"))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "relative"))
	require.NoError(t, err)
	require.Equal(t, "r", string(got))
}

// failing is a storage that fails.
type failing struct {
	keyring.MemStorage
	load, save error
}

func (f *failing) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	if f.load != nil {
		return nil, "", f.load
	}
	return f.MemStorage.Load(ctx)
}

func (f *failing) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if f.save != nil {
		return "", f.save
	}
	return f.MemStorage.Swap(ctx, was, document)
}

// Create writes nothing when it is not to, or cannot.
func TestCreateRefuses(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(g *rig, s *failing)
		want   error
	}{
		"read only":         {func(g *rig, _ *failing) { g.opts.ReadOnly = true }, keyring.ErrReadOnly},
		"expects another":   {func(g *rig, _ *failing) { g.opts.Anchor = keyring.Expect{Generation: 1} }, keyring.ErrUnexpected},
		"cannot load":       {func(_ *rig, s *failing) { s.load = broken }, broken},
		"cannot save":       {func(_ *rig, s *failing) { s.save = broken }, broken},
		"the vault refuses": {func(g *rig, _ *failing) { g.vault.Revoke(vault.OpWrapKey) }, vault.ErrAccessDenied},
		"the vault wraps wrong": {func(g *rig, _ *failing) {
			g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Plaintext: make([]byte, 32)})
		}, vault.ErrUnsupportedKey},
	} {
		t.Run(name, func(t *testing.T) {
			g, s := newRig(t), &failing{}
			c.change(g, s)
			r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
			require.ErrorIs(t, err, c.want)
			require.Nil(t, r)
			_, _, err = s.MemStorage.Load(t.Context())
			require.ErrorIs(t, err, keyring.ErrNoDocument)
		})
	}
	g := newRig(t)
	g.create()
	_, err := keyring.Create(t.Context(), g.storage, g.kek, &g.opts)
	require.ErrorIs(t, err, keyring.ErrExists)
	_, err = keyring.Open(t.Context(), &failing{load: broken}, g.kek, &g.opts)
	require.ErrorIs(t, err, broken)
}

// A DEK that is wrapped anew is proven before it takes the place of a good wrap.
func TestRewrapKEKProvesTheNewWrap(t *testing.T) {
	g := newRig(t)
	g.opts.Wrapping, g.opts.DEKCache = keyring.ByKEK, -1
	r := g.create()
	ctx := t.Context()
	key, record, err := r.NewDEK(ctx, []byte("context"))
	require.NoError(t, err)
	sealed := key.Seal(nil, []byte("block"), nil)
	g.vault.Rotate("customer")
	require.NoError(t, r.RotateKEK(ctx))
	rewrap := func() ([]byte, error) {
		h, err := r.Acquire()
		require.NoError(t, err)
		defer func() { h.Release() }()
		var b keyring.Binding
		b.Set([]byte("context"))
		return h.RewrapKEK(ctx, nil, record, &b, func(k *dek.Key) error {
			_, err := k.Open(nil, sealed, nil)
			return err
		})
	}
	for name, fault := range map[string]vaulttest.Fault{
		"the old wrap cannot be undone": {Op: vault.OpUnwrapKey, Nth: 1, Err: vault.ErrUnavailable},
		"the old wrap gives another":    {Op: vault.OpUnwrapKey, Nth: 1, Plaintext: make([]byte, 32)},
		"it cannot be wrapped":          {Op: vault.OpWrapKey, Err: vault.ErrUnavailable},
		"the new wrap cannot be undone": {Op: vault.OpUnwrapKey, Nth: 2, Err: vault.ErrUnavailable},
		"it comes back as another":      {Op: vault.OpUnwrapKey, Nth: 2, Plaintext: make([]byte, 32)},
		"it comes back short":           {Op: vault.OpUnwrapKey, Nth: 2, Plaintext: make([]byte, 31)},
	} {
		remove := g.vault.Inject(fault)
		got, err := rewrap()
		require.Error(t, err, name)
		require.Nil(t, got, name)
		remove()
		if r.State().Status != keyring.Available {
			require.NoError(t, r.Revalidate(ctx))
		}
	}
	got, err := rewrap()
	require.NoError(t, err)
	require.NotEqual(t, record, got)
	again, err := r.OpenDEK(ctx, got, []byte("context"))
	require.NoError(t, err)
	require.Equal(t, key.Bytes(), again.Bytes())
}

// A DEK that the vault answered in another's place is not the one that the record commits
// to: it is refused, and not kept.
func TestWrongDEKIsRefused(t *testing.T) {
	g := newRig(t)
	g.opts.Wrapping = keyring.ByKEK
	r := g.create()
	ctx := t.Context()
	key, record, err := r.NewDEK(ctx, []byte("context"))
	require.NoError(t, err)
	for _, n := range []int{1, 31, 32, 33, 64} {
		remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Plaintext: make([]byte, n)})
		wrong, err := r.OpenDEK(ctx, record, []byte("context"))
		require.Nil(t, wrong)
		require.ErrorIs(t, err, vault.ErrUnsupportedKey)
		require.ErrorContains(t, err, "the vault unwrapped ")
		require.Zero(t, r.Stats().DEKs)
		remove()
	}
	again, err := r.OpenDEK(ctx, record, []byte("context"))
	require.NoError(t, err)
	require.Equal(t, key.Bytes(), again.Bytes())
	require.Equal(t, 1, r.Stats().DEKs)
}

// What could not be saved has not happened: what a DropEpochs that failed was to destroy
// opens, also after the next change was saved and the keyring was opened anew.
func TestFailedSaveChangesNothing(t *testing.T) {
	g, s := newRig(t), &failing{}
	ctx, broken := t.Context(), errors.New("broken")
	r, err := keyring.Create(ctx, s, g.kek, &g.opts)
	require.NoError(t, err)
	key, record, err := r.NewDEK(ctx, []byte("id"))
	require.NoError(t, err)
	require.NoError(t, r.BeginEpoch(ctx))
	before := r.State()

	s.save = broken
	_, err = r.For(inner.Block{}).DropEpochs(ctx, 2)
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, r.BeginEpoch(ctx), broken)
	_, err = r.For(inner.Block{}).BeginWork(ctx)
	require.ErrorIs(t, err, broken)
	g.vault.Rotate("customer")
	require.ErrorIs(t, r.RotateKEK(ctx), broken)
	require.Equal(t, before, r.State())
	s.save = nil

	require.NoError(t, r.BeginEpoch(ctx))
	require.Equal(t, before.Generation+1, r.State().Generation)
	require.Equal(t, before.KEK, r.State().KEK)
	require.NoError(t, r.Close())
	r, err = keyring.Open(ctx, s, g.kek, &g.opts)
	require.NoError(t, err)
	defer r.Close()
	ids, err := r.Epochs()
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 2, 3}, ids)
	again, err := r.OpenDEK(ctx, record, []byte("id"))
	require.NoError(t, err)
	require.Equal(t, key.Bytes(), again.Bytes())
}

// A document that is one generation older than the least is refused, and the least is not.
func TestLeastGeneration(t *testing.T) {
	g := newRig(t)
	r := g.create()
	require.NoError(t, r.BeginEpoch(t.Context()))
	now := r.State().Generation
	document, err := keyring.Document(t.Context(), g.storage)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	for least, ok := range map[uint64]bool{now - 1: true, now: true, now + 1: false} {
		s := &keyring.MemStorage{}
		require.NoError(t, keyring.Replace(t.Context(), s, document))
		o := g.opts
		o.Anchor = keyring.Expect{Generation: least}
		r, err := keyring.Open(t.Context(), s, g.kek, &o)
		if ok {
			require.NoError(t, err)
			require.NoError(t, r.Close())
		} else {
			require.ErrorIs(t, err, keyring.ErrUnexpected)
		}
	}
}
