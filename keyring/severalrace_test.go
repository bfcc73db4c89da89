package keyring_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// history is what several keyrings on one document have done: what they wrapped, and which
// epochs they have dropped or are about to.
type history struct {
	mu      sync.Mutex
	records [][]byte
	wrapped map[uint32]uint64 // by epoch
	floor   uint32            // no record of an epoch before it is needed any more
}

func (h *history) wrote(record []byte) error {
	in, err := keyring.ParseRecord(record)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = append(h.records, record)
	h.wrapped[in.Epoch]++
	return nil
}

// some returns one of the records, nil if there is none.
func (h *history) some(n int) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.records) == 0 {
		return nil
	}
	return h.records[n%len(h.records)]
}

func (h *history) needed(record []byte) bool {
	in, err := keyring.ParseRecord(record)
	h.mu.Lock()
	defer h.mu.Unlock()
	return err == nil && in.Epoch >= h.floor
}

// step is something that a keyring on the document does.
type step struct {
	what string
	n    int
}

func steps(ops []string) *rapid.Generator[step] {
	return rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(ops).Draw(t, "what"), rapid.IntRange(0, 1000).Draw(t, "n")}
	})
}

// seldom is what a keyring does at random, most often what costs no save.
func seldom() []string {
	return []string{"wrap", "wrap", "wrap", "wrap", "wrap", "open", "open", "rewrap", "rotate", "rotate", "drop", "rotate KEK", "change KEK", "check"}
}

// take takes a step and says what went wrong.
func (h *history) take(ctx context.Context, s step, r *keyring.Keyring, keks []*kek.KEK) error {
	var err error
	switch s.what {
	case "wrap":
		for range s.n % 7 {
			key, record, err := r.NewDEK(ctx, []byte("id"))
			if err != nil {
				return fmt.Errorf("wrap: %w", err)
			}
			key.Destroy()
			if err := h.wrote(record); err != nil {
				return err
			}
		}
	case "open", "rewrap":
		record := h.some(s.n)
		if record == nil {
			return nil
		}
		if err = h.open(ctx, r, record, s.what == "rewrap"); err != nil && !h.needed(record) {
			err = nil // it was dropped meanwhile
		}
	case "rotate":
		err = r.BeginEpoch(ctx)
	case "drop":
		epochs, err := r.Epochs()
		if err != nil || len(epochs) < 4 {
			return err
		}
		before := epochs[s.n%(len(epochs)-3)]
		h.mu.Lock()
		h.floor = max(h.floor, before)
		h.mu.Unlock()
		if _, err = r.For(inner.Block{}).DropEpochs(ctx, before); err != nil {
			return fmt.Errorf("drop: %w", err)
		}
	case "rotate KEK":
		err = r.RotateKEK(ctx)
	case "change KEK":
		err = r.ChangeKEK(ctx, keks[s.n%len(keks)])
	case "check":
		err = r.Revalidate(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	return nil
}

func (h *history) open(ctx context.Context, r *keyring.Keyring, record []byte, rewrap bool) error {
	if !rewrap {
		key, err := r.OpenDEK(ctx, record, []byte("id"))
		if err == nil {
			key.Destroy()
		}
		return err
	}
	hold, err := r.Acquire()
	if err != nil {
		return err
	}
	defer hold.Release()
	var b keyring.Binding
	b.Set([]byte("id"))
	again, err := hold.For(inner.Block{}).Rewrap(ctx, nil, record, &b)
	if err != nil {
		return err
	}
	return h.wrote(again)
}

// settled requires what holds when all have come to rest: each keyring opens each record that
// is needed and none that was dropped; and when all are closed, the document counts what
// was wrapped, or as much more as was lost.
func (h *history) settled(t require.TestingT, most, lost uint64, rings []*keyring.Keyring, reopen func() *keyring.Keyring) {
	ctx := context.Background()
	for i, r := range rings {
		require.NoError(t, r.Revalidate(ctx))
		epochs, err := r.Epochs()
		require.NoError(t, err)
		for _, record := range h.records {
			in, err := keyring.ParseRecord(record)
			require.NoError(t, err)
			if err := h.open(ctx, r, record, false); in.Epoch >= epochs[0] {
				require.NoError(t, err, "keyring %d, epochs %v", i, epochs)
			} else if err != nil { // at rest or not yet forgotten
				require.ErrorIs(t, err, keyring.ErrCorrupt)
			}
		}
	}
	for _, r := range rings {
		require.NoError(t, r.Close())
	}
	r := reopen()
	defer r.Close()
	reserved, err := r.Reserved()
	require.NoError(t, err)
	for epoch, n := range reserved {
		require.LessOrEqual(t, n, most, "epoch %d", epoch)
		require.GreaterOrEqual(t, n, h.wrapped[epoch], "epoch %d", epoch)
		require.LessOrEqual(t, n, h.wrapped[epoch]+lost, "epoch %d", epoch)
	}
	for epoch, n := range h.wrapped {
		require.LessOrEqual(t, n, most, "epoch %d", epoch)
		if _, ok := reserved[epoch]; !ok {
			require.Less(t, epoch, h.floor)
		}
	}
}

// Several keyrings on one document wrap, rotate, drop epochs and change KEKs as they like, at
// the same time: what any of them wraps opens in all of them until its epoch is dropped, and what
// they wrap together is counted once, to the last DEK.
func TestSeveralKeyringsAtRandom(t *testing.T) {
	t.Parallel()
	seed.Rapid(t)
	rapid.Check(t, func(rt *rapid.T) {
		g := newRig(t)
		g.opts.EpochMaxDEKs = 256 // slices of 4
		g.opts.Wrapping = rapid.SampledFrom([]keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK}).Draw(rt, "wrapping")
		keks := []*kek.KEK{g.kek}
		for _, name := range []string{"second", "third"} {
			keks = append(keks, kek.New(g.vault, g.vault.CreateKey(name).Versionless()))
		}
		g.opts.OtherKEKs = keks
		rings := []*keyring.Keyring{g.create(), g.open(), g.open()}
		h := &history{wrapped: map[uint32]uint64{}}
		errs := make([]error, len(rings))
		var wg sync.WaitGroup
		for i, r := range rings {
			todo := rapid.SliceOfN(steps(seldom()), 10, 30).Draw(rt, "steps")
			wg.Go(func() {
				for _, s := range todo {
					errs[i] = errors.Join(errs[i], h.take(context.Background(), s, r, keks))
				}
			})
		}
		wg.Wait()
		require.NoError(rt, errors.Join(errs...))
		document, err := keyring.Document(context.Background(), g.storage)
		require.NoError(rt, err)
		in, err := keyring.Inspect(document)
		require.NoError(rt, err)
		h.settled(rt, 256, 0, rings, func() *keyring.Keyring {
			c := *g
			c.kek = kek.New(g.vault, in.KEK.Versionless())
			return c.open()
		})
	})
}

// pairsVault is a vault that several processes have: of each key one version, from the test key
// pairs. It refuses nothing.
type pairsVault struct{}

func pairOf(name string) (vault.Key, func(c []byte) ([]byte, error), error) {
	pairs, err := testkeys.Pairs()
	if err != nil {
		return vault.Key{}, nil, err
	}
	i, err := strconv.Atoi(strings.TrimPrefix(name, "key-"))
	if err != nil || i >= len(pairs) {
		return vault.Key{}, nil, vault.ErrKeyNotFound
	}
	key := vault.Key{ID: vault.KeyID{Vault: "mem:pairs", Name: name, Version: "1"}, Enabled: true, Public: &pairs[i].PublicKey,
		Operations: []vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey}}
	return key, func(c []byte) ([]byte, error) { return rsa.DecryptOAEP(sha256.New(), nil, pairs[i], c, nil) }, nil
}

func (pairsVault) GetKey(_ context.Context, id vault.KeyID) (vault.Key, error) {
	key, _, err := pairOf(id.Name)
	return key, err
}

func (pairsVault) WrapKey(_ context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	key, _, err := pairOf(id.Name)
	if err != nil {
		return vault.Wrapped{}, err
	}
	c, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.Public, secret, nil)
	return vault.Wrapped{KeyID: key.ID, Ciphertext: c}, err
}

func (pairsVault) UnwrapKey(_ context.Context, w vault.Wrapped) ([]byte, error) {
	_, decrypt, err := pairOf(w.KeyID.Name)
	if err != nil {
		return nil, err
	}
	return decrypt(w.Ciphertext)
}

// Several processes that share one file do what TestSeveralKeyringsAtRandom does. One that is
// killed loses the slices that it has reserved, and nothing else.
func TestSeveralProcesses(t *testing.T) {
	t.Parallel()
	const most, processes, todo = 6400, 3, 60 // slices of 100
	keks := func() (out []*kek.KEK) {
		for i := range 3 {
			out = append(out, kek.New(pairsVault{}, vault.KeyID{Vault: "mem:pairs", Name: fmt.Sprintf("key-%d", i)}))
		}
		return out
	}
	open := func(t *testing.T, path string) *keyring.Keyring {
		for {
			document, err := keyring.Document(t.Context(), keyring.FileStorage(path))
			require.NoError(t, err)
			in, err := keyring.Inspect(document)
			require.NoError(t, err)
			r, err := keyring.Open(t.Context(), keyring.FileStorage(path), kek.New(pairsVault{}, in.KEK.Versionless()),
				&keyring.Options{OtherKEKs: keks(), EpochMaxDEKs: most, RequireAccess: true})
			if errors.Is(err, keyring.ErrWrongKEK) {
				continue // another process has moved it since it was looked at
			}
			require.NoError(t, err)
			return r
		}
	}
	if path := os.Getenv("BLOCKSEAL_SEVERAL_CHILD"); path != "" {
		seed, err := strconv.ParseUint(os.Getenv("BLOCKSEAL_SEVERAL_SEED"), 10, 64)
		require.NoError(t, err)
		dies := os.Getenv("BLOCKSEAL_SEVERAL_DIES") != ""
		rng := mrand.New(mrand.NewPCG(seed, 1))
		r := open(t, path)
		h := &history{wrapped: map[uint32]uint64{}}
		say := func(what string, v any) { fmt.Println("\nsay", what, v) }
		ops := seldom()
		for i := 0; i < todo || dies; i++ {
			s := step{ops[rng.IntN(len(ops))], rng.IntN(1000)}
			if s.what == "drop" { // of which the others would have to know before
				s.what = "wrap"
			}
			had := len(h.records)
			require.NoError(t, h.take(t.Context(), s, r, keks()))
			for _, record := range h.records[had:] {
				say("record", hex.EncodeToString(record))
			}
		}
		require.NoError(t, r.Close())
		return
	}
	run := func(t *testing.T, kill bool) {
		path := filepath.Join(t.TempDir(), "keyring")
		r, err := keyring.Create(t.Context(), keyring.FileStorage(path), keks()[0], &keyring.Options{EpochMaxDEKs: most})
		require.NoError(t, err)
		require.NoError(t, r.Close())
		h := &history{wrapped: map[uint32]uint64{}}
		drawn := seed.Of(t)
		var wg sync.WaitGroup
		for process := range processes {
			c := exec.Command(os.Args[0], "-test.run=^TestSeveralProcesses$", "-test.v")
			c.Env = append(os.Environ(), "BLOCKSEAL_SEVERAL_CHILD="+path, "BLOCKSEAL_SEVERAL_SEED="+strconv.FormatUint(drawn+uint64(process), 10))
			dies := kill && process == 0
			if dies {
				c.Env = append(c.Env, "BLOCKSEAL_SEVERAL_DIES=1")
			}
			out, err := c.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, c.Start())
			wg.Go(func() {
				var other strings.Builder
				lines, records := bufio.NewScanner(out), 0
				for lines.Scan() {
					text, ok := strings.CutPrefix(lines.Text(), "say record ")
					if !ok {
						fmt.Fprintln(&other, lines.Text())
						continue
					}
					record, err := hex.DecodeString(text)
					if err == nil {
						err = h.wrote(record)
					}
					if err != nil && !dies {
						t.Errorf("process %d: %v", process, err)
					}
					if records++; dies && records == 50 {
						if err := c.Process.Kill(); err != nil {
							t.Error(err)
						}
					}
				}
				if err := c.Wait(); (err == nil) == dies {
					t.Errorf("process %d: %v\n%s", process, err, other.String())
				}
			})
		}
		wg.Wait()
		require.NotEmpty(t, h.records)
		var lost uint64
		if kill {
			// The slice that it had of each epoch, and what it wrapped in its last step and did not
			// come to say.
			lost = most/64 + 20
		}
		rings := []*keyring.Keyring{open(t, path), open(t, path)}
		h.settled(t, most, lost, rings, func() *keyring.Keyring { return open(t, path) })
		names, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		for _, n := range names {
			require.Contains(t, []string{"keyring", "keyring.lock", "keyring.new"}, n.Name())
		}
	}
	t.Run("all end in order", func(t *testing.T) { run(t, false) })
	t.Run("one is killed", func(t *testing.T) { run(t, true) })
}
