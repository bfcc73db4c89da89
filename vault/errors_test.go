package vault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

func TestErrorText(t *testing.T) {
	id := vault.KeyID{Vault: "https://contoso.vault.azure.net", Name: "kek", Version: "1"}
	for _, tt := range []struct {
		err  vault.Error
		want string
	}{
		{
			vault.Error{Op: vault.OpGet, Key: id, Kind: vault.ErrKeyNotFound},
			"vault: get https://contoso.vault.azure.net/keys/kek/1: key not found",
		},
		{
			vault.Error{Op: vault.OpWrapKey, Key: id.Versionless(), Kind: vault.ErrKeyDisabled, Detail: "enable it", Code: "Forbidden/KeyDisabled"},
			"vault: wrapKey https://contoso.vault.azure.net/keys/kek: key disabled: enable it [Forbidden/KeyDisabled]",
		},
		{
			vault.Error{
				Op: vault.OpUnwrapKey, Key: id, Kind: vault.ErrThrottled, Detail: "too many requests", Code: "Throttled",
				RequestID: "7f", RetryAfter: 1500 * time.Millisecond, Err: io.ErrUnexpectedEOF,
			},
			"vault: unwrapKey https://contoso.vault.azure.net/keys/kek/1: throttled: too many requests (retry after 1.5s) [Throttled] [request 7f]: unexpected EOF",
		},
	} {
		require.EqualError(t, &tt.err, tt.want)
	}
}

func TestErrorIsAndAs(t *testing.T) {
	e := &vault.Error{Op: vault.OpGet, Kind: vault.ErrUnavailable, Err: fmt.Errorf("dial: %w", io.ErrClosedPipe)}
	wrapped := fmt.Errorf("keyring: check: %w", e)
	require.ErrorIs(t, wrapped, vault.ErrUnavailable)
	require.ErrorIs(t, wrapped, io.ErrClosedPipe)
	require.NotErrorIs(t, wrapped, vault.ErrThrottled)
	var got *vault.Error
	require.ErrorAs(t, wrapped, &got)
	require.Same(t, e, got)

	e = &vault.Error{Kind: vault.ErrKeyExpired} // no cause
	require.ErrorIs(t, e, vault.ErrKeyExpired)
	require.NotErrorIs(t, e, io.EOF)
}

func TestDeniedAndTransient(t *testing.T) {
	denials := []error{
		vault.ErrKeyNotFound, vault.ErrKeyDeleted, vault.ErrKeyDisabled, vault.ErrKeyExpired, vault.ErrKeyNotYetValid,
		vault.ErrAccessDenied, vault.ErrWrongTenant, vault.ErrUnsupportedKey, vault.ErrBadCiphertext,
	}
	silences := []error{vault.ErrThrottled, vault.ErrUnavailable}
	// each error must keep its meaning through every kind of wrapping
	wrappings := map[string]func(error) error{
		"bare":        func(err error) error { return err },
		"vault.Error": func(err error) error { return &vault.Error{Kind: err, Err: io.EOF} },
		"fmt":         func(err error) error { return fmt.Errorf("open: %w", err) },
		"joined":      func(err error) error { return errors.Join(io.EOF, err) },
		"deep":        func(err error) error { return fmt.Errorf("a: %w", errors.Join(io.EOF, &vault.Error{Kind: err})) },
	}
	for how, wrap := range wrappings {
		for _, kind := range denials {
			err := wrap(kind)
			require.True(t, vault.Denied(err), "%s %v", how, kind)
			require.False(t, vault.Transient(err), "%s %v", how, kind)
			require.Equal(t, kind, vault.Kind(err), how)
		}
		for _, kind := range silences {
			err := wrap(kind)
			require.False(t, vault.Denied(err), "%s %v", how, kind)
			require.True(t, vault.Transient(err), "%s %v", how, kind)
			require.Equal(t, kind, vault.Kind(err), how)
		}
		for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
			err := wrap(end)
			require.False(t, vault.Denied(err), "%s %v", how, end)
			require.True(t, vault.Transient(err), "%s %v", how, end)
			require.NoError(t, vault.Kind(err), "%s: it has no sentinel here", how)
		}
		err := wrap(io.ErrShortWrite)
		require.False(t, vault.Denied(err), how)
		require.False(t, vault.Transient(err), how)
		require.NoError(t, vault.Kind(err), how)
	}
	require.False(t, vault.Denied(nil))
	require.False(t, vault.Transient(nil))
	require.NoError(t, vault.Kind(nil))
}

func TestDenialWinsOverSilence(t *testing.T) {
	for _, err := range []error{
		errors.Join(vault.ErrUnavailable, vault.ErrKeyDisabled),
		errors.Join(context.DeadlineExceeded, vault.ErrKeyDisabled),
		&vault.Error{Kind: vault.ErrThrottled, Err: vault.ErrKeyDisabled},
		&vault.Error{Kind: vault.ErrKeyDisabled, Err: context.Canceled},
	} {
		require.True(t, vault.Denied(err), err)
		require.False(t, vault.Transient(err), err)
		require.Equal(t, vault.ErrKeyDisabled, vault.Kind(err))
	}
	// Between silences, the one that says when to come back.
	require.Equal(t, vault.ErrThrottled, vault.Kind(errors.Join(vault.ErrUnavailable, vault.ErrThrottled)))
}

func TestRetryAfter(t *testing.T) {
	e := &vault.Error{Kind: vault.ErrThrottled, RetryAfter: 7 * time.Second}
	require.Equal(t, 7*time.Second, vault.RetryAfter(e))
	require.Equal(t, 7*time.Second, vault.RetryAfter(fmt.Errorf("check: %w", e)))
	require.Equal(t, 7*time.Second, vault.RetryAfter(errors.Join(io.EOF, e)))
	require.Zero(t, vault.RetryAfter(vault.ErrThrottled))
	require.Zero(t, vault.RetryAfter(&vault.Error{Kind: vault.ErrThrottled}))
	require.Zero(t, vault.RetryAfter(nil))
}

func TestKeyPermits(t *testing.T) {
	k := vault.Key{Operations: []vault.Operation{vault.OpWrapKey}}
	require.True(t, k.Permits(vault.OpWrapKey))
	require.False(t, k.Permits(vault.OpUnwrapKey))
	require.False(t, vault.Key{}.Permits(vault.OpGet), "a key that lists nothing permits nothing")
}
