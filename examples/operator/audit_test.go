package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/audit"
)

// audited is a rig with a store and a log of everything, over several files.
func audited(t *testing.T) (g *rig, dir, log string) {
	g = newRig(t)
	log = g.path("audit")
	g.env["BLOCKSEAL_AUDIT"] = log
	dir = g.path("s")
	small := []string{"--audit-file-size", "2000"}
	for _, args := range [][]string{
		{"store", "init", dir, "--key", "customer", "--identity", "store"},
		{"store", "get", dir, "nothing", "--identity", "store"},
		{"key", "disable", "customer"},
		{"key", "disable", "customer", "--force"},
		{"store", "state", dir, "--identity", "store"},
		{"key", "rotate", "customer", "--identity", "store"},
		{"grant", "remove", "store", "wrapKey"},
	} {
		g.run(append(args, small...)...)
	}
	return g, dir, log
}

func TestAuditTells(t *testing.T) {
	t.Parallel()
	g, dir, log := audited(t)
	files, err := audit.Files(log)
	require.NoError(t, err)
	require.Greater(t, len(files), 2)
	v := g.object("audit", "verify", log)
	require.Equal(t, true, v["ok"])
	require.EqualValues(t, len(files), v["files"])

	show := func(args ...string) (ops []string) {
		for _, r := range g.list(append([]string{"audit", "show", log}, args...)...) {
			m := r.(map[string]any)
			op, _ := m["operation"].(string)
			if op != "" {
				ops = append(ops, op+" "+m["outcome"].(string))
			}
		}
		return ops
	}
	// The store's calls: what its making takes, an open, and one that is enough to see
	// that the key is disabled.
	require.Equal(t, []string{"get ok", "wrapKey ok", "unwrapKey ok", "get ok", "wrapKey ok", "unwrapKey ok", "get ok"}, show("--store", dir))
	require.Equal(t, []string{"update denied", "update ok", "revoke ok"}, show("--by", "vault owner"))
	require.Equal(t, []string{"rotate denied"}, show("--by", "store", "--outcome", "denied"))
	require.Len(t, show("--key", "customer"), 10)
	require.Empty(t, show("--since", "1h"))
	text := g.ok("audit", "show", log, "--by", "vault owner")
	require.Contains(t, text, "store: wrapKey")
	require.Contains(t, text, "in use")
	require.NotContains(t, text, "a test's passphrase")
}

// Each record says which store by its id, which command it belongs to, how long it took,
// and of a refusal all that the vault said.
func TestAuditRecords(t *testing.T) {
	t.Parallel()
	g, dir, log := audited(t)
	records := func(args ...string) (out []map[string]any) {
		for _, r := range g.list(append([]string{"audit", "show", log}, args...)...) {
			if m := r.(map[string]any); m["event"] == "operation" {
				out = append(out, m)
			}
		}
		return out
	}
	id := g.object("store", "inspect", dir)["store"].(string)
	require.Len(t, id, 32)
	require.Len(t, records("--store", id), 4, "the gets and the state; what made it was before it had one")
	require.Len(t, records("--store", dir), 7)
	require.Len(t, records("--store", "s"), 3)
	require.Empty(t, records("--store", "other"))

	requests := map[any]bool{}
	for _, m := range records() {
		require.NotEmpty(t, m["duration"])
		require.Len(t, m["request"], 16)
		requests[m["request"]] = true
	}
	require.Len(t, requests, 7, "one for each command")

	denied := records("--by", "store", "--outcome", "denied")[0]
	require.Equal(t, "access denied", denied["reason"])
	require.Equal(t, "Forbidden/AccessDenied", denied["code"])
	require.Equal(t, `identity "store" has no grant for rotate; the vault's owner can make one`, denied["detail"])
	text := g.ok("audit", "show", log, "--outcome", "denied")
	require.Contains(t, text, "access denied [Forbidden/AccessDenied], identity")
	require.Contains(t, text, "request "+denied["request"].(string))
	require.Contains(t, text, "key in use, disable; store "+dir+" needs version")

	r := audit.Record{Code: "Forbidden", RequestID: "a", VaultRequestID: "b"}
	require.Equal(t, "[Forbidden], request a, the vault's request b", detailOf(r))
	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(b), `"code":"Forbidden","request":"a","vaultRequest":"b"`)
}

// What was done to a log that lies about shows: edits in themselves, a removed end
// against a head that was kept.
func TestAuditVerify(t *testing.T) {
	t.Parallel()
	g, _, log := audited(t)
	g.ok("audit", "verify", log, "--head-file", g.path("head"), "--save-head", g.path("head"))
	g.ok("audit", "verify", log, "--head-file", g.path("head"), "--save-head", g.path("head"))
	b, err := os.ReadFile(g.path("head"))
	require.NoError(t, err)
	kept := strings.TrimSpace(string(b))

	copied := func(name string) []string {
		dir := g.path(name)
		require.NoError(t, os.CopyFS(dir, os.DirFS(log)))
		files, err := audit.Files(dir)
		require.NoError(t, err)
		return files
	}
	edited := copied("edited")
	b, err = os.ReadFile(edited[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(edited[0], bytes.Replace(b, []byte(`"ok"`), []byte(`"OK"`), 1), 0o600))
	out := g.fails(exitVerification, "altered", "audit", "verify", g.path("edited"), "--json", "--save-head", g.path("new head"))
	require.NoFileExists(t, g.path("new head"))
	var v map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &v), out)
	require.Equal(t, false, v["ok"])
	g.fails(exitVerification, "altered", "audit", "show", g.path("edited"))

	missing := copied("missing")
	require.NoError(t, os.Remove(missing[1]))
	g.fails(exitVerification, "altered", "audit", "verify", g.path("missing"))

	cut := copied("cut")
	require.NoError(t, os.Remove(cut[len(cut)-1]))
	g.fails(exitVerification, "altered", "audit", "verify", g.path("cut"), "--head-file", g.path("head"))
	g.fails(exitVerification, "altered", "audit", "show", g.path("cut"), "--head-file", g.path("head"))
	// Whoever cuts it may get at the head as well.
	for _, content := range []string{"", "\n", kept[:len(kept)-1], "no head"} {
		g.fails(exitVerification, "has no head in it", "audit", "verify", g.path("cut"), "--head-file", g.file("emptied", content))
		g.fails(exitVerification, "has no head in it", "audit", "show", g.path("cut"), "--head-file", g.path("emptied"))
	}
	g.fails(exitVerification, "has no head in it", "audit", "verify", g.path("cut"), "--head-file", g.path("emptied"), "--save-head", g.path("emptied"))
	g.fails(exitVerification, "is not there", "audit", "verify", g.path("cut"), "--head-file", g.path("gone"))
	g.fails(exitVerification, "is not there", "audit", "verify", g.path("cut"), "--head-file", g.path("gone"), "--save-head", g.path("other"))
	g.fails(exitVerification, "is not there", "audit", "show", g.path("cut"), "--head-file", g.path("gone"))
	require.NoFileExists(t, g.path("other"))
	g.ok("audit", "verify", log, "--head-file", g.path("gone"), "--save-head", g.dir+"/./gone")
	require.Contains(t, g.stderr, "no head was kept yet")
	g.fails(exitVerification, "altered", "audit", "verify", g.path("cut"), "--head-file", g.path("gone"))
	shorter := g.object("audit", "verify", g.path("cut"))["head"]
	require.NotEqual(t, kept, shorter)
	g.fails(exitVerification, "altered", "audit", "verify", g.path("cut"), "--head", kept)

	torn := copied("torn")
	last := torn[len(torn)-1]
	info, err := os.Stat(last)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(last, info.Size()-5))
	g.fails(exitVerification, "unfinished", "audit", "verify", g.path("torn"))

	// Of a log of another format version nobody knows whether it was altered; it is not verified.
	earlier := copied("earlier")
	for _, path := range earlier {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		var lines []byte
		for line := range bytes.Lines(b) {
			body, _, _ := bytes.Cut(bytes.Replace(line, []byte(`{"v":3`), []byte(`{"v":2`), 1), []byte(`,"hash":`))
			lines = fmt.Appendf(lines, "%s,\"hash\":\"%x\"}\n", body, sha256.Sum256(body))
		}
		require.NoError(t, os.WriteFile(path, lines, 0o600))
	}
	for _, args := range [][]string{{"audit", "verify", g.path("earlier")}, {"audit", "show", g.path("earlier")}, {"key", "list", "--audit", g.path("earlier")}} {
		g.fails(exitVerification, "its format version is 2, this release reads 3", args...)
		require.NotContains(t, g.stderr, "altered")
		require.NotContains(t, g.stderr, errBusy.Error())
	}

	// What was archived away from the front is known by its head.
	archived := copied("archived")
	require.NoError(t, os.Mkdir(g.path("front"), 0o700))
	require.NoError(t, os.Rename(archived[0], filepath.Join(g.path("front"), filepath.Base(archived[0]))))
	g.fails(exitVerification, "altered", "audit", "verify", g.path("archived"))
	front := g.object("audit", "verify", g.path("front"))["head"].(string)
	g.ok("audit", "verify", g.path("archived"), "--after", front, "--head", kept)
}

// A log that cannot be written keeps what would be recorded there from being done.
func TestAuditComesFirst(t *testing.T) {
	t.Parallel()
	g, dir, log := audited(t)
	g.ok("key", "enable", "customer")
	g.ok("grant", "add", "store", "wrapKey")
	open, err := audit.OpenDir(log, nil)
	require.NoError(t, err)
	g.fails(exitBusy, "open", "key", "disable", "customer", "--force")
	g.fails(exitBusy, "open", "store", "get", dir, "a")
	require.NoError(t, open.Close())
	require.Equal(t, "usable", g.list("key", "list")[0].(map[string]any)["current"].(map[string]any)["state"])
	g.env["BLOCKSEAL_AUDIT"] = g.path("no/such/place")
	g.fails(exitFailure, "no such file", "key", "disable", "customer", "--force")
}
