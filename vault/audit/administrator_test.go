package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

var kekID = vault.KeyID{Vault: "mem:test", Name: "kek"}

func TestAdministratorsOperationIsRecorded(t *testing.T) {
	r := newTrail(t, audit.Options{})
	a := audit.NewAdministrator(audit.NewLog(&r.out, nil), &audit.Options{Identity: "owner", Store: "store-1", Clock: r.clock})
	ctx := audit.WithRequestID(t.Context(), "req-1")
	made := kekID
	made.Version = "2"
	err := a.Do(ctx, audit.Action{Operation: "rotate", Key: kekID, Detail: "by hand"}, func(ctx context.Context) (vault.KeyID, error) {
		r.clock.Advance(250 * time.Millisecond)
		r.clock.Step(-time.Hour)
		audit.NoteRequestID(ctx, "b1f0")
		return made, nil
	})
	require.NoError(t, err)
	want := audit.Record{
		Time: start, Event: audit.EventOperation, Identity: "owner", Store: "store-1", Operation: "rotate", Key: "mem:test/keys/kek", Version: "2",
		Outcome: audit.OutcomeOK, Detail: "by hand", Duration: 250 * time.Millisecond, RequestID: "req-1", VaultRequestID: "b1f0",
	}
	require.Equal(t, want, r.last(), "when it began, how long it took, and the version that it made")

	vaultAlone := vault.KeyID{Vault: "mem:test"}
	err = a.Do(audit.WithIdentity(t.Context(), "somebody"), audit.Action{Operation: "grant", Key: vaultAlone, Detail: "ingest: get"},
		func(context.Context) (vault.KeyID, error) { return vault.KeyID{}, nil })
	require.NoError(t, err)
	require.Equal(t, "somebody", r.last().Identity)
	require.Equal(t, "mem:test/keys/", r.last().Key, "without an answer it is what was asked for")
	require.Equal(t, 2, r.count())
}

// What went wrong is told as a Vault tells it, beside the action's own detail.
func TestAdministratorsFailures(t *testing.T) {
	invalid := errors.New("invalid argument")
	for _, tt := range []struct {
		err                          error
		outcome                      audit.Outcome
		reason, code, detail, answer string
	}{
		{&vault.Error{Kind: vault.ErrAccessDenied, Code: "Forbidden/AccessDenied", Detail: "no grant for update", RequestID: "b1f0"},
			audit.OutcomeDenied, "access denied", "Forbidden/AccessDenied", "disable; no grant for update", "b1f0"},
		{vault.ErrThrottled, audit.OutcomeUnavailable, "throttled", "", "disable", ""},
		{&vault.Error{Kind: invalid, Detail: "it would expire before it is valid"}, audit.OutcomeFailed, "invalid argument", "", "disable; it would expire before it is valid", ""},
		{errors.New("hunter2"), audit.OutcomeFailed, "not an error of the vault", "", "disable", ""},
		{fmt.Errorf("hunter2: %w", &audit.Refusal{Reason: "key in use", Detail: "store s needs it"}), audit.OutcomeDenied, "key in use", "", "disable; store s needs it", ""},
	} {
		r := newTrail(t, audit.Options{})
		a := audit.NewAdministrator(audit.NewLog(&r.out, nil), nil)
		err := a.Do(t.Context(), audit.Action{Operation: "update", Key: kekID, Detail: "disable"}, func(context.Context) (vault.KeyID, error) { return vault.KeyID{}, tt.err })
		require.Equal(t, tt.err, err, "the error comes through")
		got := r.last()
		require.Equal(t, tt.outcome, got.Outcome)
		require.Equal(t, tt.reason, got.Reason)
		require.Equal(t, tt.code, got.Code)
		require.Equal(t, tt.detail, got.Detail)
		require.Equal(t, tt.answer, got.VaultRequestID)
		require.NotContains(t, r.out.String(), "hunter2", "the text of an error that promises nothing is not recorded")
	}
	require.EqualError(t, &audit.Refusal{Reason: "key in use", Detail: "store s"}, "key in use: store s")
	require.EqualError(t, &audit.Refusal{Reason: "key in use"}, "key in use")
}

func TestAdministratorFailsClosed(t *testing.T) {
	writer := &broken{io.ErrClosedPipe}
	log := audit.NewLog(writer, nil)
	told := 0
	opts := &audit.Options{FailClosed: true, OnError: func(error) { told++ }}
	done := 0
	do := func(opts *audit.Options, err error) error {
		return audit.NewAdministrator(log, opts).Do(t.Context(), audit.Action{Operation: "rotate", Key: kekID},
			func(context.Context) (vault.KeyID, error) { done++; return vault.KeyID{}, err })
	}

	// The log is found out to be broken when the operation is over.
	err := do(opts, nil)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	require.ErrorIs(t, err, io.ErrClosedPipe)
	require.False(t, vault.Transient(err), "it was done: nobody must try again without looking")
	require.ErrorContains(t, err, "rotate of mem:test/keys/kek was done, and could not be recorded")
	require.Equal(t, 1, done)
	require.Equal(t, 1, told)

	// From then on it is known before.
	err = do(opts, nil)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	require.True(t, vault.Transient(err), "it can be tried again")
	require.ErrorContains(t, err, "was not begun")
	require.Equal(t, 1, done)
	require.Equal(t, 2, told)

	// Without FailClosed it goes on.
	require.NoError(t, do(&audit.Options{OnError: func(error) { told++ }}, nil))
	require.Equal(t, 2, done)
	require.Equal(t, 3, told)

	// A log that can be written again takes what waited, and operations.
	writer.err = nil
	require.NoError(t, do(opts, nil))
	require.Equal(t, 3, done)
	require.Equal(t, audit.Stats{Head: log.Head()}, log.Stats())
	require.Equal(t, uint64(3), log.Head().Seq)

	// What the vault said is heard, recorded or not.
	writer.err = io.ErrClosedPipe
	err = do(opts, vault.ErrKeyDeleted)
	require.True(t, vault.Denied(err))
	require.ErrorIs(t, err, audit.ErrNotRecorded)

	require.ErrorIs(t, log.Close(), io.ErrClosedPipe)
	writer.err = nil
	err = do(opts, nil)
	require.ErrorIs(t, err, audit.ErrClosed)
	require.ErrorContains(t, err, "was not begun")
	require.Equal(t, 4, done)
}

func TestFlush(t *testing.T) {
	writer := &broken{}
	log := audit.NewLog(writer, nil)
	require.NoError(t, log.Flush(t.Context()))
	writer.err = io.ErrClosedPipe
	require.Error(t, log.Record(t.Context(), audit.Record{Event: audit.EventState}))
	require.ErrorIs(t, log.Flush(t.Context()), io.ErrClosedPipe)
	writer.err = nil
	require.NoError(t, log.Flush(t.Context()))
	require.Equal(t, audit.Stats{Head: log.Head()}, log.Stats())
	require.NoError(t, log.Close())
	require.ErrorIs(t, log.Flush(t.Context()), audit.ErrClosed)
}

// The whole control plane of a file vault, through Do; no secret is in the log.
func TestAdministrationOfAFileVault(t *testing.T) {
	dir, ctx := filepath.Join(t.TempDir(), "v"), t.Context()
	v, err := local.Create(dir, []byte("a passphrase"), &local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 10}})
	require.NoError(t, err)
	defer v.Close()
	var out bytes.Buffer
	a := audit.NewAdministrator(audit.NewLog(&out, nil), &audit.Options{Identity: "owner", FailClosed: true})
	pem, err := os.ReadFile("../../internal/keyfile/testdata/import/rsa2048.pem")
	require.NoError(t, err)
	key, all := vault.KeyID{Vault: v.ID(), Name: "kek"}, vault.KeyID{Vault: v.ID()}
	do := func(op vault.Operation, id vault.KeyID, f func(context.Context) (vault.KeyID, error)) {
		t.Helper()
		require.NoError(t, a.Do(ctx, audit.Action{Operation: op, Key: id}, f))
	}
	do(local.OpImport, key, func(ctx context.Context) (vault.KeyID, error) {
		k, err := v.ImportFile(ctx, "kek", pem, nil, nil)
		return k.ID, err
	})
	do("grant", all, func(ctx context.Context) (vault.KeyID, error) {
		return vault.KeyID{}, v.Grant(ctx, "ingest", vault.OpGet)
	})
	var secret []byte
	do("readBackupSecret", all, func(ctx context.Context) (_ vault.KeyID, err error) {
		secret, err = v.BackupSecret(ctx)
		return vault.KeyID{}, err
	})
	do("changePassphrase", all, func(ctx context.Context) (vault.KeyID, error) {
		return vault.KeyID{}, v.ChangePassphrase(ctx, []byte("another passphrase"), local.KDF{Algorithm: local.PBKDF2, Passes: 10})
	})
	err = a.Do(ctx, audit.Action{Operation: local.OpDelete, Key: key}, func(ctx context.Context) (vault.KeyID, error) {
		_, err := v.Administer("ingest").DeleteKey(ctx, "kek")
		return vault.KeyID{}, err
	})
	require.ErrorIs(t, err, vault.ErrAccessDenied)

	var told []string
	for r, err := range audit.Records(bytes.NewReader(out.Bytes()), nil) {
		require.NoError(t, err)
		told = append(told, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Operation, r.Outcome, r.Reason, r.Detail)))
		require.False(t, r.Time.IsZero())
	}
	require.Equal(t, []string{"import ok", "grant ok", "readBackupSecret ok", "changePassphrase ok",
		`delete denied access denied identity "ingest" has no grant for delete; the vault's owner can make one`}, told)
	for _, s := range []string{string(secret), "a passphrase", "another passphrase"} {
		require.NotContains(t, out.String(), s)
	}
}
