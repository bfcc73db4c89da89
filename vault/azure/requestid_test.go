package azure_test

import (
	"bytes"
	"context"
	"net/http"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/azure"
)

// ids notes the x-ms-request-id of each answer to a request with a token, by operation.
func ids(r *rig) (*sends, func(op string) []string) {
	var mu sync.Mutex
	all := map[string][]string{}
	s := &sends{Client: r.Client()}
	s.change = func(req *http.Request, resp *http.Response) {
		if req.Header.Get("Authorization") == "" {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		op := path.Base(req.URL.Path) // of a get, the version
		all[op] = append(all[op], resp.Header.Get("x-ms-request-id"))
	}
	return s, func(op string) []string {
		mu.Lock()
		defer mu.Unlock()
		return all[op]
	}
}

// The record of an operation has the vault's name for the request, with which it is
// found in the vault's own log, whether the vault agreed or not.
func TestRecordsHaveTheVaultsRequestID(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	ctx := t.Context()
	transport, seen := ids(r)
	var out bytes.Buffer
	log := audit.NewLog(&out, nil)
	v := audit.New(r.client(retries, func(o *azure.Options) { o.ClientOptions.Transport = transport }), log, nil)
	last := func() (last audit.Record) {
		for record, err := range audit.Records(bytes.NewReader(out.Bytes()), nil) {
			require.NoError(t, err)
			last = record
		}
		return last
	}
	newest := func(op string) string { all := seen(op); return all[len(all)-1] }

	_, err := v.GetKey(ctx, r.key)
	require.NoError(t, err)
	require.Equal(t, audit.OutcomeOK, last().Outcome)
	require.NotEmpty(t, last().VaultRequestID)
	require.Equal(t, newest(r.key.Version), last().VaultRequestID)
	w, err := v.WrapKey(ctx, r.key, []byte("secret"))
	require.NoError(t, err)
	require.Equal(t, newest("wrapkey"), last().VaultRequestID)
	r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Times: 1, Status: 503})
	_, err = v.UnwrapKey(ctx, w)
	require.NoError(t, err)
	require.Len(t, seen("unwrapkey"), 2)
	require.Equal(t, newest("unwrapkey"), last().VaultRequestID, "that of the last try")

	r.setEnabled(false)
	_, err = v.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	require.Equal(t, audit.OutcomeDenied, last().Outcome)
	require.Equal(t, newest("unwrapkey"), last().VaultRequestID)

	// That of the wrap, and not of the get that found out why it was refused.
	r.setEnabled(true)
	expire(r)
	_, err = v.WrapKey(ctx, r.key, []byte("secret"))
	require.ErrorIs(t, err, vault.ErrKeyExpired)
	require.Equal(t, newest("wrapkey"), last().VaultRequestID)
}

// Those who joined somebody else's request have its name, too.
func TestWhoJoinsHasTheRequestID(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		transport, seen := ids(r)
		v := r.client(func(o *azure.Options) { o.ClientOptions.Transport = transport })
		_, err := v.GetKey(t.Context(), r.key)
		require.NoError(t, err)
		remove := r.Inject(keyvaulttest.Fault{Delay: time.Second})
		var mu sync.Mutex
		last := map[int]string{}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				ctx := vault.OnRequestID(t.Context(), func(id string) {
					mu.Lock()
					defer mu.Unlock()
					last[i] = id
				})
				if _, err := v.GetKey(ctx, r.key); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		remove()
		all := seen(r.key.Version)
		require.Len(t, all, 2)
		require.Len(t, last, 8)
		for i := range last {
			require.Equal(t, all[1], last[i])
		}

		// Who gives up has what there is.
		r.Inject(keyvaulttest.Fault{Times: 1, Status: 503})
		r.Inject(keyvaulttest.Fault{Hang: true})
		v = r.client(patient, func(o *azure.Options) { o.ClientOptions.Transport = transport })
		var noted string
		ctx, cancel := context.WithTimeout(vault.OnRequestID(t.Context(), func(id string) { noted = id }), 5*time.Second)
		defer cancel()
		_, err = v.GetKey(ctx, r.key)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		all = seen(r.key.Version)
		require.Equal(t, all[len(all)-1], noted)
	})
}
