package audit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestConforms(t *testing.T) {
	vaulttest.Run(t, func(t *testing.T) vaulttest.Subject {
		v := vaulttest.New(nil)
		id := v.CreateKey("kek")
		return vaulttest.Subject{
			Vault:      audit.New(v, audit.NewLog(io.Discard, nil), &audit.Options{FailClosed: true}),
			Key:        id.Versionless(),
			SetEnabled: v.SetEnabled,
			SetDates:   v.SetDates,
			Rotate:     v.Rotate,
			Delete:     v.Delete,
			Recover:    v.Recover,
			Purge:      v.Purge,
			Revoke:     func(op vault.Operation) { v.Revoke(op) },
			Grant:      func(op vault.Operation) { v.Restore(op) },
		}
	})
}

// trail is a vault that is audited, and what was recorded of it.
type trail struct {
	*testing.T
	clock *vaulttest.Clock
	mem   *vaulttest.Vault
	out   bytes.Buffer
	id    vault.KeyID
	v     *audit.Vault
}

func newTrail(t *testing.T, opts audit.Options) *trail {
	r := &trail{T: t, clock: vaulttest.NewClock(start)}
	r.mem = vaulttest.New(&vaulttest.Options{Clock: r.clock})
	r.id = r.mem.CreateKey("kek")
	opts.Clock = r.clock
	r.v = audit.New(r.mem, audit.NewLog(&r.out, nil), &opts)
	return r
}

// last returns the newest record, after verifying the whole log.
func (r *trail) last() audit.Record {
	r.Helper()
	var last audit.Record
	for record, err := range audit.Records(bytes.NewReader(r.out.Bytes()), nil) {
		require.NoError(r, err)
		last = record
	}
	return last
}

func (r *trail) count() int { return strings.Count(r.out.String(), "\n") }

func TestEachOperationIsRecorded(t *testing.T) {
	r := newTrail(t, audit.Options{Identity: "ingest", Store: "store-1"})
	ctx := audit.WithRequestID(t.Context(), "req-1")

	key, err := r.v.GetKey(ctx, vault.KeyID{Name: "kek"})
	require.NoError(t, err)
	want := audit.Record{
		Time: start, Event: audit.EventOperation, Identity: "ingest", Store: "store-1", Operation: vault.OpGet,
		Key: "mem:test/keys/kek", Version: r.id.Version, Outcome: audit.OutcomeOK, RequestID: "req-1",
	}
	require.Equal(t, r.id, key.ID)
	require.Equal(t, want, r.last(), "with the vault's name and the version that it used")

	r.clock.Advance(time.Second)
	w, err := r.v.WrapKey(ctx, vault.KeyID{Name: "kek"}, []byte("secret"))
	require.NoError(t, err)
	want.Operation, want.Time = vault.OpWrapKey, start.Add(time.Second)
	require.Equal(t, want, r.last())

	secret, err := r.v.UnwrapKey(audit.WithStore(audit.WithIdentity(ctx, "admin"), "store-2"), w)
	require.NoError(t, err)
	require.Equal(t, "secret", string(secret))
	want.Operation, want.Identity, want.Store = vault.OpUnwrapKey, "admin", "store-2"
	require.Equal(t, want, r.last(), "the context overrides the options")
	require.Equal(t, 3, r.count())
}

func TestDurationIsTheVaultsAndMonotonic(t *testing.T) {
	r := newTrail(t, audit.Options{})
	r.mem.Inject(vaulttest.Fault{MutateKey: func(*vault.Key) {
		r.clock.Advance(250 * time.Millisecond)
		r.clock.Step(-time.Hour)
	}})
	_, err := r.v.GetKey(t.Context(), r.id)
	require.NoError(t, err)
	require.Equal(t, 250*time.Millisecond, r.last().Duration)
	require.Equal(t, start, r.last().Time, "the time is when the operation began")
}

func TestOutcomesAndReasons(t *testing.T) {
	for _, tt := range []struct {
		err                   error
		outcome               audit.Outcome
		reason, code, request string
	}{
		{vaulttest.AccessDeniedByRBAC(), audit.OutcomeDenied, "access denied", "Forbidden/ForbiddenByRbac", ""},
		{vaulttest.WrongTenant(), audit.OutcomeDenied, "wrong tenant", "Unauthorized/AKV10032", ""},
		{vault.ErrKeyExpired, audit.OutcomeDenied, "key expired", "", ""},
		{vaulttest.Throttled(time.Second), audit.OutcomeUnavailable, "throttled", "Throttled", ""},
		{vaulttest.NetworkGone(), audit.OutcomeUnavailable, "vault unavailable", "", ""},
		{&vault.Error{Kind: vault.ErrKeyDisabled, RequestID: "b1f0"}, audit.OutcomeDenied, "key disabled", "", "b1f0"},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			r := newTrail(t, audit.Options{})
			r.mem.SetOutage(tt.err)
			_, err := r.v.WrapKey(t.Context(), r.id, []byte("secret"))
			require.ErrorIs(t, err, vault.Kind(tt.err), "the error comes through")
			got := r.last()
			require.Equal(t, tt.outcome, got.Outcome)
			require.Equal(t, tt.reason, got.Reason)
			require.Equal(t, tt.code, got.Code)
			require.Equal(t, tt.request, got.VaultRequestID)
			require.Equal(t, r.id.Version, got.Version, "of a refusal, the version that was asked for")
			var e *vault.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, e.Detail, got.Detail)
		})
	}
}

// scripted is a vault whose UnwrapKey and GetKey are functions.
type scripted struct {
	vault.Vault
	get    func(context.Context) (vault.Key, error)
	unwrap func(context.Context) ([]byte, error)
}

func (s scripted) GetKey(ctx context.Context, _ vault.KeyID) (vault.Key, error) { return s.get(ctx) }

func (s scripted) UnwrapKey(ctx context.Context, _ vault.Wrapped) ([]byte, error) {
	return s.unwrap(ctx)
}

func TestErrorsThatAreNotTheVaults(t *testing.T) {
	for want, err := range map[string]error{
		"failed: not an error of the vault": errors.New("panic at 0x1: secret=hunter2"),
		"unavailable: deadline exceeded":    context.DeadlineExceeded,
		"unavailable: canceled":             fmt.Errorf("call hunter2: %w", context.Canceled),
	} {
		var out bytes.Buffer
		v := audit.New(scripted{unwrap: func(context.Context) ([]byte, error) { return nil, err }}, audit.NewLog(&out, nil), nil)
		_, got := v.UnwrapKey(t.Context(), vault.Wrapped{})
		require.Equal(t, err, got)
		for r := range audit.Records(&out, nil) {
			require.Equal(t, want, string(r.Outcome)+": "+r.Reason)
		}
		require.NotContains(t, out.String(), "hunter2", "the text of an error that promises nothing is not recorded")
	}
}

func TestAnAnswerForAnotherKeyIsRecordedAsSuch(t *testing.T) {
	r := newTrail(t, audit.Options{})
	r.mem.Inject(vaulttest.Fault{MutateKey: func(k *vault.Key) { k.ID.Name = "other" }})
	_, err := r.v.GetKey(t.Context(), r.id)
	require.NoError(t, err)
	got := r.last()
	require.Equal(t, "mem:test/keys/kek", got.Key, "what was asked for stays on record")
	require.Equal(t, "the vault answered for another key, mem:test/keys/other/"+r.id.Version, got.Detail)

	r.mem.Inject(vaulttest.Fault{MutateKey: func(k *vault.Key) { k.ID.Version = "\x00\xff" }})
	_, err = r.v.GetKey(t.Context(), r.id)
	require.NoError(t, err)
	require.Equal(t, "the vault answered for another key", r.last().Detail)
}

func TestNoteRequestID(t *testing.T) {
	var out bytes.Buffer
	v := audit.New(scripted{get: func(ctx context.Context) (vault.Key, error) {
		audit.NoteRequestID(ctx, "first try")
		audit.NoteRequestID(ctx, "second try")
		return vault.Key{}, &vault.Error{Kind: vault.ErrThrottled, RequestID: "of the error"}
	}}, audit.NewLog(&out, nil), nil)
	_, err := v.GetKey(t.Context(), vault.KeyID{Name: "kek"})
	require.ErrorIs(t, err, vault.ErrThrottled)
	require.Contains(t, out.String(), `"vaultRequest":"second try"`)
	audit.NoteRequestID(t.Context(), "outside an operation") // does nothing
}

func TestNoKeyMaterialIsRecorded(t *testing.T) {
	r := newTrail(t, audit.Options{Identity: "ingest"})
	secret := bytes.Repeat([]byte("S3cr3t!+"), 4)
	w, err := r.v.WrapKey(t.Context(), r.id, secret)
	require.NoError(t, err)
	_, err = r.v.UnwrapKey(t.Context(), w)
	require.NoError(t, err)
	key, err := r.v.GetKey(t.Context(), r.id)
	require.NoError(t, err)
	altered := w
	altered.Ciphertext = append(bytes.Clone(w.Ciphertext), 1)
	_, err = r.v.UnwrapKey(t.Context(), altered)
	require.ErrorIs(t, err, vault.ErrBadCiphertext)
	_, err = r.v.WrapKey(t.Context(), r.id, make([]byte, 191))
	require.Error(t, err)
	require.Equal(t, 5, r.count())
	for what, b := range map[string][]byte{"secret": secret, "ciphertext": w.Ciphertext, "modulus": key.Public.N.Bytes()} {
		b = b[:9]
		for _, form := range []string{
			string(b), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b), base64.URLEncoding.EncodeToString(b), fmt.Sprint(b),
		} {
			require.NotContains(t, strings.ToLower(r.out.String()), strings.ToLower(form), what)
		}
	}
}

// broken is a recorder that does not record, or a writer that does not write.
type broken struct{ err error }

func (b *broken) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	return len(p), nil
}

func TestGoingOnWithoutTheLog(t *testing.T) {
	mem := vaulttest.New(nil)
	id := mem.CreateKey("kek")
	log := audit.NewLog(&broken{io.ErrClosedPipe}, nil)
	var told []error
	v := audit.New(mem, log, &audit.Options{OnError: func(err error) { told = append(told, err) }})
	require.NoError(t, kek.New(v, id).Check(t.Context()))
	require.Len(t, told, 3)
	require.ErrorIs(t, told[0], audit.ErrNotRecorded)
	require.ErrorIs(t, told[0], io.ErrClosedPipe)
	require.Equal(t, audit.Stats{Head: audit.Head{Log: log.Head().Log}, Pending: 3}, log.Stats())
}

func TestFailClosed(t *testing.T) {
	mem := vaulttest.New(nil)
	id := mem.CreateKey("kek")
	w, err := mem.WrapKey(t.Context(), id, []byte("secret"))
	require.NoError(t, err)
	writer := &broken{io.ErrClosedPipe}
	log := audit.NewLog(writer, nil)
	secret := []byte("secret")
	inner := scripted{Vault: mem, get: func(ctx context.Context) (vault.Key, error) { return mem.GetKey(ctx, id) }}
	inner.unwrap = func(context.Context) ([]byte, error) { return secret, nil }
	told := 0
	v := audit.New(inner, log, &audit.Options{FailClosed: true, OnError: func(error) { told++ }})

	withheld := func(err error, op vault.Operation) {
		t.Helper()
		require.ErrorIs(t, err, vault.ErrUnavailable)
		require.ErrorIs(t, err, audit.ErrNotRecorded)
		require.ErrorIs(t, err, io.ErrClosedPipe)
		require.True(t, vault.Transient(err), "the store serves until its lease ends")
		require.ErrorContains(t, err, "vault: "+string(op)+" mem:test/keys/kek/"+id.Version)
		require.ErrorContains(t, err, "make the audit log writable")
	}
	key, err := v.GetKey(t.Context(), id)
	withheld(err, vault.OpGet)
	require.Zero(t, key)
	wrapped, err := v.WrapKey(t.Context(), id, []byte("secret"))
	withheld(err, vault.OpWrapKey)
	require.Zero(t, wrapped)
	got, err := v.UnwrapKey(t.Context(), w)
	withheld(err, vault.OpUnwrapKey)
	require.Nil(t, got)
	require.Equal(t, make([]byte, 6), secret, "the secret is cleared")

	denied := &vault.Error{Op: vault.OpGet, Key: id, Kind: vault.ErrKeyDisabled}
	inner.get = func(context.Context) (vault.Key, error) { return vault.Key{}, denied }
	v = audit.New(inner, log, &audit.Options{FailClosed: true, OnError: func(error) { told++ }})
	_, err = v.GetKey(t.Context(), id)
	require.True(t, vault.Denied(err), "a denial stays one: it has to lock the store")
	require.False(t, vault.Transient(err))
	require.Equal(t, vault.ErrKeyDisabled, vault.Kind(err))
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	require.Equal(t, 4, told)

	writer.err = nil
	inner.get = func(ctx context.Context) (vault.Key, error) { return mem.GetKey(ctx, id) }
	v = audit.New(inner, log, &audit.Options{FailClosed: true})
	_, err = v.GetKey(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, audit.Stats{Head: log.Head()}, log.Stats(), "what waited is written")
	require.Equal(t, uint64(5), log.Head().Seq)
}
