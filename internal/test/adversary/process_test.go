//go:build unix

package adversary

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/seldom"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

const (
	childDir   = "BLOCKSEAL_ADVERSARY_DIR"
	childRound = "BLOCKSEAL_ADVERSARY_NAME"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir, os.Getenv(childRound)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	seldom.Collect()
	os.Exit(m.Run())
}

// child creates or opens the store in dir, and puts a block of its own if it may.
func child(dir, name string) error {
	ctx := context.Background()
	v, err := local.Open(filepath.Join(dir, "vault"), passphrase, &local.Options{InsecureKDF: true})
	if err != nil {
		return err
	}
	defer v.Close()
	s, err := block.Open(ctx, filepath.Join(dir, "store"), kek.New(v, vault.KeyID{Name: "customer"}), &block.Options{Pebble: block.PebbleOptions{MemTable: 1 << 20}})
	if err != nil {
		return err
	}
	fmt.Println("won")
	if err := s.Put(ctx, []byte(name), plain(name)); err != nil {
		return err
	}
	return s.Close()
}

// Many processes that create, open and write one store at once: whoever does not get
// it is told so, and what was acknowledged is there.
func TestManyProcessesOneStore(t *testing.T) {
	dir := t.TempDir()
	v, err := local.Create(filepath.Join(dir, "vault"), passphrase, &local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 10}})
	require.NoError(t, err)
	defer v.Close()
	_, err = v.CreateKey(t.Context(), "customer", nil)
	require.NoError(t, err)
	var mu sync.Mutex
	var won []string
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			name := fmt.Sprintf("process %d", i)
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childDir+"="+dir, childRound+"="+name)
			out, err := cmd.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				require.Contains(t, string(out), block.ErrLocked.Error())
				require.False(t, strings.Contains(string(out), canary) || strings.Contains(string(out), "panic"), string(out))
				return
			}
			won = append(won, name)
		})
	}
	wg.Wait()
	require.NotEmpty(t, won, "one of them gets it")
	s, err := block.Open(t.Context(), filepath.Join(dir, "store"), kek.New(v, vault.KeyID{Name: "customer"}), nil)
	require.NoError(t, err)
	rep, err := s.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.EqualValues(t, len(won), rep.Blocks)
	for _, name := range won {
		got, err := s.Get(t.Context(), []byte(name), nil)
		require.NoError(t, err)
		require.Equal(t, plain(name), got)
	}
	require.NoError(t, s.Close())
	t.Logf("%d of 12 processes had the store", len(won))
}
