package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

func TestMemory(t *testing.T) {
	Run(t, func(*testing.T) func() keyring.Storage {
		s := &keyring.MemStorage{}
		return func() keyring.Storage { return s }
	})
}

func TestFileStorage(t *testing.T) {
	Run(t, func(t *testing.T) func() keyring.Storage {
		path := filepath.Join(t.TempDir(), "keyring")
		return func() keyring.Storage { return keyring.FileStorage(path) }
	})
}

// tagging is a storage that keeps more than the document, and only that way.
type tagging struct{ keyring.Storage }

func (tagging) Swap(context.Context, keyring.Revision, []byte) (keyring.Revision, error) {
	return "", errors.New("without a tag nothing is saved")
}

func (s tagging) SwapTagged(ctx context.Context, was keyring.Revision, document []byte, is inner.Opened) (keyring.Revision, error) {
	if is.Tag("register", nil) == ([inner.TagSize]byte{}) || is.Generation == 0 {
		return "", errors.New("nothing is known of the document")
	}
	return s.Storage.Swap(ctx, was, document)
}

func TestTaggingStorage(t *testing.T) {
	Run(t, func(*testing.T) func() keyring.Storage {
		s := &keyring.MemStorage{}
		return func() keyring.Storage { return tagging{s} }
	})
}

// counter is a storage in memory whose revisions are numbers, as those of a column are. It is
// the place, of which each handle is the place itself.
type counter struct {
	mu       sync.Mutex
	document []byte
	n        int
}

func (c *counter) revision() keyring.Revision {
	if c.n == 0 {
		return ""
	}
	return keyring.Revision(fmt.Sprint(c.n))
}

func (c *counter) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		return nil, "", keyring.ErrNoDocument
	}
	return bytes.Clone(c.document), c.revision(), ctx.Err()
}

func (c *counter) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if was != c.revision() {
		return "", keyring.ErrConflict
	}
	c.document = bytes.Clone(document)
	c.n++
	return c.revision(), nil
}

// broken is a storage with one fault.
type broken struct {
	*counter
	load func(b *broken, ctx context.Context) ([]byte, keyring.Revision, error)
	swap func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error)
	seen []byte // of the handle
	at   keyring.Revision
}

func (b *broken) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	if b.load != nil {
		return b.load(b, ctx)
	}
	return b.counter.Load(ctx)
}

func (b *broken) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if b.swap != nil {
		return b.swap(b, ctx, was, document)
	}
	return b.counter.Swap(ctx, was, document)
}

// The suite finds each way to break a promise, and by a rule that it breaks.
func TestTheSuiteFinds(t *testing.T) {
	const (
		isEmpty = "an empty one holds no document"
		kept    = "it keeps what it was given"
		large   = "it keeps the largest document"
		twice   = "no revision is given twice"
		old     = "a revision that is gone is refused"
		unknown = "an empty one has the empty revision"
		outlive = "what is kept outlives its handle"
		others  = "handles see each other's documents"
		one     = "of swaps at once one is saved"
		lose    = "swaps at once lose nothing"
		over    = "a context that ended changes nothing"
		owner   = "a document is its owner's"
	)
	force := func(b *broken, document []byte) (keyring.Revision, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.document = bytes.Clone(document)
		b.n++
		return b.revision(), nil
	}
	for name, c := range map[string]struct {
		broken broken
		finds  []string // exactly these rules
		chance string   // a rule that finds it by chance
	}{
		"none": {},
		"an empty one returns no error": {broken{load: func(b *broken, ctx context.Context) ([]byte, keyring.Revision, error) {
			d, at, err := b.counter.Load(ctx)
			if errors.Is(err, keyring.ErrNoDocument) {
				err = nil
			}
			return d, at, err
		}}, []string{isEmpty, unknown}, ""},
		"an empty one does not say that it is": {broken{load: func(b *broken, ctx context.Context) ([]byte, keyring.Revision, error) {
			d, at, err := b.counter.Load(ctx)
			if err != nil {
				err = errors.New("it does not work")
			}
			return d, at, err
		}}, []string{isEmpty, unknown}, ""},
		"it looks at no revision": {broken{swap: func(b *broken, ctx context.Context, _ keyring.Revision, document []byte) (keyring.Revision, error) {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			return force(b, document)
		}}, []string{old, unknown, others, one, lose}, ""},
		"an empty one takes any revision": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			b.mu.Lock()
			if b.n == 0 {
				was = ""
			}
			b.mu.Unlock()
			return b.counter.Swap(ctx, was, document)
		}}, []string{unknown}, ""},
		"the empty revision replaces what is there": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			if was == "" && ctx.Err() == nil {
				return force(b, document)
			}
			return b.counter.Swap(ctx, was, document)
		}}, []string{old, others, one}, ""},
		"it saves what it refuses": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			now, err := b.counter.Swap(ctx, was, document)
			if errors.Is(err, keyring.ErrConflict) {
				force(b, document)
			}
			return now, err
		}}, []string{old, unknown, others, one}, lose},
		"it refuses without saying so": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			now, err := b.counter.Swap(ctx, was, document)
			if errors.Is(err, keyring.ErrConflict) {
				err = errors.New("another value is there")
			}
			return now, err
		}}, []string{old, unknown, others, one, lose}, ""},
		"it compares, and then it saves": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			b.mu.Lock()
			now := b.revision()
			b.mu.Unlock()
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			if now != was {
				return "", keyring.ErrConflict
			}
			for range 1000 {
				runtime.Gosched()
			}
			return force(b, document)
		}}, []string{one, lose}, ""},
		"all revisions are one": {broken{
			load: func(b *broken, ctx context.Context) ([]byte, keyring.Revision, error) {
				d, at, err := b.counter.Load(ctx)
				if at != "" {
					at = "1"
				}
				return d, at, err
			},
			swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
				b.mu.Lock()
				if now := b.revision(); was == "1" && now != "" {
					was = now
				}
				b.mu.Unlock()
				_, err := b.counter.Swap(ctx, was, document)
				return "1", err
			}}, []string{twice, old, others, one, lose}, ""},
		"it returns the revision of before": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			_, err := b.counter.Swap(ctx, was, document)
			return was, err
		}}, []string{kept, large, twice, old, unknown, outlive, others, one, lose, over, owner}, ""},
		"it returns no revision": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			_, err := b.counter.Swap(ctx, was, document)
			return "", err
		}}, []string{kept, large, twice, old, unknown, outlive, others, one, lose, over, owner}, ""},
		"it keeps nothing": {broken{swap: func(_ *broken, ctx context.Context, _ keyring.Revision, _ []byte) (keyring.Revision, error) {
			return "1", ctx.Err()
		}}, []string{kept, large, twice, old, unknown, outlive, others, one, lose, over, owner}, ""},
		"it cuts off what is long": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			return b.counter.Swap(ctx, was, document[:min(len(document), 1<<20)])
		}}, []string{large}, ""},
		"its handles remember": {broken{load: func(b *broken, ctx context.Context) ([]byte, keyring.Revision, error) {
			b.mu.Lock()
			seen, at := bytes.Clone(b.seen), b.at
			b.mu.Unlock()
			if at != "" {
				return seen, at, ctx.Err()
			}
			d, at, err := b.counter.Load(ctx)
			b.mu.Lock()
			b.seen, b.at = bytes.Clone(d), at
			b.mu.Unlock()
			return d, at, err
		}, swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			now, err := b.counter.Swap(ctx, was, document)
			b.mu.Lock()
			b.seen, b.at = nil, ""
			b.mu.Unlock()
			return now, err
		}}, []string{others}, ""},
		"a context that ended is not looked at": {broken{swap: func(b *broken, _ context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			return b.counter.Swap(context.Background(), was, document)
		}}, []string{over}, ""},
		"a context that ended is somebody who was first": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			now, err := b.counter.Swap(ctx, was, document)
			if ctx.Err() != nil {
				err = keyring.ErrConflict
			}
			return now, err
		}}, []string{over}, ""},
		"it keeps the caller's bytes": {broken{swap: func(b *broken, ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
			now, err := b.counter.Swap(ctx, was, document)
			if err == nil {
				b.mu.Lock()
				if b.revision() == now { // or else it would lose what another one has swapped meanwhile, too
					b.document = document
				}
				b.mu.Unlock()
			}
			return now, err
		}}, []string{owner}, ""},
		"it gives its own bytes away": {broken{load: func(b *broken, ctx context.Context) ([]byte, keyring.Revision, error) {
			_, at, err := b.counter.Load(ctx)
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.document, at, err
		}}, []string{owner}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := makeDocuments(t.Context())
			require.NoError(t, err)
			var found []string
			for _, r := range rules() {
				m := &counter{}
				open := func() keyring.Storage {
					b := c.broken
					b.counter = m
					return &b
				}
				if r.check(t.Context(), d, open) != nil && r.name != c.chance {
					found = append(found, r.name)
				}
			}
			require.Equal(t, c.finds, found)
		})
	}
}
