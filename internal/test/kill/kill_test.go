// Package kill is a campaign: a process writes to a store on a real disk, and rotates
// its keys, and is killed at random moments; what it leaves is opened and compared
// with what it had acknowledged, and the next process goes on from there.
//
//	go test ./internal/test/kill -v                                # a few kills
//	go test ./internal/test/kill -v -kills 500 -timeout 2h
package kill

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/ledger"
	"github.com/blockseal/blockseal/internal/test/load"
	"github.com/blockseal/blockseal/internal/test/seed"
)

var (
	kills = flag.Int("kills", 5, "processes to kill")
)

func TestMain(m *testing.M) {
	load.Child(nil)
	os.Exit(m.Run())
}

func TestCampaign(t *testing.T) {
	ctx := context.Background()
	t.Logf("-kills %d", *kills)
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	d, err := load.Prepare(ctx, t.TempDir())
	require.NoError(t, err)
	l := ledger.New(nil)
	var written uint64
	// On a machine that is busy it may be that none comes to write in its time: there are
	// more then, with more time.
	var more time.Duration
	for n := 0; n < *kills || written == 0 && n < *kills+20; n++ {
		p, err := d.Start(l, rng.Uint64())
		require.NoError(t, err)
		_, before := l.Versions()
		require.NoError(t, p.Kill(more+time.Duration(50+rng.IntN(600))*time.Millisecond, l), "kill %d", n)
		_, after := l.Versions()
		written += after - before
		require.NoError(t, d.Check(ctx, l), "kill %d", n)
		if n >= *kills-1 {
			more += 300 * time.Millisecond
		}
	}
	ids, _ := l.Versions()
	require.Positive(t, written, "the processes wrote nothing: kill them later")
	t.Logf("%d processes killed, 0 losses; %d ids, %d versions on", *kills, ids, written)
}
