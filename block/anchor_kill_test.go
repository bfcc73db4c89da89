package block

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/keyring"
)

var anchorKills = flag.Int("anchor.kills", 4, "processes to kill in TestAnchorOutlivesKills")

func anchorKillOptions(root string) *Options {
	return &Options{Pebble: PebbleOptions{MemTable: 64 << 10}, RecordCache: -1, RequireAccess: true, AnchorEvery: time.Millisecond,
		Keyring: keyring.Options{Anchor: keyring.FileAnchor(filepath.Join(root, "anchor", "file")), EpochMaxDEKs: 64 * 8}}
}

// On a real file system, with the anchor in a file: processes that write, rotate and close are
// killed at moments by chance. What each leaves opens with its anchor, and has what had been
// acknowledged. An older copy of the directory is refused then, until the anchor's file is moved away.
func TestAnchorOutlivesKills(t *testing.T) {
	if root := os.Getenv("BLOCKSEAL_ANCHOR_KILL"); root != "" {
		writeUntilKilled(t, root)
		return
	}
	ctx, root := context.Background(), t.TempDir()
	dir, anchor := filepath.Join(root, "store"), filepath.Join(root, "anchor", "file")
	require.NoError(t, os.Mkdir(filepath.Dir(anchor), 0o700))
	acknowledged := -1
	rng := rand.New(rand.NewPCG(seed.Of(t), 0))
	var last keyring.Point
	for round := range *anchorKills {
		child := exec.Command(os.Args[0], "-test.run=^TestAnchorOutlivesKills$", "-test.v")
		child.Env = append(os.Environ(), "BLOCKSEAL_ANCHOR_KILL="+root, "BLOCKSEAL_ANCHOR_FROM="+strconv.Itoa(acknowledged+1))
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		// After so many acknowledgements, whenever that is, it is killed in the middle of the next.
		said := bufio.NewScanner(out)
		var other []string
		left := 1 + rng.IntN(300)
		for left > 0 && said.Scan() {
			if n, ok := strings.CutPrefix(said.Text(), "acknowledged "); ok {
				acknowledged, err = strconv.Atoi(n)
				require.NoError(t, err)
				left--
			} else {
				other = append(other, said.Text())
			}
		}
		require.Zero(t, left, "round %d: it ended by itself, with %v: %s", round, last, other)
		require.NoError(t, child.Process.Kill())
		_, _ = io.Copy(io.Discard, out)
		require.Error(t, child.Wait())

		kept, err := keyring.FileAnchor(anchor).Load(ctx)
		require.NoError(t, err, "round %d", round)
		require.GreaterOrEqual(t, kept.Generation, last.Generation)
		require.GreaterOrEqual(t, kept.Sequence, last.Sequence)
		last = kept
		s, err := Open(ctx, dir, goldenKEK(t), anchorKillOptions(root))
		require.NoError(t, err, "round %d, with %v; the process said %s", round, kept, other)
		for i := range acknowledged + 1 {
			has, err := s.Has(ctx, fmt.Append(nil, i))
			require.NoError(t, err)
			require.True(t, has, "round %d: block %d of %d", round, i, acknowledged)
		}
		require.NoError(t, s.Close())
	}

	older := filepath.Join(root, "older")
	require.NoError(t, os.CopyFS(older, os.DirFS(dir)))
	s, err := Open(ctx, dir, goldenKEK(t), anchorKillOptions(root))
	require.NoError(t, err)
	require.NoError(t, s.Delete(ctx, []byte("0")))
	require.NoError(t, s.Close())
	require.NoError(t, os.Rename(dir, dir+".newer"))
	require.NoError(t, os.Rename(older, dir))
	_, err = Open(ctx, dir, goldenKEK(t), anchorKillOptions(root))
	require.ErrorIs(t, err, keyring.ErrUnexpected)
	require.NoError(t, os.Rename(anchor, anchor+".before"))
	s, err = Open(ctx, dir, goldenKEK(t), anchorKillOptions(root))
	require.NoError(t, err)
	has, err := s.Has(ctx, []byte("0"))
	require.NoError(t, err)
	require.True(t, has)
	require.NoError(t, s.Close())
	require.FileExists(t, anchor)
}

// writeUntilKilled is the process. Now and then it closes the store and opens it again.
func writeUntilKilled(t *testing.T, root string) {
	ctx, dir := t.Context(), filepath.Join(root, "store")
	n, err := strconv.Atoi(os.Getenv("BLOCKSEAL_ANCHOR_FROM"))
	require.NoError(t, err)
	for {
		s, err := Open(ctx, dir, goldenKEK(t), anchorKillOptions(root))
		require.NoError(t, err)
		for range 40 {
			require.NoError(t, s.Put(ctx, fmt.Append(nil, n), make([]byte, 500)))
			fmt.Println("acknowledged", n)
			n++
			if n%7 == 0 {
				require.NoError(t, s.RotateKEK(ctx))
			}
		}
		require.NoError(t, s.RotateEpoch(ctx, nil))
		require.NoError(t, s.Close())
	}
}
