package block_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// needed returns what is said of each KEK version that something needs.
func needed(uses []block.KeyUse) map[vault.KeyID]block.KeyUse {
	out := map[vault.KeyID]block.KeyUse{}
	for _, u := range uses {
		if u.Needed() {
			out[u.Key] = u
		}
	}
	return out
}

// opensCopy holds that the copy at dir opens and reads with the rig's vault as it is.
func opensCopy(g *rig, dir, want string) {
	g.t.Helper()
	r, err := block.Open(g.ctx, dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	defer r.Close()
	require.NoError(g.t, r.Revalidate(g.ctx))
	got, err := r.Get(g.ctx, []byte("a"), nil)
	require.NoError(g.t, err)
	require.Equal(g.t, want, string(got))
}

// A copy needs the KEK version that wraps its document and those that wrap its records,
// also when the store itself needs them no more, and all are listed until it was moved.
func TestCopyNeedsTheKEKsOfItsRecords(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	require.NoError(t, s.Close()) // what follows the KEK has ended
	s = g.open()
	require.NoError(t, s.Checkpoint(g.ctx, "copy")) // its document is wrapped by second, its record by the first
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))

	check := func(uses []block.KeyUse, err error) {
		t.Helper()
		require.NoError(t, err)
		by := needed(uses)
		require.Len(t, by, 2)
		for _, id := range []vault.KeyID{g.key, second} {
			require.Len(t, by[id].Copies, 1)
			require.Equal(t, "copy", by[id].Copies[0].Path)
			require.Equal(t, second, by[id].Copies[0].KEK)
			require.ElementsMatch(t, []vault.KeyID{g.key, second}, by[id].Copies[0].KEKs)
		}
		require.False(t, by[g.key].Document)
		require.Zero(t, by[g.key].Records)
		require.True(t, by[second].Document)
	}
	check(s.KeyUsage(g.ctx))
	require.NoError(t, s.Close())
	in, err := block.Inspect(g.ctx, g.dir, &g.opts)
	check(in.Keys, err)
	s = g.open()

	// The document need not move; what it needs beside does.
	require.NoError(t, s.RotateKEK(g.ctx))
	require.Equal(t, second, s.State().KEK)
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, needed(uses), 1)
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.True(t, copies[0].NeedsOnly(second))
	g.vault.DestroyVersion(g.key)
	opensCopy(g, "copy", "1")
}

// A move of a copy that is cut off leaves both versions written down.
func TestCopyThatWasNotMovedToTheEnd(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.Keyring.DEKCache = -1
	var failed atomic.Int32
	g.opts.Keyring.OnEvent = func(e keyring.Event) {
		if e.Kind == keyring.CopyKEKNotChanged {
			failed.Add(1)
		}
	}
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	second := g.vault.Rotate("customer")
	// The unwraps: the move of the store, the opening of the copy, its move, and then the
	// record's.
	remove := g.vault.Inject(failUnwrap(5))
	require.NoError(t, s.RotateKEK(g.ctx))
	eventually(t, func() bool { return failed.Load() > 0 }, "RotateKEK tries it")
	remove()
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Equal(t, second, copies[0].KEK, "its document was moved")
	require.ElementsMatch(t, []vault.KeyID{g.key, second}, copies[0].KEKs, "and its record was not")
	opensCopy(g, "copy", "1")
}

// soonFrom is what comes from c, which must not take for ever.
func soonFrom(t *testing.T, c <-chan error) (err error) {
	t.Helper()
	eventually(t, func() bool {
		select {
		case err = <-c:
			return true
		default:
			return false
		}
	}, "it does not end")
	return err
}

// A move of copies can take hours, where the vault wrapped their DEKs: it ends with its
// context, and with the store, for which Close does not wait.
func TestMovingCopiesEnds(t *testing.T) {
	for _, how := range []string{"cancel", "close"} {
		t.Run(how, func(t *testing.T) {
			g := newByKEKRig(t)
			g.opts.Keyring.DEKCache = -1
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
			require.NoError(t, s.Checkpoint(g.ctx, "copy"))
			next := g.vault.Rotate("customer")
			remove := g.vault.Inject(hangOnUnwrap(5))
			defer remove()
			ctx, cancel := context.WithCancel(g.ctx)
			defer cancel()
			first := make(chan error, 1)
			go func() { first <- s.RotateKEK(ctx) }()
			eventually(t, func() bool { return g.vault.Waiting() == 1 }, "the copy is being moved")
			uses, err := s.KeyUsage(g.ctx)
			require.NoError(t, err)
			for _, id := range []vault.KeyID{g.key, next} { // whatever has been moved when it is cut off
				require.Len(t, needed(uses)[id].Copies, 1)
			}

			// Another waits for its turn.
			before := s.State().Generation
			waiting, stop := context.WithCancel(g.ctx)
			second := make(chan error, 1)
			go func() { second <- s.RotateKEK(waiting) }()
			eventually(t, func() bool { return s.State().Generation > before }, "it has changed the KEK, and the copies are left")
			stop()
			require.ErrorIs(t, soonFrom(t, second), context.Canceled)
			if how == "cancel" {
				cancel()
				require.ErrorIs(t, soonFrom(t, first), context.Canceled)
				return
			}
			closed := make(chan error, 1)
			go func() { closed <- s.Close() }()
			require.ErrorIs(t, soonFrom(t, first), block.ErrClosed)
			require.NoError(t, soonFrom(t, closed))
		})
	}
}

// A copy is found again from another working directory.
func TestCheckpointAtARelativePath(t *testing.T) {
	g := newRig(t)
	base := t.TempDir()
	base, err := filepath.EvalSymlinks(base)
	require.NoError(t, err)
	g.dir, g.opts.Pebble.FS = filepath.Join(base, "store"), nil
	t.Chdir(base)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	t.Chdir(t.TempDir())
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(base, "copy"), copies[0].Path)
	require.Equal(t, second, copies[0].KEK, "it was moved along")
}

// A copy that is being revalidated answers, and is copied, meanwhile.
func TestRevalidateBesideOthers(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	c := *g
	c.dir = "copy"
	r := c.open()
	instance := r.Instance()
	begun, done := make(chan struct{}), make(chan error, 1)
	go func() {
		same := r.Instance() == instance
		close(begun)
		for range 1000 {
			same = same && r.Stats().Instance == instance
		}
		err := r.Checkpoint(g.ctx, "copy of the copy")
		if !same {
			err = errors.Join(err, errors.New("its instance is another one"))
		}
		done <- err
	}()
	<-begun
	require.NoError(t, r.Revalidate(g.ctx))
	require.NoError(t, <-done)
	in, err := block.Inspect(g.ctx, "copy of the copy", &g.opts)
	require.NoError(t, err)
	require.Equal(t, instance, in.CopyOf)
}

// endsAt runs f when it was asked the first time whether it has ended.
type endsAt struct {
	context.Context
	f func()
}

func (c *endsAt) Err() error {
	if f := c.f; f != nil {
		c.f = nil
		f()
	}
	return c.Context.Err()
}

// A version that comes to wrap the document during the walk is needed.
func TestKeyUsageDuringAChangeOfTheKEK(t *testing.T) {
	g := newRig(t)
	g.opts.NoSync = true
	s := g.open()
	b := s.NewBatch()
	for i := range 1100 { // a walk looks at its context each 1,024
		require.NoError(t, b.Put(g.ctx, []byte{byte(i >> 8), byte(i)}, nil))
	}
	require.NoError(t, b.Commit(g.ctx))
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	next := other.CreateKey("next")
	uses, err := s.KeyUsage(&endsAt{g.ctx, func() {
		require.NoError(t, s.ChangeKEK(g.ctx, kek.New(other, next.Versionless())))
	}})
	require.NoError(t, err)
	require.True(t, needed(uses)[next].Document)
	require.Equal(t, 1, needed(uses)[next].Epochs)
	require.True(t, needed(uses)[g.key].Document, "it was so when the walk began")
	uses, err = s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	require.Equal(t, keyring.Available, s.State().Status)
}
