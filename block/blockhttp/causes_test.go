package blockhttp

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Every cause has words of its own, something to do, and a section that docs/operations.md has.
func TestEveryCauseHasAdvice(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, a := range causes() {
		t.Run(a.cause.Error(), func(t *testing.T) {
			// As it comes, beneath others.
			cause := fmt.Errorf("keyring: %w", a.cause)
			got := headline(keyring.State{Status: keyring.Inaccessible, Cause: cause, LastCheck: now, NextCheck: now}, now)
			require.Equal(t, a, got)
			require.NotEmpty(t, a.says)
			require.NotEmpty(t, a.do)
			require.True(t, strings.Contains(string(manual), "\n## "+a.runbook+"\n") || strings.Contains(string(manual), "\n### "+a.runbook+"\n"), a.runbook)
			require.Contains(t, string(manual), "(#"+anchor(a.runbook)+")", "as the manual itself links to it")

			waiting := headline(keyring.State{Status: keyring.Inaccessible, Cause: cause, LastCheck: now}, now)
			require.Equal(t, a.do+". Then call Revalidate", waiting.do)
		})
	}
}

// So have the states that have no cause.
func TestStatesHaveRunbooks(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, st := range []keyring.State{
		{Status: keyring.Available, AnchorErr: errors.New("no space")},
		{Status: keyring.Available, KEKExpires: now},
		{Status: keyring.Inaccessible},
		{Status: keyring.Inaccessible, NextCheck: now},
		{Status: keyring.Inaccessible, NextCheck: now, LastCheck: now},
	} {
		a := headline(st, now)
		require.Regexp(t, `(?m)^###? `+a.runbook+`$`, string(manual))
		require.Contains(t, string(manual), "(#"+anchor(a.runbook)+")")
	}
}

// A failure that nobody foresaw is told as one.
func TestHeadlineOfAnUnknownCause(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	st := keyring.State{Status: keyring.Degraded, Cause: errors.New("disk on fire"), LastCheck: now, NextCheck: now, LeaseEnd: now.Add(time.Minute)}
	require.Equal(t, advice{kind: "other", says: "the last check did not succeed",
		do: "The store serves until 12:01:00 UTC. Read the cause below", runbook: "States"}, headline(st, now))
	st = keyring.State{Status: keyring.Inaccessible, Cause: errors.New("nobody was asked"), NextCheck: now}
	require.Equal(t, "unchecked", headline(st, now).kind)
}

// Where several causes match, the one that can be acted on is told.
func TestWhichCauseIsTold(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause error
		kind  string
	}{
		{"a lease that ended without an answer", errors.Join(keyring.ErrLeaseEnded, vault.ErrUnavailable), "lease_ended"},
		{"another KEK, which is not there", errors.Join(vault.ErrKeyNotFound, keyring.ErrWrongKEK), "wrong_kek"},
		{"a refusal on the way to the document", errors.Join(keyring.ErrCorrupt, vault.ErrBadCiphertext), "bad_ciphertext"},
		{"a refusal that a failure carries", errors.Join(vault.ErrUnavailable, vault.ErrAccessDenied), "access_denied"},
		{"something else", errors.New("disk on fire"), ""},
		{"nothing", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.kind, adviceOn(c.cause).kind) })
	}
}

// Ids are cut, and everything else stays, in whatever alphabet.
func TestShortened(t *testing.T) {
	const id = "56aa91758df31e34b61610ae4bbedd73"
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"nothing to cut: über 4096 bytes, deadbeef", "nothing to cut: über 4096 bytes, deadbeef"},
		{id, "56aa9175…"},
		{"vault: get https://v/keys/orders/" + id + ": no", "vault: get orders/56aa9175…: no"},
		{"vault: get https://v/keys/orders: no", "vault: get orders: no"},
		{"https://w/keys/orders/" + id, "https://w/keys/orders/56aa9175…"},
		{"7:" + id + id + " ÿ", "7:56aa9175… ÿ"},
		{"request 4b6a5f0d-6a8e-4f0c-9d52-1f6a2c1d7e90", "request 4b6a5f0d-6a8e-4f0c-9d52-1f6a2c1d7e90"},
		{"\xff" + id + "\xff", "\xff56aa9175…\xff"},
	} {
		require.Equal(t, c.want, shortened(c.text, "https://v"), "%q", c.text)
	}
	require.Equal(t, "short", cut("short"))
}
