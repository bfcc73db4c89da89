package local_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// Ids, kinds and errors of events are text, members are named in one style, and of what is
// not set there is no member.
func TestJSONOfEvents(t *testing.T) {
	id := vault.KeyID{Vault: "local:1", Name: "kek", Version: "2"}
	for want, v := range map[string]any{
		`{"kind":"KeyRotated","time":"2026-01-01T12:00:00Z","key":"local:1/keys/kek/2"}`: local.Event{Kind: local.KeyRotated, Time: start, Key: id},
		`{"kind":"KeyNearExpiry","time":"2026-01-01T12:00:00Z","key":"local:1/keys/kek/2","left":3600000000000,"error":"no"}`: local.Event{
			Kind: local.KeyNearExpiry, Time: start, Key: id, Left: time.Hour, Err: errors.New("no")},
		`"argon2id"`: local.Argon2id,
	} {
		got, err := json.Marshal(v)
		require.NoError(t, err)
		require.JSONEq(t, want, string(got))
	}
}
