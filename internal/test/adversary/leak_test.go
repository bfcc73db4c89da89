package adversary

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockhttp"
	"github.com/blockseal/blockseal/block/blockprom"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

var passphrase = []byte("correct horse battery staple")

// outlet collects everything that a store says: logs, events, errors, answers.
type outlet struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// say writes a value in every way in which a program may print it.
func (o *outlet) say(v any) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(o, verb+"\n", v)
	}
	if b, err := json.Marshal(v); err == nil {
		o.Write(append(b, '\n'))
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(o, nil), slog.NewJSONHandler(o, nil)} {
		slog.New(h).Info("said", "value", v)
	}
}

func (o *outlet) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// world is a store of each kind on a disk, with a file vault and an audit log, and what
// it all says.
type world struct {
	t       testing.TB
	dir     string
	out     *outlet
	secrets *secrets
	owner   *local.Vault
	log     *audit.Log
	vault   vault.Vault
	key     vault.KeyID
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), out: &outlet{}, secrets: &secrets{}}
	w.secrets.add("plaintext", []byte(canary))
	var err error
	cheap := local.KDF{Algorithm: local.PBKDF2, Passes: 10}
	w.owner, err = local.Create(filepath.Join(w.dir, "vault"), passphrase, &local.Options{InsecureKDF: true, KDF: cheap,
		OnEvent: func(e local.Event) { w.out.say(e) }})
	require.NoError(t, err)
	keys := w.secrets.testKeys(t, 2)
	made, err := w.owner.ImportKey(t.Context(), "customer", keys[0], nil)
	require.NoError(t, err)
	w.key = made.ID
	_, err = w.owner.ImportKey(t.Context(), "other", keys[1], nil)
	require.NoError(t, err)
	require.NoError(t, w.owner.Grant(t.Context(), "store", local.DataPlane()...))
	w.log, err = audit.OpenDir(filepath.Join(w.dir, "audit"), nil)
	require.NoError(t, err)
	w.vault = audit.New(watched{w.owner.As("store"), w.secrets}, w.log, nil)
	return w
}

func (w *world) options(wrapping keyring.Wrapping) *block.Options {
	return &block.Options{Pebble: block.PebbleOptions{MemTable: 1 << 20, BlockCache: 1 << 20, ValueSeparation: 64}, VaultRate: 1 << 20, RecordCache: 1 << 12, Keyring: keyring.Options{
		Wrapping: wrapping, OnEvent: func(e keyring.Event) { w.out.say(e) },
		Logger: slog.New(slog.NewTextHandler(w.out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}}
}

func (w *world) kek(name string) *kek.KEK { return kek.New(w.vault, vault.KeyID{Name: name}) }

// live does everything that a store does, says what comes of it, and leaves the store
// open.
func (w *world) live(dir string, wrapping keyring.Wrapping) *block.Store {
	t, ctx := w.t, context.Background()
	ok := func(err error) {
		t.Helper()
		require.NoError(t, err)
	}
	s, err := block.Open(ctx, dir, w.kek("customer"), w.options(wrapping))
	ok(err)
	data := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprint(canary, i, " "), 1+i)) }
	for i := range 40 {
		ok(s.Put(ctx, []byte(numbered("b", i)), data(i)))
	}
	b := s.NewBatch()
	ok(b.Put(ctx, []byte("batched"), data(5)))
	w.out.say(b)
	ok(b.Commit(ctx))
	ok(s.Delete(ctx, []byte(numbered("b", 3))))
	ok(s.Checkpoint(ctx, dir+"-copy"))
	ok(s.RotateKEK(ctx))
	ok(s.RotateEpoch(ctx, func(st block.Step) { w.out.say(st) }))
	ok(s.Rekey(ctx, block.Range{End: []byte("b/00020")}, nil))
	ok(s.ChangeKEK(ctx, w.kek("other")))
	ok(s.RewrapDEKs(ctx, nil))
	receipt, err := s.Erase(ctx, nil)
	ok(err)
	w.out.say(receipt)
	rep, err := s.Verify(ctx, nil)
	ok(err)
	w.out.say(rep)
	uses, err := s.KeyUsage(ctx)
	ok(err)
	w.out.say(uses)
	copies, err := s.Copies(ctx)
	ok(err)
	w.out.say(copies)
	got, err := s.Get(ctx, []byte(numbered("b", 7)), nil)
	ok(err)
	require.Contains(t, string(got), canary)

	// Errors of every kind, of arguments that hold plaintext too.
	long := bytes.Repeat([]byte(canary), 200)
	for _, err := range []error{
		s.Put(ctx, long, []byte(canary)), s.Put(ctx, nil, []byte(canary)), second(s.Get(ctx, []byte("none"), []byte(canary))),
		s.Put(ctx, []byte("x"), bytes.Repeat([]byte(canary), 1+block.MaxBlock/len(canary))),
		s.ChangeKEK(ctx, w.kek("missing")), second(block.Open(ctx, dir, w.kek("other"), nil)),
	} {
		require.Error(t, err)
		// Ids are not secret, and an error names up to 64 bytes of one.
		w.out.say(errors.New(strings.ReplaceAll(err.Error(), string(long[:64]), "ID")))
	}
	w.metrics(s)
	return s
}

func (w *world) metrics(s *block.Store) {
	reg := prometheus.NewRegistry()
	require.NoError(w.t, reg.Register(blockprom.New(s, nil)))
	families, err := reg.Gather()
	require.NoError(w.t, err)
	require.Greater(w.t, len(families), 5)
	for _, f := range families {
		fmt.Fprintln(w.out, f.String())
	}
	for _, path := range []string{"/", "/status.json"} {
		rec := httptest.NewRecorder()
		blockhttp.Handler(s, nil).ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		require.Equal(w.t, 200, rec.Code)
		require.Greater(w.t, rec.Body.Len(), 500)
		w.out.Write(rec.Body.Bytes())
	}
}

// The store, its copies, the vault and the audit log, every file of them, and every
// word that was said: no plaintext, no DEK, no epoch key, no document secret, no store
// secret, no passphrase, no master key, no private key.
func TestNothingLeaks(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	for _, wrapping := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		dir := filepath.Join(w.dir, wrapping.String())
		s := w.live(dir, wrapping)
		// As it stands while it is open.
		w.search()

		// Taken away, under way, and given back.
		off := false
		_, err := w.owner.UpdateKey(ctx, vault.KeyID{Name: "other"}, local.Update{Enabled: &off})
		require.NoError(t, err)
		require.Error(t, s.Revalidate(ctx))
		w.out.say(s.State())
		w.out.say(s.Stats())
		w.out.say(second(s.Get(ctx, []byte("batched"), nil)))
		w.metrics(s)
		on := true
		_, err = w.owner.UpdateKey(ctx, vault.KeyID{Name: "other"}, local.Update{Enabled: &on})
		require.NoError(t, err)
		require.NoError(t, s.Revalidate(ctx))
		w.out.say(s)
		require.NoError(t, s.Close())
		g := &rig{t: t, ctx: ctx, dir: dir}
		w.secrets.addStore(t, g.records())
		g.dir += "-copy"
		w.secrets.addStore(t, g.records())
	}
	backup, err := w.owner.BackupKey(ctx, "customer")
	require.NoError(t, err)
	w.out.say(backup)
	secret, err := w.owner.BackupSecret(ctx)
	require.NoError(t, err)
	w.out.say(local.Options{BackupSecret: secret})
	w.secrets.add("backup secret", secret)
	require.NoError(t, w.log.Close())
	require.NoError(t, w.owner.Close())
	w.out.say(w.owner)
	w.secrets.addVault(t, filepath.Join(w.dir, "vault", "vault"), passphrase)
	files, bytes := w.search()
	require.Greater(t, files, 40)
	require.Greater(t, len(w.out.String()), 100_000)
	for _, said := range []string{"pebble", "state", "cause", "blockseal_", "EpochDropped", "\"hash\""} {
		require.Contains(t, strings.ToLower(w.out.String()), strings.ToLower(said), "the test hears what it is to hear")
	}
	require.Greater(t, len(w.secrets.known()), 150)
	t.Logf("%d secrets, each in %d forms: in none of %d files (%d bytes), nor in %d bytes of logs, events, errors, metrics and answers",
		len(w.secrets.known()), len(w.secrets.needles())/len(w.secrets.known()), files, bytes, len(w.out.String()))
}

// search looks through every file and everything that was said.
func (w *world) search() (files, size int) {
	require.NoError(w.t, filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // the engine's, gone meanwhile
		}
		files++
		size += len(b)
		w.secrets.none(w.t, path, b)
		return err
	}))
	w.secrets.none(w.t, "what was said", []byte(w.out.String()))
	return files, size
}

// Without the encryption the same search finds plaintext: it is not blind.
func TestTheSearchSeesPlaintext(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, os.WriteFile(filepath.Join(w.dir, "x"), []byte("..."+canary), 0o600))
	w.out.say(struct{ Time time.Time }{time.Now()})
	seen := &spy{TB: t}
	w.t = seen
	w.search()
	require.True(t, seen.failed)
	require.NoError(t, w.log.Close())
	require.NoError(t, w.owner.Close())
}

type spy struct {
	testing.TB
	failed bool
}

func (s *spy) Errorf(string, ...any) { s.failed = true }
