package keyring_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// notch is an anchor in memory that can fail or hang, and that holds the keyring to never
// being advanced beyond what is in storage.
type notch struct {
	t       *testing.T
	storage *storage

	mu       sync.Mutex
	p        keyring.Point
	fail     error
	hang     chan struct{} // if not nil: a call waits until it is closed, whatever its context
	advanced int
	loads    int
}

func (n *notch) Load(context.Context) (keyring.Point, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loads++
	return n.p, n.fail
}

func (n *notch) Advance(ctx context.Context, to keyring.Point) error {
	n.mu.Lock()
	hang := n.hang
	n.mu.Unlock()
	if hang != nil {
		<-hang
	}
	document, err := keyring.Document(context.WithoutCancel(ctx), n.storage)
	if err != nil {
		return err
	}
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.advanced++
	if to.Generation > in.Generation {
		n.t.Errorf("advanced to generation %d while %d is in storage", to.Generation, in.Generation)
	}
	if n.fail != nil {
		return n.fail
	}
	n.p, err = n.p.Advanced(to)
	return err
}

func (n *notch) at() keyring.Point {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.p
}

func (n *notch) set(fail error, hang chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail, n.hang = fail, hang
}

func (g *rig) anchor() *notch {
	n := &notch{t: g.t, storage: g.storage}
	g.opts.Anchor = n
	return n
}

// The anchor follows every change of the document: when one that was asked for returns, and
// soon after one that came by the way.
func TestAnchorFollows(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		g.opts.EpochMaxDEKs = 128 // two at a time are reserved
		ctx, n := t.Context(), g.anchor()
		r := g.create()
		want := keyring.Point{Fingerprint: r.Fingerprint(), Generation: 1}
		require.Equal(t, want, n.at())
		follows := func() {
			t.Helper()
			want.Generation++
			require.Equal(t, want, n.at())
			require.Equal(t, want, r.State().Anchor)
			require.NoError(t, r.State().AnchorErr)
		}
		require.NoError(t, r.BeginEpoch(ctx))
		follows()
		require.NoError(t, r.RotateKEK(ctx))
		follows()
		_, err := r.For(inner.Block{}).DropEpochs(ctx, 2)
		require.NoError(t, err)
		follows()
		for range 3 { // the third DEK is beyond what was reserved
			_, _, err = r.NewDEK(ctx, nil)
			require.NoError(t, err)
		}
		synctest.Wait()
		follows()
		g.vault.Rotate("customer")
		g.clock.Advance(2 * time.Minute) // a check takes the version up
		synctest.Wait()
		follows()
		require.NoError(t, r.Advance(ctx, 7))
		want.Sequence = 7
		require.Equal(t, want, n.at())
		require.NoError(t, r.Advance(ctx, 6), "which says nothing new")
		require.Equal(t, want, n.at())
		require.NoError(t, r.Close())
		follows() // the exact count of DEKs was written down
		require.ErrorIs(t, r.Advance(ctx, 8), keyring.ErrClosed)

		r = g.open()
		require.Equal(t, want, r.Anchored())
		require.Equal(t, want, r.State().Anchor)
		before := n.advanced
		require.NoError(t, r.Close())
		require.Equal(t, before, n.advanced, "there was nothing to say")
	})
}

// What is older than the anchor, or another keyring, is refused, an older document before the
// vault is asked; and accepted when somebody has emptied the anchor.
func TestAnchorRefuses(t *testing.T) {
	g := newRig(t)
	ctx, n := t.Context(), g.anchor()
	r := g.create()
	older, err := keyring.Document(ctx, g.storage)
	require.NoError(t, err)
	require.NoError(t, r.BeginEpoch(ctx))
	newer, err := keyring.Document(ctx, g.storage)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	kept := n.at()

	refused := func(text string) {
		t.Helper()
		for _, readOnly := range []bool{false, true} {
			g.opts.ReadOnly = readOnly
			_, err := keyring.Open(ctx, g.storage, g.kek, &g.opts)
			require.ErrorIs(t, err, keyring.ErrUnexpected)
			require.ErrorContains(t, err, text)
		}
		g.opts.ReadOnly = false
		require.Equal(t, kept, n.at())
	}
	require.NoError(t, keyring.Replace(ctx, g.storage, older))
	before := g.vault.Calls()
	refused("the generation is 1, at least 3 was expected")
	refused("move the file of a FileAnchor away")
	require.Equal(t, before, g.vault.Calls(), "the vault was not asked")
	g.opts.For(inner.Block{}).AwaitRevalidate = true
	refused("the generation is 1")
	g.opts.For(inner.Block{}).AwaitRevalidate = false
	// One save before the last is older too.
	require.NoError(t, keyring.Replace(ctx, g.storage, newer))
	refused("the generation is 2, at least 3")

	other := newRig(t)
	other.vault, other.kek = g.vault, g.kek
	o := other.create()
	for range 4 {
		require.NoError(t, o.BeginEpoch(ctx))
	}
	require.NoError(t, o.Close())
	foreign, err := keyring.Document(ctx, other.storage)
	require.NoError(t, err)
	require.NoError(t, keyring.Replace(ctx, g.storage, foreign))
	refused("another store's keyring, or a forged one")

	*g.storage = storage{}
	_, err = keyring.Create(ctx, g.storage, g.kek, &g.opts)
	require.ErrorIs(t, err, keyring.ErrUnexpected)
	require.ErrorContains(t, err, "there is none")
	_, err = keyring.Document(ctx, g.storage)
	require.ErrorIs(t, err, keyring.ErrNoDocument)

	require.NoError(t, keyring.Replace(ctx, g.storage, older))
	n.p = keyring.Point{} // on purpose
	r = g.open()
	require.Equal(t, keyring.Point{Fingerprint: kept.Fingerprint, Generation: 1}, n.at())
	require.NoError(t, r.Close())
}

// An anchor that fails stops nothing and loses nothing: it is told once, it lags, and is
// advanced at the next check, or Close says that it was not.
func TestAnchorFails(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		ctx, n, e := t.Context(), g.anchor(), g.listen()
		kinds := []keyring.EventKind{keyring.AnchorNotAdvanced, keyring.AnchorAdvanced}
		r := g.create()
		full := errors.New("no space left on the anchor's device")
		n.set(full, nil)
		require.NoError(t, r.BeginEpoch(ctx))
		require.NoError(t, r.RotateKEK(ctx))
		err := r.Advance(ctx, 9)
		require.ErrorIs(t, err, full)
		require.ErrorContains(t, err, "not advanced to generation 3 and sequence 9, and lags behind")
		require.EqualValues(t, 1, n.at().Generation)
		told := e.take(kinds...)
		require.Len(t, told, 1)
		require.Equal(t, keyring.AnchorNotAdvanced, told[0].Kind)
		require.ErrorIs(t, told[0].Err, full)
		require.ErrorIs(t, r.State().AnchorErr, full)
		require.Equal(t, keyring.Available, r.State().Status)
		require.EqualValues(t, 3, r.State().Generation, "the document was saved, and memory knows")

		n.set(nil, nil)
		g.clock.Advance(2 * time.Minute)
		told = e.take(kinds...)
		require.Len(t, told, 1)
		require.Equal(t, keyring.AnchorAdvanced, told[0].Kind)
		want := keyring.Point{Fingerprint: r.Fingerprint(), Generation: 3, Sequence: 9}
		require.Equal(t, want, n.at())
		require.NoError(t, r.State().AnchorErr)

		require.NoError(t, r.BeginEpoch(ctx))
		n.set(full, nil)
		_, _, err = r.NewDEK(ctx, nil)
		require.NoError(t, err)
		require.ErrorIs(t, r.Close(), full)
		require.NoError(t, r.Close(), "once")

		_, err = keyring.Open(ctx, g.storage, g.kek, &g.opts)
		require.ErrorIs(t, err, full, "without its anchor nothing is opened")
		n.set(nil, nil)
		r = g.open()
		require.Equal(t, r.State().Generation, n.at().Generation, "it catches up at Open")
	})
}

// An anchor that does not come back holds up no lock and no use of keys; Close and what was
// asked for give up.
func TestAnchorHangs(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		n := g.anchor()
		g.opts.EpochMaxDEKs = 64
		r := g.create()
		back := make(chan struct{})
		n.set(nil, back)
		for range 3 { // each saves the document
			_, _, err := r.NewDEK(t.Context(), nil)
			require.NoError(t, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.BeginEpoch(ctx) }()
		synctest.Wait()
		cancel()
		require.NoError(t, <-done, "the change stands")
		go func() { done <- r.Advance(t.Context(), 1) }()
		synctest.Wait()
		g.clock.Advance(10 * time.Second)
		require.ErrorContains(t, <-done, "the anchor did not answer within 10s")

		g.vault.Revoke()
		require.Error(t, r.Revalidate(t.Context()))
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		go func() { done <- r.Close() }()
		synctest.Wait()
		g.clock.Advance(10 * time.Second)
		require.ErrorContains(t, <-done, "the anchor did not answer within 10s")
		require.Equal(t, 1, n.advanced, "by Create")
		close(back)
		synctest.Wait()
		require.Equal(t, 2, n.advanced, "one call was out")
	})
}

// A keyring that is read only checks its anchor and does not move it.
func TestAnchorOfAReadOnlyKeyring(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.create().Close())
	n := g.anchor()
	g.opts.ReadOnly = true
	r := g.open()
	require.ErrorIs(t, r.Advance(t.Context(), 1), keyring.ErrReadOnly)
	require.NoError(t, r.Close())
	require.Zero(t, n.advanced)
	require.Equal(t, 1, n.loads)
}

// Admit sees the document opened, before anything can be used, and keeps it shut; also
// when access comes back.
func TestAdmit(t *testing.T) {
	g := newRig(t)
	ctx := t.Context()
	r := g.create()
	h, err := r.Acquire()
	require.NoError(t, err)
	want, err := h.For(inner.Block{}).Tag("purpose", []byte("data"))
	h.Release()
	require.NoError(t, err)
	require.NoError(t, r.Close())

	var refuse error
	var tagged [inner.TagSize]byte
	g.opts.For(inner.Block{}).Admit = func(o inner.Opened) error {
		tagged = o.Tag("purpose", []byte("data"))
		require.Equal(t, r.State().Generation, o.Generation)
		return refuse
	}
	r = g.open()
	require.Equal(t, want, tagged)
	g.vault.Revoke()
	require.Error(t, r.Revalidate(ctx))
	g.vault.Restore()
	refuse = keyring.ErrUnexpected
	require.ErrorIs(t, r.Revalidate(ctx), refuse)
	_, err = r.Acquire()
	require.ErrorIs(t, err, keyring.ErrInaccessible)
	require.ErrorIs(t, err, refuse)
	require.NoError(t, r.Close())

	for _, refuse = range []error{keyring.ErrUnexpected, keyring.ErrCorrupt} {
		_, err = keyring.Open(ctx, g.storage, g.kek, &g.opts)
		require.ErrorIs(t, err, refuse)
	}
}

func TestPointAdvanced(t *testing.T) {
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for name, c := range map[string]struct {
		from, to, want keyring.Point
		refused        bool
	}{
		"from nothing":        {keyring.Point{}, keyring.Point{a, 1, 0}, keyring.Point{a, 1, 0}, false},
		"forward":             {keyring.Point{a, 1, 5}, keyring.Point{a, 2, 6}, keyring.Point{a, 2, 6}, false},
		"back":                {keyring.Point{a, 2, 6}, keyring.Point{a, 1, 5}, keyring.Point{a, 2, 6}, false},
		"each by itself":      {keyring.Point{a, 2, 5}, keyring.Point{a, 1, 6}, keyring.Point{a, 2, 6}, false},
		"any fingerprint":     {keyring.Point{"", 2, 5}, keyring.Point{a, 1, 6}, keyring.Point{a, 2, 6}, false},
		"another fingerprint": {keyring.Point{a, 1, 5}, keyring.Point{b, 2, 6}, keyring.Point{a, 1, 5}, true},
		"no fingerprint":      {keyring.Point{a, 1, 5}, keyring.Point{"", 2, 6}, keyring.Point{a, 1, 5}, true},
	} {
		got, err := c.from.Advanced(c.to)
		require.Equal(t, c.want, got, name)
		if c.refused {
			require.ErrorIs(t, err, keyring.ErrUnexpected, name)
		} else {
			require.NoError(t, err, name)
		}
	}
	require.Equal(t, "nothing", keyring.Point{}.String())
	require.Equal(t, "fingerprint any, generation 7, sequence 0", keyring.Point{Generation: 7}.String())
}
