package vaulttest

import (
	"testing"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// Subject is a vault under test with one key in it, and the administrator's side
// of that vault as far as the test can offer it. The hooks fail the test
// themselves (t.Fatal) if they cannot do their work. Each part of the suite that
// needs a hook that is nil is left out, and [Run] logs which.
type Subject struct {
	Vault vault.Vault
	Key   vault.KeyID // a key that can be used, without a version

	// Now is the vault's clock, for the dates given to SetDates. The default is
	// the system's.
	Now func() time.Time

	SetEnabled func(id vault.KeyID, enabled bool)                 // of one version
	SetDates   func(id vault.KeyID, notBefore, expires time.Time) // of one version; zero: not set
	Rotate     func(name string) vault.KeyID                      // a new current version; returns its id
	Delete     func(name string)                                  // soft
	Recover    func(name string)                                  // undoes Delete
	Purge      func(name string)                                  // for good; after Delete, if that is not nil
	Revoke     func(op vault.Operation)                           // takes one permission from Vault's caller
	Grant      func(op vault.Operation)                           // gives it back

	// DeletedIsNotFound says that the vault cannot tell a deleted key from one
	// that never was, as Key Vault's data plane cannot: it answers ErrKeyNotFound
	// where others answer ErrKeyDeleted. The default is false.
	DeletedIsNotFound bool
}

// Run checks that a vault keeps the promises of [vault.Vault]'s documentation.
// newVault is called for each part of the suite, and makes a vault, or a key,
// that no other part has touched; t.Cleanup is where it is taken down.
//
// The parts call the vault about 450 times in all. Besides correct answers the
// suite wants errors that a person can act on, so it requires that the text of
// each refusal names the operation and the key, and holds nothing of a secret.
func Run(t *testing.T, newVault func(t *testing.T) Subject) {
	t.Helper()
	offered := newVault(t)
	for _, p := range suite() {
		if missing := p.missing(offered); missing != "" {
			t.Logf("left out: %s (Subject.%s is nil)", p.name, missing)
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			s := newVault(t)
			p.check(&run{T: t, Subject: s})
		})
	}
}

// part is one part of the suite.
type part struct {
	name  string
	needs []string // names of hooks
	check func(*run)
}

// suite lists the parts in the order in which they run.
func suite() []part {
	return []part{
		{"get answers with the complete key", nil, checkGet},
		{"wrap and unwrap every size", nil, checkRoundTrip},
		{"wrap refuses a secret of 0 or 191 bytes", nil, checkSecretSize},
		{"an id that no key can have is refused", nil, checkHostileIDs},
		{"each wrap differs", nil, checkWrapDiffers},
		{"the algorithm is RSA-OAEP-SHA256 without a label", nil, checkAlgorithm},
		{"unwrap refuses without a version", nil, checkUnwrapVersion},
		{"unwrap refuses an altered ciphertext", nil, checkAltered},
		{"an unknown key or version is not found", nil, checkUnknown},
		{"a key of another vault is not found", nil, checkOtherVault},
		{"an ended context ends the call", nil, checkContext},
		{"no slice is shared with the caller", nil, checkAliasing},
		{"concurrent calls", nil, checkConcurrent},
		{"rotation keeps old versions", []string{"Rotate"}, checkRotate},
		{"a disabled key", []string{"SetEnabled"}, checkDisabled},
		{"one version disabled", []string{"SetEnabled", "Rotate"}, checkVersionDisabled},
		{"an expired key", []string{"SetDates"}, checkExpired},
		{"a key not yet valid", []string{"SetDates"}, checkNotYetValid},
		{"a deleted key", []string{"Delete"}, checkDeleted},
		{"a recovered key", []string{"Delete", "Recover"}, checkRecovered},
		{"a purged key", []string{"Purge"}, checkPurged},
		{"each permission alone", []string{"Revoke", "Grant"}, checkPermissions},
	}
}

// missing returns the first hook that p needs and s has not, or "".
func (p part) missing(s Subject) string {
	have := map[string]bool{
		"SetEnabled": s.SetEnabled != nil,
		"SetDates":   s.SetDates != nil,
		"Rotate":     s.Rotate != nil,
		"Delete":     s.Delete != nil,
		"Recover":    s.Recover != nil,
		"Purge":      s.Purge != nil,
		"Revoke":     s.Revoke != nil,
		"Grant":      s.Grant != nil,
	}
	for _, need := range p.needs {
		if !have[need] {
			return need
		}
	}
	return ""
}
