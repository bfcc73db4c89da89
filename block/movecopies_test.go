package block_test

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// Two copies of one store that were exchanged on the disk, or one that stands where the other
// was: at neither path is the copy that was registered there. Nothing is moved, nothing is
// taken for what the registered one needs, and the text says so.
func TestCopiesThatWereExchanged(t *testing.T) {
	for name, exchange := range map[string]func(fs vfs.FS) error{
		"exchanged": func(fs vfs.FS) error {
			return errors.Join(fs.Rename("one", "aside"), fs.Rename("two", "one"), fs.Rename("aside", "two"))
		},
		"one in the other's place": func(fs vfs.FS) error {
			return errors.Join(fs.Rename("one", "aside"), fs.Rename("two", "one"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newByKEKRig(t)
			var told told
			g.opts.Keyring.OnEvent = func(e keyring.Event) {
				if e.Kind == keyring.CopyKEKNotChanged {
					told.add(e.Err)
				}
			}
			s := g.open()
			require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
			require.NoError(t, s.Checkpoint(g.ctx, "one"))
			require.NoError(t, s.Checkpoint(g.ctx, "two"))
			require.NoError(t, exchange(g.opts.Pebble.FS))
			before, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Len(t, before, 2)

			g.vault.Rotate("customer")
			require.NoError(t, s.RotateKEK(g.ctx))
			require.NoError(t, s.LookAtCopies(g.ctx))
			eventually(t, func() bool { return len(told.all()) >= 2 }, "of both it is told that they were not moved")
			for _, err := range told.all() {
				require.ErrorContains(t, err, "any more, or was not made whole")
			}
			after, err := s.Copies(g.ctx)
			require.NoError(t, err)
			require.Len(t, after, 2)
			for i := range after {
				require.Equal(t, g.key, after[i].KEK, "it was not moved")
				require.Equal(t, before[i].KEKs, after[i].KEKs, "nothing is known of it that was not")
			}
			for _, dir := range []string{"one", "two", "aside"} {
				in, err := block.InspectKeyring(dir, &g.opts)
				if errors.Is(err, block.ErrNotStore) {
					continue
				}
				require.NoError(t, err)
				require.Equal(t, g.key, in.KEK, "what is at %s was not moved", dir)
			}
		})
	}
}

// told is errors that events tell of.
type told struct {
	mu   sync.Mutex
	errs []error
}

func (t *told) add(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, err)
}

func (t *told) all() []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.errs)
}
