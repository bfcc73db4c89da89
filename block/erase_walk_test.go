package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A walk over the records that was begun before (KeyUsage, the count of
// a meter) keeps files that have what is erased: Erase has not ended before they are gone.
func TestEraseBesideAWalk(t *testing.T) {
	ctx := t.Context()
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	fs := vfs.NewMem()
	s, err := Open(ctx, "store", kek.New(v, id.Versionless()), &Options{Pebble: PebbleOptions{FS: fs, MemTable: 1 << 20}, Keyring: keyring.Options{Clock: clock}})
	require.NoError(t, err)
	defer s.Close()
	for i := range 50 {
		require.NoError(t, s.Put(ctx, fmt.Append(nil, i), []byte("x")))
	}
	require.NoError(t, s.Put(ctx, []byte("victim"), []byte("secret")))
	victim, document := []byte(s.Records()["victim"]), s.Document()
	require.NoError(t, s.raw().Flush(ctx))
	holding := func() (found []string) {
		names, err := fs.List("store")
		require.NoError(t, err)
		for _, name := range names {
			f, err := fs.Open("store/" + name)
			if errors.Is(err, os.ErrNotExist) {
				continue // the engine has removed it meanwhile
			}
			require.NoError(t, err)
			b, err := io.ReadAll(f)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			if bytes.Contains(b, victim) || bytes.Contains(b, document) {
				found = append(found, name)
			}
		}
		return found
	}
	require.NotEmpty(t, holding(), "the search must be able to find it")

	at, goOn, walked := make(chan bool), make(chan bool), make(chan error, 1)
	proceed := sync.OnceFunc(func() { close(goOn) })
	defer proceed()
	go func() {
		walked <- s.eachRecord(ctx, func(_, _ []byte, _ keyring.RecordInfo) (bool, error) {
			close(at)
			<-goOn
			return false, nil
		})
	}()
	<-at
	require.NoError(t, s.Delete(ctx, []byte("victim")))

	type result struct {
		r   Receipt
		err error
	}
	erase := func(ctx context.Context) chan result {
		done := make(chan result, 1)
		go func() {
			r, err := s.Erase(ctx, nil)
			done <- result{r, err}
		}()
		return done
	}
	// The last that Erase does before it waits for files is to compact them.
	compacted := func() bool { return s.raw().Metrics().Table.ZombieCount > 0 }
	ended, cancel := context.WithCancel(ctx)
	done := erase(ended)
	require.Eventually(t, compacted, time.Minute, time.Millisecond)
	select {
	case got := <-done:
		t.Fatalf("it has ended: %v; what was erased is in %v", got.err, holding())
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	got := <-done
	require.ErrorIs(t, got.err, context.Canceled)
	require.Empty(t, got.r.Hash, "there is no receipt")

	done = erase(ctx)
	select {
	case got := <-done:
		t.Fatalf("it has ended: %v; what was erased is in %v", got.err, holding())
	case <-time.After(50 * time.Millisecond):
	}
	proceed()
	got = <-done
	require.NoError(t, got.err)
	require.False(t, got.r.Pinned)
	require.Empty(t, holding())
	require.NoError(t, <-walked)
}
