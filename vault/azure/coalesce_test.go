package azure_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
)

// Identical calls that are made together are one request, and each caller has an answer
// of its own.
func TestIdenticalCallsAreOneRequest(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		v, ctx := r.client(), t.Context()
		w, err := v.WrapKey(ctx, r.key, []byte("secret"))
		require.NoError(t, err)
		other, err := v.WrapKey(ctx, r.key, []byte("secret"))
		require.NoError(t, err)
		r.Inject(keyvaulttest.Fault{Delay: 300 * time.Millisecond})
		gets, unwraps := r.Requests("get"), r.Requests("unwrapKey")
		var mu sync.Mutex
		var keys []vault.Key
		var secrets [][]byte
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				secret, err := v.UnwrapKey(ctx, w)
				if err != nil || string(secret) != "secret" {
					t.Errorf("%q, %v", secret, err)
				}
				clear(secret) // everybody's own
				mu.Lock()
				defer mu.Unlock()
				secrets = append(secrets, secret)
			})
			wg.Go(func() {
				key, err := v.GetKey(ctx, r.key)
				if err != nil || !key.Permits(vault.OpWrapKey) {
					t.Errorf("%v, %v", key.Operations, err)
				}
				clear(key.Operations)
				key.Public.N.SetInt64(0)
				mu.Lock()
				defer mu.Unlock()
				keys = append(keys, key)
			})
		}
		wg.Go(func() {
			if _, err := v.UnwrapKey(ctx, other); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		require.Len(t, secrets, 64)
		require.Len(t, keys, 64)
		require.Equal(t, 1, r.Requests("get")-gets)
		require.Equal(t, 2, r.Requests("unwrapKey")-unwraps, "the other ciphertext is another question")
	})
}

// An answer is at most a second older than the question, and what has been answered is
// asked anew.
func TestAnAnswerIsNotOld(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		v, ctx := r.client(), t.Context()
		_, err := v.GetKey(ctx, r.key)
		require.NoError(t, err)
		remove := r.Inject(keyvaulttest.Fault{Delay: 3 * time.Second})
		before := r.Requests("get")
		var wg sync.WaitGroup
		get := func() {
			if _, err := v.GetKey(ctx, r.key); err != nil {
				t.Error(err)
			}
		}
		wg.Go(get)
		time.Sleep(time.Second)
		wg.Go(get) // joins
		time.Sleep(time.Millisecond)
		wg.Go(get) // does not
		synctest.Wait()
		require.Equal(t, 2, r.Requests("get")-before)
		wg.Wait()
		remove()
		get()
		require.Equal(t, 3, r.Requests("get")-before)
	})
}

// Who gives up does not take the others' answer away, and when all have given up the
// request ends.
func TestGivingUpTogether(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		v, ctx := r.client(), t.Context()
		w, err := v.WrapKey(ctx, r.key, []byte("secret"))
		require.NoError(t, err)
		remove := r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Hang: true})
		before := r.Requests("unwrapKey")
		call := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() { done <- second(v.UnwrapKey(ctx, w)) }()
			synctest.Wait()
			return done
		}
		first, cancel := context.WithCancel(ctx)
		gone := call(first)
		stays := call(ctx)
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		remove()
		require.NoError(t, <-stays, "the one that asked has gone, and the one that joined has its answer")
		require.Equal(t, 1, r.Requests("unwrapKey")-before)

		r.Inject(keyvaulttest.Fault{Op: "unwrapKey", Hang: true, Times: 1})
		both, cancel := context.WithCancel(ctx)
		one, two := call(both), call(both)
		cancel()
		require.ErrorIs(t, <-one, context.Canceled)
		require.ErrorIs(t, <-two, context.Canceled)
		require.NoError(t, second(v.UnwrapKey(ctx, w)), "and nothing is left to join")
		require.Equal(t, 3, r.Requests("unwrapKey")-before)
	})
}

// A call that keeps access alive does not wait for one that does not, which may be far
// behind in the queue.
func TestCallsThatGoFirstHaveTheirOwnRequest(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		v, ctx := r.client(), t.Context()
		_, err := v.GetKey(ctx, r.key)
		require.NoError(t, err)
		r.Inject(keyvaulttest.Fault{Delay: 100 * time.Millisecond})
		before := r.Requests("get")
		var wg sync.WaitGroup
		for _, ctx := range []context.Context{ctx, ctx, vault.WithPriority(ctx), vault.WithPriority(ctx)} {
			wg.Go(func() {
				if _, err := v.GetKey(ctx, r.key); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 2, r.Requests("get")-before)
	})
}
