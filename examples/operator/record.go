package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/local"
)

// The names, in the audit log, of what no grant permits: those that it does have the
// grants' (local.Permissions).
const (
	opInit         vault.Operation = "initVault"
	opInfo         vault.Operation = "readInfo"
	opPassphrase   vault.Operation = "changePassphrase"
	opProtect      vault.Operation = "enablePurgeProtection"
	opBackupSecret vault.Operation = "readBackupSecret"
	opEscrow       vault.Operation = "escrowBackupSecret"
	opMaintain     vault.Operation = "maintain"
	opGrant        vault.Operation = "grant"
	opRevoke       vault.Operation = "revoke"
	opGrants       vault.Operation = "listGrants"
	opAccept       vault.Operation = "acceptStore"
)

// newRequest returns the name that all records of one command have.
func newRequest() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// who is how the log names an identity.
func who(identity string) string {
	if identity == "" {
		return "vault owner" // with a space, which no identity's name has
	}
	return identity
}

// do runs an operation of the control plane, and records it if there is a log.
func (s *session) do(ctx context.Context, identity string, what audit.Action, f func(context.Context) (vault.KeyID, error)) error {
	if s.log == nil {
		_, err := f(ctx)
		return err
	}
	return audit.NewAdministrator(s.log, &audit.Options{Identity: who(identity), FailClosed: true}).Do(ctx, what, f)
}

// do is the session's do, on the vault and as who has it.
func (o *opened) do(ctx context.Context, op vault.Operation, id vault.KeyID, detail string, f func(context.Context) (vault.KeyID, error)) error {
	return o.session.do(ctx, o.identity, audit.Action{Operation: op, Key: id, Detail: detail}, f)
}

// all is the vault as a whole, for the log.
func (o *opened) all() vault.KeyID { return vault.KeyID{Vault: o.ID()} }

// happened records what a vault did by itself, in whatever operation it came up: that
// one's answer does not depend on it, so that what could not be recorded is told when
// the session is closed.
func (s *session) happened(identity string, e local.Event) {
	if s.log == nil {
		return
	}
	what := audit.Action{Key: e.Key}
	switch e.Kind {
	case local.KeyRotated, local.RotationFailed:
		what.Operation, what.Detail = local.OpRotate, "by its rotation policy"
	case local.KeyPurged:
		what.Operation, what.Detail = local.OpPurge, "its retention was over"
	default:
		return
	}
	a := audit.NewAdministrator(s.log, &audit.Options{Identity: who(identity), OnError: func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unrecorded = append(s.unrecorded, err)
	}})
	// Its error is the event's, which was told.
	_ = a.Do(s.ctx, what, func(context.Context) (vault.KeyID, error) { return e.Key, e.Err })
}
