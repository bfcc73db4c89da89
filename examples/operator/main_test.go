package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/examples/internal/clitest"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/azure"
)

// Keys that openssl made, published with vault/local's tests.
const importable = "../../internal/keyfile/testdata/import/"

// rig is a directory with a vault in it, and what the tool reads beside it.
type rig struct {
	t      *testing.T
	dir    string
	env    map[string]string
	typed  []string // what a person types, prompt by prompt; nil: there is no terminal
	asked  []string // the prompts
	stdin  string
	stderr string    // of the last command
	disk   disk      // nil: the system's
	log    io.Writer // nil: a directory

	connect func(vaultURL string) (azcore.TokenCredential, *azure.Options, error) // to a Key Vault
}

// newRig makes a vault with the key "customer" and an identity "store" that may use
// keys.
func newRig(t *testing.T) *rig {
	g := emptyRig(t)
	template.Do(func() {
		first := emptyRig(t)
		first.ok("vault", "init", "--kdf", "pbkdf2", "--kdf-passes", "1000")
		first.ok("key", "import", "customer", importable+"rsa2048.pem")
		first.ok("grant", "add", "store", "data")
		kept := fstest.MapFS{}
		entries, err := os.ReadDir(first.path("vault"))
		require.NoError(t, err)
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(first.path("vault"), e.Name()))
			require.NoError(t, err)
			kept[e.Name()] = &fstest.MapFile{Data: b, Mode: 0o600}
		}
		template.files = kept
	})
	require.NotNil(t, template.files, "the first vault could not be made")
	require.NoError(t, os.CopyFS(g.path("vault"), template.files))
	require.NoError(t, os.Chmod(g.path("vault"), 0o700))
	return g
}

// template is that vault's directory: that an imported key's factors are prime takes longer
// to find out than most tests.
var template struct {
	sync.Once
	files fs.FS
}

func emptyRig(t *testing.T) *rig {
	g := &rig{t: t, dir: t.TempDir()}
	g.env = map[string]string{"BLOCKSEAL_VAULT": g.path("vault"), "BLOCKSEAL_PASSPHRASE": "a test's passphrase"}
	return g
}

func (g *rig) path(name string) string { return filepath.Join(g.dir, name) }

// run runs a command line and returns its exit status and standard output.
func (g *rig) run(args ...string) (int, string) {
	g.t.Helper()
	var out, stderr clitest.Output // with --verbose a store writes, too, and may do so when the command has ended
	a := &app{
		in: strings.NewReader(g.stdin), out: &out, err: &stderr, disk: g.disk, connect: g.connect, cheapKDF: true,
		getenv: func(name string) string { return g.env[name] },
		prompt: func(label string) ([]byte, error) {
			g.asked = append(g.asked, label)
			if len(g.typed) == 0 {
				return nil, errNoTerminal
			}
			p := g.typed[0]
			g.typed = g.typed[1:]
			return []byte(p), nil
		},
	}
	if g.log != nil {
		a.openLog = func(string, *audit.DirOptions) (*audit.Log, error) { return audit.NewLog(g.log, nil), nil }
	}
	status := run(context.Background(), args, a)
	g.stderr = stderr.String()
	return status, out.String()
}

// ok is run for a command that must succeed.
func (g *rig) ok(args ...string) string {
	g.t.Helper()
	status, out := g.run(args...)
	require.Equal(g.t, exitOK, status, "%v: %s%s", args, out, g.stderr)
	return out
}

// fails is run for a command that must end with a status, and with an error that
// has text in it.
func (g *rig) fails(status int, text string, args ...string) string {
	g.t.Helper()
	got, out := g.run(args...)
	require.Equal(g.t, status, got, "%v: %s%s", args, out, g.stderr)
	require.Contains(g.t, out+g.stderr, text, "%v", args)
	return out
}

// object is ok for --json; the result is one object.
func (g *rig) object(args ...string) map[string]any {
	g.t.Helper()
	out := g.ok(append(args, "--json")...)
	var v map[string]any
	require.NoError(g.t, json.Unmarshal([]byte(out), &v), out)
	return v
}

// list is ok for --json; the result is a list.
func (g *rig) list(args ...string) []any {
	g.t.Helper()
	out := g.ok(append(args, "--json")...)
	var v []any
	require.NoError(g.t, json.Unmarshal([]byte(out), &v), out)
	return v
}

// file writes a file and returns its path.
func (g *rig) file(name, content string) string {
	g.t.Helper()
	require.NoError(g.t, os.WriteFile(g.path(name), []byte(content), 0o600))
	return g.path(name)
}

// store makes a store on customer with n blocks, as the identity "store".
func (g *rig) store(name string, n int, more ...string) string {
	g.t.Helper()
	dir := g.path(name)
	g.ok(append([]string{"store", "init", dir, "--key", "customer", "--identity", "store"}, more...)...)
	for i := range n {
		g.stdin = "record " + string(rune('a'+i))
		g.ok("store", "put", dir, string(rune('a'+i)), "--identity", "store")
	}
	return dir
}

func TestStoreServes(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 3)
	require.Equal(t, "record b", g.ok("store", "get", dir, "b"))
	require.Equal(t, "a  8\nb  8\nc  8\n", g.ok("store", "blocks", dir))
	require.Equal(t, "b  8\n", g.ok("store", "blocks", dir, "--start", "b", "--end", "c"))
	require.Len(t, g.list("store", "blocks", dir, "--hex"), 3)
	g.ok("store", "get", dir, "61", "--hex", "--out", g.path("a"))
	b, err := os.ReadFile(g.path("a"))
	require.NoError(t, err)
	require.Equal(t, "record a", string(b))
	g.fails(exitFailure, "file exists", "store", "get", dir, "b", "--out", g.path("a"))
	g.ok("store", "put", dir, "b", g.file("new", "another"))
	require.Equal(t, "another", g.ok("store", "get", dir, "b"))
	g.ok("store", "delete", dir, "a", "never there")
	g.fails(exitFailure, "block not found", "store", "get", dir, "a")
	v := g.object("store", "verify", dir)
	require.Equal(t, true, v["ok"])
	require.EqualValues(t, 2, v["blocks"])

	g.fails(exitFailure, "already", "store", "init", dir, "--key", "customer")
	g.fails(exitRefused, "key not found", "store", "init", g.path("other"), "--key", "nobody")
	require.NoDirExists(t, g.path("other"))
	require.Equal(t, dir+"\n", g.ok("vault", "stores"))
}

func TestStoreExpectations(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	st := g.object("store", "state", dir)
	require.Equal(t, "Available", st["status"])
	require.Len(t, st["fingerprint"], 64)
	g.ok("store", "get", dir, "a", "--expect-fingerprint", st["fingerprint"].(string), "--expect-generation", "1")
	g.fails(exitVerification, "not the expected keyring", "store", "get", dir, "a", "--expect-fingerprint", strings.Repeat("0", 64))
	g.fails(exitVerification, "not the expected keyring", "store", "get", dir, "a", "--expect-generation", "1000")
}

// Every way in which access goes shows in the exit status and in the state's cause,
// and goes away again.
func TestAccessGoesAndComes(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 1)
	for _, c := range []struct {
		cause      string
		take, give []string
	}{
		{"key disabled", []string{"key", "disable", "customer", "--force"}, []string{"key", "enable", "customer"}},
		{"key expired", []string{"key", "expire", "customer", "--force"}, []string{"key", "expire", "customer", "--at", "never"}},
		{"key deleted", []string{"key", "delete", "customer", "--force"}, []string{"key", "recover", "customer"}},
		{"access denied", []string{"grant", "remove", "store"}, []string{"grant", "add", "store", "get", "wrapKey", "unwrapKey"}},
		{"access denied", []string{"grant", "remove", "store", "unwrapKey"}, []string{"grant", "add", "store", "unwrapKey"}},
	} {
		t.Run(strings.Join(c.take, " "), func(t *testing.T) {
			g.t = t
			g.ok(c.take...)
			g.fails(exitRefused, c.cause, "store", "get", dir, "a", "--identity", "store")
			require.NotContains(t, g.stderr, "record a")
			g.fails(exitRefused, c.cause, "store", "put", dir, "a", "--identity", "store")
			g.fails(exitRefused, c.cause, "store", "revalidate", dir, "--identity", "store")
			out := g.fails(exitRefused, "Inaccessible", "store", "state", dir, "--identity", "store")
			require.Contains(t, out, c.cause)
			require.Empty(t, g.stderr, "the state has said it")
			require.EqualValues(t, 1, g.object("store", "inspect", dir)["deks"])
			g.ok(c.give...)
			require.Contains(t, g.ok("store", "revalidate", dir, "--identity", "store"), "Available")
			require.Equal(t, "record a", g.ok("store", "get", dir, "a", "--identity", "store"))
		})
	}
}

func TestInspectNeedsNothing(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 3, "--wrapping", "kek")
	g.ok("store", "checkpoint", dir, g.path("copy"))
	kek := g.object("store", "state", dir)["kek"].(string)
	require.NoError(t, os.RemoveAll(g.path("vault")))
	g.env = nil
	in := g.object("store", "inspect", dir)
	require.EqualValues(t, 3, in["deks"])
	require.Equal(t, kek, in["kek"])
	require.Equal(t, []any{map[string]any{"epoch": 1.0, "deks": 3.0}}, in["epochs"])
	require.Equal(t, []any{kek}, in["pastKEKs"])
	use := in["keys"].([]any)[0].(map[string]any)
	require.EqualValues(t, 3, use["records"])
	require.Equal(t, true, use["document"])
	require.Len(t, use["copies"], 1)
	require.Contains(t, g.ok("store", "inspect", dir), "the keyring, 3 DEK records, the copy "+g.path("copy"))
	require.Contains(t, g.ok("store", "usage", dir), "the keyring, 3 DEK records")
	require.Equal(t, in["instance"], g.object("store", "inspect", g.path("copy"))["copyOf"])
	g.fails(exitFailure, "not a blockseal store", "store", "inspect", g.dir)
	g.fails(exitUsage, "which vault?", "store", "state", dir)
}

// Damage is found and named, and a damaged vault is no denial.
func TestDamage(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	dir := g.store("s", 3)
	lock, err := pebble.LockDir(dir, vfs.Default, false)
	require.NoError(t, err)
	db, err := pebble.Open(dir, lock, pebble.Options{})
	require.NoError(t, err)
	key := []byte("\x03\x00\x00\x00\x00b")
	value, closer, err := db.Get(key)
	require.NoError(t, err)
	value = bytes.Clone(value)
	value[len(value)-1] ^= 1
	batch := db.NewBatch()
	require.NoError(t, batch.Set(key, value))
	require.NoError(t, db.Commit(batch, true))
	require.NoError(t, errors.Join(batch.Close(), closer.Close(), db.Close(), unclose.Store(vfs.Default, dir), lock.Close()))

	out := g.fails(exitVerification, "corrupt", "store", "verify", dir, "--json")
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &v), out)
	require.Equal(t, false, v["ok"])
	require.EqualValues(t, 2, v["blocks"])
	require.Equal(t, `"b"`, v["problems"].([]any)[0].(map[string]any)["id"])
	g.fails(exitVerification, "corrupt", "store", "get", dir, "b")
	require.Equal(t, "record a", g.ok("store", "get", dir, "a"))

	var file string
	entries, err := os.ReadDir(g.path("vault"))
	require.NoError(t, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Size() > 0 {
			file = filepath.Join(g.path("vault"), e.Name())
		}
	}
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(file, b, 0o600))
	g.fails(exitVerification, "damaged", "vault", "info")
	g.fails(exitVerification, "damaged", "store", "state", dir)
}
