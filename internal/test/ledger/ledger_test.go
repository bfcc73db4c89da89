package ledger_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/ledger"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A check that finds nothing proves nothing: each kind of loss is found.
func TestCheckFinds(t *testing.T) {
	ctx := context.Background()
	v := vaulttest.New(nil)
	s, err := block.Open(ctx, "store", kek.New(v, v.CreateKey("k").Versionless()), &block.Options{Pebble: block.PebbleOptions{FS: vfs.NewMem()}})
	require.NoError(t, err)
	defer s.Close()
	l := ledger.New(nil)
	group := []string{"g/1", "g/2"}
	for range 7 {
		n := l.BeginAll(group)
		require.NoError(t, ledger.Change(ctx, s, n, group...))
		l.Ack(n, group...)
		n = l.Begin("a")
		require.NoError(t, ledger.Change(ctx, s, n, "a"))
		l.Ack(n, "a")
	}
	check := func() error {
		_, err := ledger.Check(ctx, s, l.Acked(), l.Begun(), group)
		return err
	}
	require.NoError(t, check())
	restore := func() { require.NoError(t, ledger.Change(ctx, s, 7, "a")) }

	require.NoError(t, ledger.Change(ctx, s, 6, "a"))
	require.ErrorContains(t, check(), "acknowledged was 7", "an older version")
	require.NoError(t, ledger.Change(ctx, s, 8, "a"))
	require.ErrorContains(t, check(), "begun 7", "one that was never begun")
	require.NoError(t, s.Delete(ctx, []byte("a")))
	require.ErrorContains(t, check(), `"a" is missing`)
	require.NoError(t, s.Put(ctx, []byte("a"), ledger.Content("b", 7)))
	require.ErrorContains(t, check(), "not what was written")
	restore()
	require.NoError(t, s.Put(ctx, []byte("other"), ledger.Content("other", 1)))
	require.ErrorContains(t, check(), `"other" is version 1`)
	require.NoError(t, s.Delete(ctx, []byte("other")))
	require.NoError(t, check())

	l.BeginAll(group)
	require.NoError(t, ledger.Change(ctx, s, 8, "g/1"))
	require.ErrorContains(t, check(), "half a batch")
	require.NoError(t, ledger.Change(ctx, s, 8, "g/2"))
	require.NoError(t, check(), "begun and not acknowledged may be there")

	for range 3 {
		l.Begin("a") // to 10, which is a deletion
	}
	require.NoError(t, s.Delete(ctx, []byte("a")))
	require.NoError(t, check(), "a deletion that was begun may have happened")
}

func TestRead(t *testing.T) {
	var b bytes.Buffer
	l := ledger.New(&b)
	l.Ack(l.Begin("an id"), "an id")
	l.Begin("an id")
	again := ledger.New(nil)
	require.NoError(t, again.Read(strings.NewReader(b.String()+"something else\na 9 an id cut of")))
	require.Equal(t, l.Acked(), again.Acked())
	require.Equal(t, l.Begun(), again.Begun())
	b.Reset()
	require.NoError(t, again.Write(&b))
	third := ledger.New(nil)
	require.NoError(t, third.Read(&b))
	require.Equal(t, l.Begun(), third.Begun())
	again.Resume(map[string]uint64{"an id": 2})
	require.EqualValues(t, 3, again.Begin("an id"))
}
