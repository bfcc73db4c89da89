package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// azureRig is a Key Vault, as two people see it: the officer, who administers keys, and
// who runs the store.
type azureRig struct {
	*keyvaulttest.Server
	officer, store *rig
}

func newAzureRig(t *testing.T, o *keyvaulttest.Options) *azureRig {
	s, err := keyvaulttest.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	a := &azureRig{Server: s}
	dir := t.TempDir()
	as := func(name string, ops ...local.Permission) *rig {
		_, err := s.AddIdentity(name, ops...)
		require.NoError(t, err)
		return &rig{t: t, dir: dir, env: map[string]string{"BLOCKSEAL_VAULT": s.URL() + "/", "BLOCKSEAL_STATE": filepath.Join(dir, "state")},
			connect: func(string) (azcore.TokenCredential, *azure.Options, error) {
				o := &azure.Options{}
				o.ClientOptions.Transport = s.Client()
				o.ClientOptions.Retry = policy.RetryOptions{MaxRetries: -1}
				o.ClientOptions.DisableChallengeResourceVerification = true
				return s.Credential(name), o, nil
			}}
	}
	a.officer = as("officer", append(local.ControlPlane(), vault.OpGet)...)
	a.store = as("store", local.DataPlane()...)
	return a
}

// A store's life on a Key Vault, through the tool alone: made, written, rotated, the key
// taken away and given back, blocks erased, the key deleted, recovered and purged.
func TestAStoresLifeOnAKeyVault(t *testing.T) {
	t.Parallel()
	a := newAzureRig(t, &keyvaulttest.Options{PageSize: 2})
	officer, store := a.officer, a.store
	log := officer.path("audit")
	officer.env["BLOCKSEAL_AUDIT"], store.env["BLOCKSEAL_AUDIT"] = log, log

	first := officer.object("key", "import", "customer", importable+"rsa2048.pem")
	v1 := first["version"].(string)
	require.Equal(t, a.URL()+"/keys/customer/"+v1, first["id"])
	require.Equal(t, "usable", first["state"])
	require.Len(t, first["fingerprint"], 64)
	store.fails(exitRefused, "access denied", "key", "rotate", "customer")
	store.fails(exitFailure, "purge protection", "key", "preflight", "customer")
	require.Contains(t, store.ok("key", "preflight", "customer", "--allow-purge"), "pass")

	dir := store.path("s")
	store.ok("store", "init", dir, "--key", "customer")
	require.Equal(t, dir+"\n", store.ok("vault", "stores"))
	for _, id := range []string{"a", "b", "c"} {
		store.stdin = "record " + id
		store.ok("store", "put", dir, id)
	}
	require.Equal(t, "record b", store.ok("store", "get", dir, "b"))
	require.Equal(t, "a  8\nb  8\nc  8\n", store.ok("store", "blocks", dir))
	require.EqualValues(t, 3, store.object("store", "verify", dir)["blocks"])

	// Rotation: the old version is needed until the store has moved.
	v2 := officer.object("key", "rotate", "customer")["version"].(string)
	require.NotEqual(t, v1, v2)
	officer.fails(exitRefused, "needs version "+v1+": the keyring", "key", "disable", "customer/"+v1)
	moved := store.object("store", "rotate", "kek", dir)
	require.Equal(t, a.URL()+"/keys/customer/"+v2, moved["to"])
	officer.ok("key", "disable", "customer/"+v1)
	show := officer.object("key", "show", "customer")["versions"].([]any)
	require.Len(t, show, 2)
	require.Equal(t, "disabled", show[0].(map[string]any)["state"])
	require.Equal(t, v2, show[1].(map[string]any)["version"], "the current one last")
	require.Equal(t, first["fingerprint"], show[0].(map[string]any)["fingerprint"])
	store.ok("store", "verify", dir)

	// Revoked and given back, in each way that an officer has.
	for _, c := range []struct {
		cause      string
		take, give []string
	}{
		{"key disabled", []string{"key", "disable", "customer", "--force"}, []string{"key", "enable", "customer"}},
		{"key expired", []string{"key", "expire", "customer", "--force"}, []string{"key", "expire", "customer", "--at", "never"}},
		{"key not found", []string{"key", "delete", "customer", "--force"}, []string{"key", "recover", "customer"}},
	} {
		officer.fails(exitRefused, "in use", c.take[:3]...)
		officer.ok(c.take...)
		require.Contains(t, officer.stderr, "forced: store "+dir+" needs version "+v2)
		store.fails(exitRefused, c.cause, "store", "get", dir, "b")
		require.Contains(t, store.fails(exitRefused, "Inaccessible", "store", "state", dir), c.cause)
		officer.ok(c.give...)
		require.Contains(t, store.ok("store", "revalidate", dir), "Available")
	}
	require.NoError(t, a.Vault().Revoke(t.Context(), "store", vault.OpUnwrapKey))
	store.fails(exitRefused, "has no role that permits it", "store", "get", dir, "b")
	require.NoError(t, a.Vault().Grant(t.Context(), "store", vault.OpUnwrapKey))

	// Erasure, and the key that was before.
	store.ok("store", "delete", dir, "a")
	store.ok("store", "erase", dir, "--receipt", store.path("receipt"))
	store.fails(exitFailure, "block not found", "store", "get", dir, "a")
	officer.ok("key", "backup", "customer", "--out", officer.path("backup"))
	officer.ok("key", "create", "next")
	store.ok("store", "rotate", "change-kek", dir, "--to-key", "next")
	require.NotContains(t, store.ok("store", "usage", dir), "customer")
	officer.ok("key", "delete", "customer")
	require.Contains(t, officer.ok("key", "list", "--deleted"), "customer  -  ")
	officer.fails(exitRefused, "key deleted", "key", "create", "customer")
	officer.ok("key", "purge", "customer")
	require.Equal(t, "record b", store.ok("store", "get", dir, "b"))
	require.Equal(t, v2, officer.object("key", "restore", officer.path("backup"))["version"])
	officer.fails(exitRefused, "key exists", "key", "create", "customer")
	officer.fails(exitRefused, "key exists", "key", "restore", officer.path("backup"))

	list := officer.list("key", "list")
	require.Len(t, list, 2)
	require.EqualValues(t, 2, list[0].(map[string]any)["versions"])
	require.Equal(t, v2, list[0].(map[string]any)["current"].(map[string]any)["version"])

	shown := officer.ok("audit", "show", log)
	require.Contains(t, shown, signedIn)
	require.Contains(t, shown, "purge")
	require.Contains(t, shown, "request ")
	officer.ok("audit", "verify", log)
}

// What a Key Vault has not is said in one sentence, which says what there is instead, and
// nothing is asked of it.
func TestWhatAKeyVaultHasNot(t *testing.T) {
	t.Parallel()
	a := newAzureRig(t, nil)
	g := a.officer
	g.ok("key", "create", "customer")
	for _, c := range []struct {
		says string
		args []string
	}{
		{"is a Key Vault: it is made with az keyvault create", []string{"vault", "init"}},
		{"is a Key Vault: az keyvault show has its properties", []string{"vault", "info"}},
		{"is a Key Vault: it has no passphrase", []string{"vault", "passphrase"}},
		{"is a Key Vault: az keyvault update --enable-purge-protection", []string{"vault", "purge-protection"}},
		{"is a Key Vault: it has no backup secret", []string{"vault", "backup-secret", "--out", g.path("x")}},
		{"is a Key Vault: it has no backup secret", []string{"vault", "escrow", "--out", g.path("x")}},
		{"is a Key Vault: it does by itself what is due", []string{"vault", "maintain"}},
		{"is a Key Vault: it has no grants", []string{"grant", "list"}},
		{"is a Key Vault: it has no grants", []string{"grant", "add", "store", "data"}},
		{"is a Key Vault: it has no grants", []string{"grant", "remove", "store"}},
		{"--identity is for file vaults", []string{"key", "list", "--identity", "store"}},
		{"--passphrase-file is for file vaults", []string{"key", "list", "--passphrase-file", g.path("x")}},
		{"--notify-before cannot be negative", []string{"key", "policy", "customer", "--notify-before=-1h"}},
		{"is not the URL of a Key Vault", []string{"vault", "stores", "--vault", "https://"}},
	} {
		status, out := g.run(c.args...)
		require.Equal(t, exitUsage, status, "%v: %s%s", c.args, out, g.stderr)
		require.Contains(t, g.stderr, c.says, "%v", c.args)
		require.NoFileExists(t, g.path("x"))
	}
	file := newRig(t)
	file.fails(exitUsage, "preflight is for Key Vaults", "key", "preflight", "customer")
	file.fails(exitUsage, "a file vault has no HSM", "key", "create", "next", "--hsm")
}

// What is asked of a key beyond its making goes over as it was given.
func TestAKeyVaultsKeys(t *testing.T) {
	t.Parallel()
	a := newAzureRig(t, nil)
	g := a.officer
	g.ok("key", "create", "customer", "--rotate-after", "90d", "--expires-after", "365d", "--expires", "2090-01-31", "--disabled")
	k := g.list("key", "list")[0].(map[string]any)
	require.Equal(t, map[string]any{"rotateAfter": "90d", "expiresAfter": "365d", "notifyBefore": "30d"}, k["policy"])
	require.Equal(t, "disabled", k["current"].(map[string]any)["state"])
	require.Equal(t, "2090-01-31T00:00:00Z", k["current"].(map[string]any)["expires"])
	require.Contains(t, g.ok("key", "policy", "customer", "--rotate-after", "30d"), "after 30d")
	require.Contains(t, g.ok("key", "policy", "customer", "--clear"), "by hand")
	g.fails(exitUsage, "want whole days", "key", "policy", "customer", "--rotate-after", "36h")
	g.fails(exitRefused, "unsupported key", "key", "import", "weak", importable+"rsa1024.pem")
	g.fails(exitRefused, "vault: import "+a.URL()+"/keys/other: ", "key", "import", "other", importable+"modern.pfx", "--password-file", g.file("password", "not it"))

	pem := g.ok("key", "public", "customer")
	require.Contains(t, pem, "BEGIN PUBLIC KEY")
	g.ok("key", "create", "transfer", "--import-only")
	require.Equal(t, []any{"get", "import"}, g.object("key", "show", "transfer")["versions"].([]any)[0].(map[string]any)["operations"])
	g.fails(exitRefused, "key not found", "key", "show", "nobody")
	g.fails(exitRefused, "key not found", "key", "rotate", "nobody")
	g.fails(exitUsage, "is a key of another vault than "+a.URL(), "key", "show", "https://other.vault.azure.net/keys/customer")

	// The list of a policy that could not be set says that the key was made.
	a.Inject(keyvaulttest.Fault{Op: "setrotationpolicy", Times: 1, Status: 403, Code: "Forbidden", Inner: "ForbiddenByRbac"})
	g.fails(exitRefused, "was made, and the key's rotation policy was not set; try key policy", "key", "create", "half", "--rotate-after", "90d")
	g.ok("key", "show", "half")

	// A vault that does not answer is no refusal.
	a.Unreachable()
	g.fails(exitBusy, "cannot be reached", "key", "list")
	a.Reachable()
	g.ok("key", "list")
}

// In a managed HSM every key is the HSM's; in another vault, with --hsm.
func TestKeysInAnHSM(t *testing.T) {
	t.Parallel()
	// What is asked for is seen in what the vault is sent: the file vault beneath has no HSM.
	kty := func(o *keyvaulttest.Options, args ...string) (kind string) {
		a := newAzureRig(t, o)
		a.Inject(keyvaulttest.Fault{Op: "create", Mutate: func(b map[string]any) { kind = b["key"].(map[string]any)["kty"].(string) }})
		a.officer.ok(append([]string{"key", "create", "customer"}, args...)...)
		return kind
	}
	require.Equal(t, "RSA", kty(nil))
	require.Equal(t, "RSA-HSM", kty(nil, "--hsm"))
	require.Equal(t, "RSA-HSM", kty(nil, "--import-only"), "no other key takes a .byok file")
	require.Equal(t, "RSA-HSM", kty(&keyvaulttest.Options{URL: "https://contoso.managedhsm.azure.net", Audience: "https://managedhsm.azure.net"}))
}

// The stores of two vaults are two lists, and a list that is nowhere is not guessed.
func TestStoresOfKeyVaults(t *testing.T) {
	t.Parallel()
	a, b := newAzureRig(t, nil), newAzureRig(t, nil)
	b.store.env["BLOCKSEAL_STATE"] = a.store.env["BLOCKSEAL_STATE"]
	a.officer.ok("key", "import", "customer", importable+"rsa2048.pem")
	dir := a.store.path("s")
	a.store.ok("store", "init", dir, "--key", "customer")
	require.Equal(t, dir+"\n", a.officer.ok("vault", "stores"))
	require.Empty(t, b.store.ok("vault", "stores"))
	b.store.fails(exitFailure, "no known store", "vault", "forget-store", dir)
	info, err := os.Stat(a.store.env["BLOCKSEAL_STATE"])
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	// A store of one vault is not opened with the other's keys.
	b.officer.ok("key", "import", "customer", importable+"rsa2048.pem")
	b.store.fails(exitRefused, a.URL()+"/keys/customer", "store", "get", dir, "a")
	a.officer.ok("vault", "forget-store", dir)
	a.officer.ok("key", "delete", "customer")
}

// A store moves from a file vault to a Key Vault and back.
func TestAStoreMovesBetweenVaults(t *testing.T) {
	t.Parallel()
	a := newAzureRig(t, nil)
	a.officer.ok("key", "import", "customer", importable+"rsa2048.pem")
	file := newRig(t)
	file.connect, file.env["BLOCKSEAL_STATE"] = a.store.connect, a.store.env["BLOCKSEAL_STATE"]
	dir := file.store("s", 2)
	file.ok("store", "rotate", "change-kek", dir, "--identity", "store", "--to-vault", a.URL(), "--to-key", "customer")
	require.Equal(t, dir+"\n", a.officer.ok("vault", "stores"), "the Key Vault's list has it")
	a.officer.fails(exitRefused, "in use", "key", "disable", "customer")
	require.Equal(t, "record a", a.store.ok("store", "get", dir, "a"))
	a.store.env["BLOCKSEAL_TO_PASSPHRASE"] = file.env["BLOCKSEAL_PASSPHRASE"]
	a.store.ok("store", "rotate", "change-kek", dir, "--to-vault", file.path("vault"), "--to-key", "customer")
	require.Equal(t, "record b", file.ok("store", "get", dir, "b"))
}

// BLOCKSEAL_TEST_VAULT turns off what a client checks of Azure, and of loopback alone.
func TestTestVaultsAreOnLoopback(t *testing.T) {
	t.Parallel()
	g := emptyRig(t)
	g.env = map[string]string{"BLOCKSEAL_STATE": g.path("state"), "BLOCKSEAL_TEST_VAULT": "1", "BLOCKSEAL_VAULT": "https://contoso.vault.azure.net"}
	g.fails(exitUsage, "is for a vault on loopback", "key", "list")
	var out bytes.Buffer
	a := &app{err: &out, getenv: func(string) string { return "" }}
	_, opts, err := a.signIn("https://contoso.vault.azure.net")
	require.NoError(t, err)
	require.False(t, opts.ClientOptions.DisableChallengeResourceVerification)
}
