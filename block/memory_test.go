//go:build linux

package block_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/memscan"
	"github.com/blockseal/blockseal/internal/test/race"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// A store has the plaintext of a block for as long as an operation lasts. The test runs
// itself as a child process that does each operation on a store and keeps no plaintext of
// its own. The parent, which knows the plaintext, looks for it in the child's memory after
// each. (Of DEKs the compiler leaves copies on stacks, which could not be told from others:
// TestNoOperationLeavesADEK looks for those.)

const (
	memoryChild      = "BLOCKSEAL_BLOCK_MEMORY_CHILD"
	memoryWrapping   = "BLOCKSEAL_BLOCK_MEMORY_WRAPPING"
	memoryPassphrase = "only a test"
	memoryBlocks     = 120
	memoryRekeyAfter = 100 * time.Hour
)

// memoryStore opens the store beneath a directory on a file vault beside it.
func memoryStore(ctx context.Context, dir string, clock vault.Clock, w keyring.Wrapping) (*local.Vault, *block.Store, error) {
	v, err := local.Open(filepath.Join(dir, "vault"), []byte(memoryPassphrase), &local.Options{InsecureKDF: true})
	if err != nil {
		return nil, nil, err
	}
	lease := 10_000 * time.Hour // the clock moves by hours
	s, err := block.Open(ctx, filepath.Join(dir, "store"), kek.New(v, vault.KeyID{Name: "k"}),
		&block.Options{Pebble: block.PebbleOptions{MemTable: 1 << 20, BlockCache: 1 << 20}, VaultRate: 1 << 30,
			Keyring: keyring.Options{Wrapping: w, Clock: clock, RekeyAfter: memoryRekeyAfter,
				Lease: lease, AllowLongLease: true, CheckEvery: lease / 2, VaultTimeout: lease}})
	if err != nil {
		return nil, nil, errors.Join(err, v.Close())
	}
	return v, s, nil
}

// memoryID is the id of a block; its data is larger the larger i is, so that a buffer for
// one has no room for a later one.
func memoryID(i int) []byte { return fmt.Appendf(nil, "block %03d", i) }

// memorySteps is what the child does, by name. What a step reads for itself it overwrites.
func memorySteps(ctx context.Context, v *local.Vault, s *block.Store, clock *vaulttest.Clock) []struct {
	name string
	do   func() error
} {
	all := func(blocks func(func(block.Block, error) bool), most int) error {
		n := 0
		for b, err := range blocks {
			if err != nil {
				return err
			}
			if len(b.Data) == 0 {
				return fmt.Errorf("block %s is empty", b.ID)
			}
			if n++; n == most {
				break
			}
		}
		return nil
	}
	get := func(i int, then func(data []byte) error) error {
		data, err := s.Get(ctx, memoryID(i), nil)
		if err != nil {
			return err
		}
		defer clear(data)
		return then(data)
	}
	return []struct {
		name string
		do   func() error
	}{
		{"open", func() error { return nil }},
		{"get", func() error {
			for i := range memoryBlocks {
				if err := get(i, func([]byte) error { return nil }); err != nil {
					return err
				}
			}
			return nil
		}},
		{"put", func() error {
			return get(memoryBlocks-1, func(data []byte) error { return s.Put(ctx, []byte("put"), data) })
		}},
		{"batch", func() error {
			return get(memoryBlocks-2, func(data []byte) error {
				b := s.NewBatch()
				return errors.Join(b.Put(ctx, []byte("batch 1"), data), b.Put(ctx, []byte("batch 2"), data), b.Commit(ctx))
			})
		}},
		{"batch of what is lent", func() error {
			return get(memoryBlocks-2, func(data []byte) error {
				b := s.NewBatch()
				var errs []error
				for i := range 20 { // helpers have some to seal
					errs = append(errs, b.PutLent(ctx, fmt.Appendf(nil, "lent %d", i), data))
				}
				return errors.Join(append(errs, b.Commit(ctx))...)
			})
		}},
		{"batch of what is lent that is closed", func() error {
			return get(memoryBlocks-2, func(data []byte) error {
				b := s.NewBatch()
				var errs []error
				for i := range 20 {
					errs = append(errs, b.PutLent(ctx, fmt.Appendf(nil, "lent %d", i), data))
				}
				return errors.Join(append(errs, b.Close())...)
			})
		}},
		{"batch that is closed", func() error {
			return get(memoryBlocks-2, func(data []byte) error {
				b := s.NewBatch()
				return errors.Join(b.Put(ctx, []byte("batch 3"), data), b.Close())
			})
		}},
		{"scan", func() error { return all(s.Blocks(ctx, block.Range{}), -1) }},
		{"scan that ends early", func() error { return all(s.Blocks(ctx, block.Range{}), 5) }},
		{"scan that ends early, reading ahead", func() error { return all(s.Blocks(ctx, block.Range{}), 60) }},
		{"snapshot", func() error {
			sn := s.Snapshot()
			data, err := sn.Get(ctx, memoryID(7), nil)
			clear(data)
			return errors.Join(err, all(sn.Blocks(ctx, block.Range{}), -1), sn.Close())
		}},
		{"verify", func() error { _, err := s.Verify(ctx, nil); return err }},
		{"rekey", func() error { return s.Rekey(ctx, block.Range{}, nil) }},
		{"rotate the epoch", func() error { return s.RotateEpoch(ctx, nil) }},
		{"rotate the KEK, rewrap", func() error {
			if _, err := v.RotateKey(ctx, "k"); err != nil {
				return err
			}
			return errors.Join(s.RotateKEK(ctx), s.RewrapDEKs(ctx, nil))
		}},
		{"DEKs that are too old", func() error {
			before := s.Records()
			for len(replaced(s, before)) < len(before) {
				clock.Advance(time.Hour)
				runtime.Gosched()
			}
			return s.Rekey(ctx, block.Range{Start: []byte("nothing")}, nil) // waits for its turn
		}},
	}
}

// TestMemoryChild is the child of TestMemoryAfterOperations.
func TestMemoryChild(t *testing.T) {
	dir := os.Getenv(memoryChild)
	if dir == "" {
		t.Skip("it is the other process of TestMemoryAfterOperations")
	}
	in := bufio.NewReader(os.Stdin)
	tell := func(what string) error {
		fmt.Println(what)
		_, err := in.ReadString('\n')
		return err
	}
	var w keyring.Wrapping
	if os.Getenv(memoryWrapping) == keyring.ByKEK.String() {
		w = keyring.ByKEK
	}
	clock := vaulttest.NewClock(start)
	v, s, err := memoryStore(t.Context(), dir, clock, w)
	require.NoError(t, err)
	for _, step := range memorySteps(t.Context(), v, s, clock) {
		require.NoError(t, step.do(), step.name)
		require.NoError(t, tell(step.name))
	}
	data, err := s.Get(t.Context(), memoryID(0), nil)
	require.NoError(t, err)
	require.NoError(t, tell("plaintext in hand"))
	clear(data)
	require.NoError(t, s.Close())
	require.NoError(t, v.Close())
}

func TestMemoryAfterOperations(t *testing.T) {
	if race.Enabled {
		t.Skip("the detector's own memory is many times the program's, and nothing is shared here")
	}
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) { memoryAfterOperations(t, w) })
	}
}

func memoryAfterOperations(t *testing.T, w keyring.Wrapping) {
	dir := t.TempDir()
	v, err := local.Create(filepath.Join(dir, "vault"), []byte(memoryPassphrase),
		&local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 1}})
	require.NoError(t, err)
	_, err = v.CreateKey(t.Context(), "k", nil)
	require.NoError(t, err)
	require.NoError(t, v.Close())
	clock := vaulttest.NewClock(start)
	v, s, err := memoryStore(t.Context(), dir, clock, w)
	require.NoError(t, err)
	// Longer than what a signal leaves of the registers on a stack, which are in the middle
	// of opening a block: 256 bytes. What the store leaves is whole blocks.
	needle := make([]byte, 512)
	rand.Read(needle)
	for i := range memoryBlocks {
		require.NoError(t, s.Put(t.Context(), memoryID(i), bytes.Repeat(needle, 1+i)))
	}
	steps := memorySteps(t.Context(), v, s, clock)
	require.NoError(t, s.Close())
	require.NoError(t, v.Close())

	// Without a collection nothing but the store erases anything.
	child := exec.Command(os.Args[0], "-test.run=^TestMemoryChild$")
	child.Env = append(os.Environ(), memoryChild+"="+dir, memoryWrapping+"="+w.String(), "GOGC=off")
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	lines := bufio.NewReader(out)
	// look searches the child, which is at rest once it has said what it did.
	look := func(what string, needles []memscan.Needle) map[string]int {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, what+"\n", line)
		found, err := memscan.Search(child.Process.Pid, needles)
		require.NoError(t, err)
		return found
	}
	plain := []memscan.Needle{{Name: "plaintext", Bytes: needle}}
	for _, step := range steps {
		require.Empty(t, look(step.name, plain), "left in memory: %s", step.name)
		_, err = io.WriteString(in, "\n")
		require.NoError(t, err)
	}
	require.NotEmpty(t, look("plaintext in hand", plain), "the search must find what is there")
	_, err = io.WriteString(in, "\n")
	require.NoError(t, err)
	require.NoError(t, child.Wait())
}
