package block_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
)

// A store moves without being opened, and arrives as a copy.
func TestMove(t *testing.T) {
	for _, how := range []string{"open", "closed"} {
		t.Run(how, func(t *testing.T) {
			g := newDBRig(t)
			a := g.create("a")
			for i := range 50 {
				require.NoError(t, a.Put(g.ctx, fmt.Appendf(nil, "%02d", i), bytes.Repeat([]byte{byte(i)}, 100*i)))
			}
			require.NoError(t, g.create("b").Put(g.ctx, []byte("id"), nil))
			if how == "closed" {
				require.NoError(t, a.Close())
			}
			var stream bytes.Buffer
			sent, err := g.db.Export(g.ctx, "a", &stream)
			require.NoError(t, err)
			require.EqualValues(t, 50, sent.Blocks)
			whole := bytes.Clone(stream.Bytes())

			_, err = g.db.Import(g.ctx, bytes.NewReader(whole))
			require.ErrorIs(t, err, block.ErrExists, "a store is in a DB once")

			to := newDBRig(t)
			to.vault, to.keks = g.vault, g.keks
			to.create("other") // so that the numbers differ
			for _, cut := range []int{0, 10, len(whole) / 2, len(whole) - 1} {
				_, err := to.db.Import(g.ctx, bytes.NewReader(whole[:cut]))
				require.ErrorIs(t, err, block.ErrCorrupt)
				require.Equal(t, []string{"other"}, to.names(), "nothing is left of it")
			}
			got, err := to.db.Import(g.ctx, &stream)
			require.NoError(t, err)
			require.Equal(t, sent, got)
			require.Equal(t, "a", got.Name)
			s, release := to.acquire("a")
			defer release()
			_, err = s.Get(g.ctx, []byte("01"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible)
			require.NoError(t, s.Revalidate(g.ctx))
			for i := range 50 {
				requireData(t, s, fmt.Sprintf("%02d", i), string(bytes.Repeat([]byte{byte(i)}, 100*i)))
			}
			rep, err := s.Verify(g.ctx, nil)
			require.NoError(t, err)
			require.EqualValues(t, 50, rep.Blocks)
			require.Empty(t, rep.Problems)
			_, err = g.db.Drop(g.ctx, "a")
			require.NoError(t, err)
			require.NoError(t, s.RotateEpoch(g.ctx, nil))
			requireData(t, s, "01", string(bytes.Repeat([]byte{1}, 100)))
			to.reopen()
			s, release = to.acquire("a")
			requireData(t, s, "01", string(bytes.Repeat([]byte{1}, 100)))
			release()
		})
	}
}
