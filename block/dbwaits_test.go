package block_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// held is an anchor, a reader and a writer that answer when they are let go.
type held struct {
	entered chan struct{} // has something when somebody is waiting
	letGo   chan struct{}
}

func newHeld() *held { return &held{make(chan struct{}, 1), make(chan struct{})} }

func (h *held) wait() {
	select {
	case h.entered <- struct{}{}:
	default:
	}
	<-h.letGo
}

func (h *held) Load(context.Context) (keyring.Point, error) { return keyring.Point{}, nil }

func (h *held) Advance(_ context.Context, p keyring.Point) error {
	if p.Generation > 1 { // it was made before
		h.wait()
	}
	return nil
}

func (h *held) Write(p []byte) (int, error) { h.wait(); return len(p), nil }

func (h *held) Read([]byte) (int, error) { h.wait(); return 0, io.EOF }

// async runs f, and returns a function that reports whether it is over, and one that waits for its error.
func async(f func() error) (over func() bool, wait func() error) {
	done, err := make(chan struct{}), error(nil)
	go func() { defer close(done); err = f() }()
	over = func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	return over, func() error { <-done; return err }
}

// What keeps one store waiting for its customer keeps nobody else: not a Checkpoint, nor who opens or
// makes another store while there is one.
func TestOneStoreThatWaitsHoldsUpNobody(t *testing.T) {
	// others opens a store that was closed, and makes one.
	others := func(t *testing.T, g *dbRig) {
		t.Helper()
		over, wait := async(func() error {
			s, release, err := g.db.Acquire(g.ctx, "closed")
			if err != nil {
				return err
			}
			defer release()
			if _, err := s.Get(g.ctx, []byte("id"), nil); err != nil {
				return err
			}
			_, err = g.db.Create(g.ctx, "new", g.kek("new"), &g.store)
			return err
		})
		eventually(t, over, "others go on")
		require.NoError(t, wait())
	}
	begin := func(t *testing.T, opts *block.Options) (*dbRig, *block.Store) {
		g := newDBRig(t)
		g.kek("a")
		c := g.create("closed")
		require.NoError(t, c.Put(g.ctx, []byte("id"), []byte("1")))
		require.NoError(t, c.Close())
		o := g.store
		if opts != nil {
			o.Keyring.Anchor = opts.Keyring.Anchor
		}
		a, err := g.db.Create(g.ctx, "a", g.kek("a"), &o)
		require.NoError(t, err)
		require.NoError(t, a.Put(g.ctx, []byte("id"), []byte("of a")))
		return g, a
	}
	requireCopied := func(t *testing.T, g *dbRig, a *block.Store) {
		t.Helper()
		copies, err := a.Copies(g.ctx)
		require.NoError(t, err)
		require.Len(t, copies, 1)
		require.Empty(t, copies[0].Doubt)
	}
	t.Run("a KEK change that its vault does not answer", func(t *testing.T) {
		g, a := begin(t, nil)
		remove := g.vault.Inject(vaulttest.Fault{Key: "customer-0", Hang: true})
		g.vault.Rotate("customer-0")
		_, changed := async(func() error { return a.RotateKEK(g.ctx) })
		eventually(t, func() bool { return g.vault.Waiting() > 0 }, "it waits for the vault")
		over, wait := async(func() error { return g.db.Checkpoint(g.ctx, "copy") })
		eventually(t, over, "the checkpoint does not wait for it")
		require.NoError(t, wait())
		others(t, g)
		requireCopied(t, g, a)
		remove()
		require.NoError(t, changed())
	})
	t.Run("an anchor that does not answer", func(t *testing.T) {
		anchor := newHeld()
		o := block.Options{}
		o.Keyring.Anchor = anchor
		g, a := begin(t, &o)
		_, copied := async(func() error { return g.db.Checkpoint(g.ctx, "copy") })
		<-anchor.entered
		others(t, g)
		eventually(t, func() bool { c, err := a.Copies(g.ctx); return err == nil && len(c) == 1 }, "the copy is made")
		close(anchor.letGo)
		require.NoError(t, copied())
		requireCopied(t, g, a)
	})
	t.Run("a store that is being closed", func(t *testing.T) {
		g, a := begin(t, nil)
		w := newHeld()
		_, exported := async(func() error { _, err := g.db.Export(g.ctx, "a", w); return err })
		<-w.entered
		_, closed := async(a.Close)
		// Its Close waits for the Export.
		eventually(t, func() bool { return a.Closing() }, "it is being closed")
		copied, wait := async(func() error { return g.db.Checkpoint(g.ctx, "copy") })
		eventually(t, g.db.HasCopied, "the checkpoint has begun")
		others(t, g)
		require.False(t, copied())
		close(w.letGo)
		require.NoError(t, exported())
		require.NoError(t, closed())
		require.NoError(t, wait())
		o := g.opts
		db, err := block.OpenDB(g.ctx, "copy", &o)
		require.NoError(t, err)
		defer db.Close()
		s, release, err := db.Acquire(g.ctx, "a")
		require.NoError(t, err)
		defer release()
		require.NoError(t, s.Revalidate(g.ctx))
		requireData(t, s, "id", "of a")
	})
}

// Close ends an import whose stream does not end, and an export whose stream takes nothing, and says so to
// whoever waits for them.
func TestCloseEndsWhatWaitsForAStream(t *testing.T) {
	for name, f := range map[string]func(ctx context.Context, db *block.DB, h *held) error{
		"import": func(ctx context.Context, db *block.DB, h *held) error { _, err := db.Import(ctx, h); return err },
		"export": func(ctx context.Context, db *block.DB, h *held) error { _, err := db.Export(ctx, "a", h); return err },
	} {
		for _, end := range []string{"close", "ctx"} {
			t.Run(name+" ended by "+end, func(t *testing.T) {
				g := newDBRig(t)
				require.NoError(t, g.create("a").Put(g.ctx, []byte("id"), []byte("1")))
				g.reopen() // it is closed, so that it is the DB alone that waits
				h := newHeld()
				defer close(h.letGo)
				ctx, cancel := context.WithCancel(g.ctx)
				defer cancel()
				over, wait := async(func() error { return f(ctx, g.db, h) })
				<-h.entered
				want := context.Canceled
				if end == "close" {
					want = block.ErrClosed
					closed, err := async(g.db.Close)
					eventually(t, closed, "Close does not wait for the stream")
					require.NoError(t, err())
				} else {
					cancel()
				}
				eventually(t, over, "it ends")
				require.ErrorIs(t, wait(), want)
			})
		}
	}
}

// Whoever goes through the stores, or the receipts, may close the DB: the walk ends.
func TestCloseInsideAWalk(t *testing.T) {
	for name, walk := range map[string]func(g *dbRig, visit func(error) bool){
		"stores": func(g *dbRig, visit func(error) bool) {
			for _, err := range g.db.Stores(g.ctx) {
				if !visit(err) {
					return
				}
			}
		},
		"receipts": func(g *dbRig, visit func(error) bool) {
			for _, err := range g.db.Dropped(g.ctx) {
				if !visit(err) {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newDBRig(t)
			for _, s := range []string{"a", "b", "c", "d"} {
				g.create(s)
			}
			for _, s := range []string{"c", "d"} {
				_, err := g.db.Drop(g.ctx, s)
				require.NoError(t, err)
			}
			var seen []error
			closed := false
			over, wait := async(func() error {
				var closing error
				walk(g, func(err error) bool {
					seen = append(seen, err)
					if !closed {
						closed, closing = true, g.db.Close()
					}
					return true
				})
				return closing
			})
			eventually(t, over, "Close does not wait for the walk")
			require.NoError(t, wait())
			require.NoError(t, seen[0])
			if name == "stores" { // each of which is looked at when its turn comes
				require.Len(t, seen, 2)
				require.ErrorIs(t, seen[1], block.ErrClosed)
			}
		})
	}
}
