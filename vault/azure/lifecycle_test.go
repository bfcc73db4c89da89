package azure_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// A deletion and a recovery take Key Vault some seconds, in which the administrator's
// client looks every now and then. That a look goes wrong does not undo what was
// accepted.
func TestAdminWaits(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		a, ctx := r.admin(), t.Context()
		looks := func(op string, f func()) int {
			before := r.Requests(op)
			f()
			return r.Requests(op) - before
		}
		once := func(f keyvaulttest.Fault) keyvaulttest.Fault { f.Times = 1; return f }
		trouble := []keyvaulttest.Fault{
			{Status: 503, Code: "ServiceUnavailable"}, {Status: 429, Code: "Throttled", RetryAfter: "3"}, {Cut: true}, {Status: 500, Body: "<html>"},
		}
		r.Inject(keyvaulttest.Fault{Op: "getdeleted", Times: 3, Status: 404, Code: "KeyNotFound"})
		for _, f := range trouble {
			f.Op = "getdeleted"
			r.Inject(once(f))
		}
		require.Equal(t, 4+len(trouble), looks("getdeleted", func() {
			at, err := a.DeleteKey(ctx, "kek")
			require.NoError(t, err)
			require.NotZero(t, at)
		}))
		r.Inject(keyvaulttest.Fault{Op: "recover", Times: 1, Status: 409, Code: "Conflict", Inner: "ObjectIsBeingDeleted"})
		_, err := a.RecoverKey(ctx, "kek")
		require.ErrorIs(t, err, azure.ErrBusy)
		r.Inject(keyvaulttest.Fault{Op: "get", Times: 2, Status: 409, Code: "Conflict", Inner: "ObjectIsBeingRecovered"})
		for _, f := range trouble {
			f.Op = "get"
			r.Inject(once(f))
		}
		require.Equal(t, 3+len(trouble), looks("get", func() {
			key, err := a.RecoverKey(ctx, "kek")
			require.NoError(t, err)
			require.Equal(t, r.key, key.ID)
		}))

		// Who may not look does not wait.
		r.Inject(keyvaulttest.Fault{Op: "getdeleted", Times: 1, Status: 403, Code: "Forbidden", Inner: "ForbiddenByRbac"})
		_, err = a.DeleteKey(ctx, "kek")
		require.NoError(t, err)
		_, err = r.Server.Vault().GetKey(ctx, r.local(r.key))
		require.ErrorIs(t, err, vault.ErrKeyDeleted)
	})
}

// The wait ends, with an error that says that what was asked for goes on.
func TestAdminDoesNotWaitForEver(t *testing.T) {
	for name, f := range map[string]keyvaulttest.Fault{
		"not there": {Status: 404, Code: "KeyNotFound"}, "no answer": {Status: 503, Code: "ServiceUnavailable"}, "a hang": {Hang: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				a := r.admin()
				accepted := func(err error) {
					t.Helper()
					require.ErrorIs(t, err, azure.ErrNotSeen)
					require.False(t, vault.Denied(err), "%v", err)
					require.ErrorContains(t, err, "accepted, and not seen to be done yet: look at the key later")
				}
				f.Op = "getdeleted"
				remove := r.Inject(f)
				start := time.Now()
				at, err := a.DeleteKey(t.Context(), "kek")
				accepted(err)
				require.NotZero(t, at, "it is known when it is purged")
				require.ErrorContains(t, err, "vault: delete "+r.URL()+"/keys/kek: ")
				took := time.Since(start)
				require.GreaterOrEqual(t, took, 2*time.Minute)
				require.LessOrEqual(t, took, 2*time.Minute+azure.DefaultAdminTimeout+2*time.Second)
				remove()
				require.NoError(t, second(a.GetDeleted(t.Context(), "kek")))

				f.Op = "get"
				remove = r.Inject(f)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start = time.Now()
				key, err := a.RecoverKey(ctx, "kek")
				accepted(err)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 5*time.Second, time.Since(start), "the wait ends with its caller")
				require.Equal(t, r.key, key.ID)
				remove()
				require.NoError(t, second(a.GetKey(t.Context(), r.key)))
			})
		})
	}
}

// raw returns what the server says of a path to whoever may do everything.
func (r *rig) raw(path string) (body map[string]any) {
	r.t.Helper()
	_, err := r.AddIdentity("all", local.Permissions()...)
	require.NoError(r.t, err)
	token, err := r.Credential("all").GetToken(r.t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	require.NoError(r.t, err)
	req, err := http.NewRequestWithContext(r.t.Context(), "GET", r.URL()+path+"?api-version="+keyvaulttest.APIVersion, nil)
	require.NoError(r.t, err)
	req.Header.Set("Authorization", "Bearer "+token.Token)
	resp, err := r.Client().Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	require.NoError(r.t, json.Unmarshal(b, &body), string(b))
	return body
}

// What is said of a key besides its dates gets to the vault.
func TestAdminSendsTagsAndPolicies(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	a, ctx := r.admin(), t.Context()
	want := map[string]any{"for": "tests", "of": "vault/azure"}
	tags := map[string]string{"for": "tests", "of": "vault/azure"}
	_, err := a.CreateKey(ctx, "made", &azure.KeyOptions{Tags: tags})
	require.NoError(t, err)
	require.Equal(t, want, r.raw("/keys/made")["tags"])
	_, err = a.ImportFile(ctx, "moved", importable(t, "rsa2048.pem"), nil, &azure.KeyOptions{Tags: tags})
	require.NoError(t, err)
	require.Equal(t, want, r.raw("/keys/moved")["tags"])
	_, err = a.UpdateKey(ctx, vault.KeyID{Name: "made"}, azure.Update{})
	require.NoError(t, err)
	require.Equal(t, want, r.raw("/keys/made")["tags"], "what is not named stays")
	require.Nil(t, r.raw("/keys/kek")["tags"])

	const day = 24 * time.Hour
	require.NoError(t, a.SetRotationPolicy(ctx, "kek", azure.RotationPolicy{RotateBeforeExpiry: 40 * day, ExpiresAfter: 400 * day, NotifyBefore: 60 * day}))
	got := r.raw("/keys/kek/rotationpolicy")
	require.Equal(t, "P400D", got["attributes"].(map[string]any)["expiryTime"])
	require.ElementsMatch(t, []any{
		map[string]any{"action": map[string]any{"type": "Rotate"}, "trigger": map[string]any{"timeBeforeExpiry": "P40D"}},
		map[string]any{"action": map[string]any{"type": "Notify"}, "trigger": map[string]any{"timeBeforeExpiry": "P60D"}},
	}, got["lifetimeActions"])
}
