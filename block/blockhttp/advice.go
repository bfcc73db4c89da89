package blockhttp

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// advice is a cause's name, what it says to somebody who has not read the manual, and what to do
// about it.
type advice struct {
	cause   error
	kind    string // in the JSON
	says    string // a clause that goes on after "Inaccessible: "
	do      string // a sentence without its full stop
	runbook string // a heading of docs/operations.md
}

// causes returns the advice on each cause. The first that matches holds: the end of a lease carries
// what is known of the vault, and the vault's answers come before damage, because a key that was
// replaced opens nothing either.
func causes() []advice {
	return []advice{
		{keyring.ErrLeaseEnded, "lease_ended", "the lease ended before the vault agreed again",
			"Find out why the vault did not answer", "Vault outage"},
		{keyring.ErrWrongKEK, "wrong_kek", "the keyring is under another key than the program gave",
			"Open the store with that key or, if it is the same key in another place, relocate the store", "Failover to another vault"},
		{keyring.ErrUnexpected, "unexpected_keyring", "the keyring is older than it was, or another store's",
			"Keep the files as they are, and find out who wrote them", "Restore from a checkpoint"},
		{vault.ErrKeyNotFound, "key_not_found", "the vault has no such key or version",
			"Restore it from its backup, or correct the vault's address", "Lost key and escrow"},
		{vault.ErrKeyDeleted, "key_deleted", "the key is deleted",
			"Recover it in the vault before its retention ends", "Causes"},
		{vault.ErrKeyDisabled, "key_disabled", "the key is disabled", "Enable it in the vault", "Causes"},
		{vault.ErrKeyExpired, "key_expired", "the key has expired",
			"Rotate it in the vault, if this machine's clock is right", "An expired key"},
		{vault.ErrKeyNotYetValid, "key_not_yet_valid", "the key is not valid yet",
			"Correct its dates in the vault, or this machine's clock", "An expired key"},
		{vault.ErrAccessDenied, "access_denied", "the vault denies access",
			"Give the program's identity get, wrapKey and unwrapKey, and look at the vault's firewall", "Causes"},
		{vault.ErrWrongTenant, "wrong_tenant", "the program's identity is of another directory than the vault",
			"Correct the identity's tenant", "Causes"},
		{vault.ErrUnsupportedKey, "unsupported_key", "the vault's key is not the one it was, or of a kind that cannot serve",
			"Restore the key that it was", "Causes"},
		{vault.ErrBadCiphertext, "bad_ciphertext", "the vault's key is not the one that wrapped the keyring",
			"Restore the key that did", "Causes"},
		{keyring.ErrCorrupt, "corrupt", "the keyring document is damaged or forged",
			"Keep the files as they are, and restore the store", "Restore from a checkpoint"},
		{keyring.ErrVersion, "version", "the keyring document is of a format that this release does not know",
			"Run the release that wrote it", "States"},
		{keyring.ErrNoDocument, "no_document", "the keyring document is not there",
			"Restore the store", "Restore from a checkpoint"},
		{vault.ErrThrottled, "throttled", "the vault has had too many requests",
			"Have fewer made to it", "Vault outage"},
		{vault.ErrUnavailable, "unavailable", "the vault does not answer",
			"Look at the vault, and at what is between it and the program", "Vault outage"},
		{context.DeadlineExceeded, "unavailable", "the vault does not answer in time",
			"Look at the vault, and at what is between it and the program", "Vault outage"},
	}
}

// adviceOn returns the advice on an error; its kind is empty if there is none.
func adviceOn(err error) advice {
	for _, a := range causes() {
		if errors.Is(err, a.cause) {
			return a
		}
	}
	return advice{}
}

// nearExpiry is the time before a key's expiry at which the page says so, that of the first
// KeyNearExpiry.
const nearExpiry = 30 * 24 * time.Hour

// headline returns the state in words, and what to do.
func headline(st keyring.State, now time.Time) advice {
	switch st.Status {
	case keyring.Available:
		// Before an expiry that is near: an older copy is accepted now, and the key's card has the
		// date all the same.
		if st.AnchorErr != nil {
			return advice{kind: "anchor_lags", says: "the anchor lags, so that an older copy of the store would be accepted",
				do: "Make it writable again; the store advances it by itself", runbook: "A lagging anchor"}
		}
		if left := st.KEKExpires.Sub(now); !st.KEKExpires.IsZero() && left <= nearExpiry {
			return advice{kind: "key_near_expiry", says: "the key expires in " + span(max(0, left).Seconds()),
				do: "Rotate it in the vault before", runbook: "Rotation"}
		}
		return advice{says: "the vault agreed at the last check", do: "Nothing is to be done"}
	case keyring.Closed:
		return advice{says: "the program closed the store", do: "Nothing is to be done"}
	}
	a := adviceOn(st.Cause)
	waits := st.Status == keyring.Inaccessible && st.NextCheck.IsZero()
	switch {
	case a.kind != "":
	case st.LastCheck.IsZero() && waits: // a copy, or a store opened with AwaitRevalidate
		return advice{kind: "awaits_revalidate", says: "it waits to be revalidated, as a copy of a store does",
			do: "Call Revalidate", runbook: "Restore from a checkpoint"}
	case st.LastCheck.IsZero():
		return advice{kind: "unchecked", says: "the vault has not been asked yet", do: "Wait for the first check", runbook: "States"}
	default:
		a = advice{kind: "other", says: "the last check did not succeed", do: "Read the cause below", runbook: "States"}
	}
	switch {
	case waits:
		a.do += ". Then call Revalidate"
	case st.Status == keyring.Degraded && !st.LeaseEnd.IsZero():
		a.do = "The store serves until " + utc(st.LeaseEnd).Format("15:04:05") + " UTC. " + a.do
	}
	return a
}

// anchor returns the fragment of a heading of docs/operations.md.
func anchor(heading string) string { return strings.ReplaceAll(strings.ToLower(heading), " ", "-") }
