package anchortest

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
)

// memory is an anchor in memory: the place, of which each handle is the place itself.
type memory struct {
	mu sync.Mutex
	p  keyring.Point
}

func (m *memory) Load(ctx context.Context) (keyring.Point, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p, ctx.Err()
}

func (m *memory) Advance(ctx context.Context, to keyring.Point) (err error) {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p, err = m.p.Advanced(to)
	return err
}

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) func() keyring.Anchor {
		m := &memory{}
		return func() keyring.Anchor { return m }
	})
}

func TestFileAnchor(t *testing.T) {
	Run(t, func(t *testing.T) func() keyring.Anchor {
		path := filepath.Join(t.TempDir(), "anchor")
		return func() keyring.Anchor { return keyring.FileAnchor(path) }
	})
}

// Of what an anchor promises, one that does not move keeps what it can: it holds what it
// holds, refuses others, and heeds its context.
func TestExpect(t *testing.T) {
	ctx := t.Context()
	require.NoError(t, empty(ctx, func() keyring.Anchor { return keyring.Expect{} }))
	kept := at(5, 50)
	e := keyring.Expect(kept)
	require.NoError(t, holds(ctx, e, kept))
	for _, to := range []keyring.Point{at(6, 60), at(4, 40), at(5, 50)} {
		require.NoError(t, advance(ctx, e, to))
		require.NoError(t, holds(ctx, e, kept))
	}
	require.NoError(t, refused(ctx, e, keyring.Point{Fingerprint: theirs, Generation: 9}, kept))
	require.NoError(t, refused(ctx, e, keyring.Point{Generation: 9}, kept))
	require.NoError(t, advance(ctx, keyring.Expect{Generation: 5}, keyring.Point{Fingerprint: theirs, Generation: 9}))
	over, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, e.Advance(over, at(6, 60)), context.Canceled)
}

// broken is an anchor with one fault.
type broken struct {
	*memory
	load    func(b *broken, ctx context.Context) (keyring.Point, error)
	advance func(b *broken, ctx context.Context, to keyring.Point) error
	own     keyring.Point // of the handle
}

func (b *broken) Load(ctx context.Context) (keyring.Point, error) {
	if b.load != nil {
		return b.load(b, ctx)
	}
	return b.memory.Load(ctx)
}

func (b *broken) Advance(ctx context.Context, to keyring.Point) error {
	if b.advance != nil {
		return b.advance(b, ctx, to)
	}
	return b.memory.Advance(ctx, to)
}

// The suite finds each way to break a promise, and by the rule that it breaks.
func TestTheSuiteFinds(t *testing.T) {
	set := func(b *broken, p keyring.Point) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.p = p
		return nil
	}
	for name, c := range map[string]struct {
		broken broken
		finds  []string // exactly these rules
	}{
		"none": {},
		"an empty one is an error": {broken{load: func(b *broken, ctx context.Context) (keyring.Point, error) {
			p, err := b.memory.Load(ctx)
			if p == (keyring.Point{}) {
				err = errors.New("nothing is kept")
			}
			return p, err
		}}, []string{"an empty one holds nothing"}},
		"it keeps nothing": {broken{advance: func(_ *broken, ctx context.Context, _ keyring.Point) error { return ctx.Err() }},
			[]string{"it keeps what it was advanced to", "each number only grows", "another fingerprint is refused", "a point without a fingerprint is refused",
				"what is kept outlives its handle", "handles see each other's points", "advances at once lose nothing", "a context that ended changes nothing"}},
		"it cuts numbers off": {broken{advance: func(b *broken, ctx context.Context, to keyring.Point) error {
			to.Sequence &= 1<<63 - 1
			return b.memory.Advance(ctx, to)
		}}, []string{"it keeps what it was advanced to"}},
		"it goes back": {broken{advance: func(b *broken, ctx context.Context, to keyring.Point) error {
			b.mu.Lock()
			p := b.p
			b.mu.Unlock()
			if _, err := p.Advanced(to); err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			return set(b, to)
		}}, []string{"each number only grows", "handles see each other's points", "advances at once lose nothing"}},
		"a smaller number is an error": {broken{advance: func(b *broken, ctx context.Context, to keyring.Point) error {
			b.mu.Lock()
			p := b.p
			b.mu.Unlock()
			if to.Generation < p.Generation || to.Sequence < p.Sequence {
				return errors.New("older")
			}
			return b.memory.Advance(ctx, to)
		}}, []string{"each number only grows", "another fingerprint is refused", "handles see each other's points", "advances at once lose nothing"}},
		"it takes any fingerprint": {broken{advance: func(b *broken, ctx context.Context, to keyring.Point) error {
			if to.Fingerprint == "" || ctx.Err() != nil {
				return errors.New("refused")
			}
			b.mu.Lock()
			b.p.Fingerprint = ""
			b.mu.Unlock()
			return b.memory.Advance(ctx, to)
		}}, []string{"another fingerprint is refused"}},
		"it refuses without saying so": {broken{advance: func(b *broken, ctx context.Context, to keyring.Point) error {
			if err := b.memory.Advance(ctx, to); err != nil {
				return errors.New("refused")
			}
			return nil
		}}, []string{"another fingerprint is refused"}},
		"it takes a point without a fingerprint": {broken{advance: func(b *broken, ctx context.Context, to keyring.Point) error {
			if to.Fingerprint == "" {
				to.Fingerprint = mine
			}
			return b.memory.Advance(ctx, to)
		}}, []string{"a point without a fingerprint is refused"}},
		"it keeps it in the handle": {broken{
			load: func(b *broken, _ context.Context) (keyring.Point, error) {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.own, nil
			},
			advance: func(b *broken, ctx context.Context, to keyring.Point) (err error) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				b.own, err = b.own.Advanced(to)
				return err
			}}, []string{"each number only grows", "another fingerprint is refused", "a point without a fingerprint is refused", "what is kept outlives its handle",
			"handles see each other's points", "advances at once lose nothing", "a context that ended changes nothing"}},
		"its handles remember": {broken{load: func(b *broken, ctx context.Context) (keyring.Point, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.own == (keyring.Point{}) {
				b.own = b.p
			}
			return b.own, ctx.Err()
		}, advance: func(b *broken, ctx context.Context, to keyring.Point) error {
			err := b.memory.Advance(ctx, to)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.own = b.p
			return err
		}}, []string{"handles see each other's points"}},
		"a handle writes what it has seen itself, over what others wrote": {broken{advance: func(b *broken, ctx context.Context, to keyring.Point) (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.own.Fingerprint == "" {
				b.own.Fingerprint = b.p.Fingerprint
			}
			if b.own, err = b.own.Advanced(to); err == nil {
				b.p = b.own
			}
			return err
		}}, []string{"handles see each other's points", "advances at once lose nothing"}},
		"a context that ended is not looked at": {broken{advance: func(b *broken, _ context.Context, to keyring.Point) error {
			return b.memory.Advance(context.Background(), to)
		}}, []string{"a context that ended changes nothing"}},
	} {
		t.Run(name, func(t *testing.T) {
			var found []string
			for _, r := range rules() {
				m := &memory{}
				open := func() keyring.Anchor {
					b := c.broken
					b.memory = m
					return &b
				}
				if r.check(t.Context(), open) != nil {
					found = append(found, r.name)
				}
			}
			require.Equal(t, c.finds, found)
		})
	}
}
