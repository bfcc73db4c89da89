package accesstest

import (
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// administration is the verbs that only an Administration has.
func administration() []string { return []string{"create", "policy", "maintain", "protect"} }

// World is a vault with one key, and the hands to change it with.
type World struct {
	// Name is "mem" or another word: that of lines for this world alone.
	Name string
	// Vault is what the store is given.
	Vault vault.Vault
	// Key is the key that wraps the store's keyring, with the version it has.
	Key vault.KeyID

	// Verbs is what "vault VERB ARG" does. ARG is an operation, a duration or
	// empty, as follows.
	//
	//	revoke OP, grant OP        one permission of the store's identity
	//	disable, enable            the key version
	//	expire D                   the version expires D from now
	//	activate D                 the version is not valid before D from now
	//	undate                     removes both dates
	//	delete, recover, purge     the key
	//	destroy                    the version, for good
	//	rotate                     a new current version
	//	swap                       other key material under the same version
	//	delete-vault               the vault as a whole
	//	firewall                   the caller's address is not let in any more
	//	delete-identity            the identity that the store calls with
	//	wrong-tenant               the identity's tokens are of another tenant
	//	throttle D                 every call is refused for too many, try again after D
	//	unreachable                no connection
	//	break OP                   calls of one kind fail, the others do not
	//	hang                       calls are taken and not answered
	//	stick                      so, and they do not end when the caller gives up
	//	answer                     undoes the eight above
	Verbs map[string]func(arg string)

	// Administration is the verbs that the vault may refuse, for a vault whose
	// administrators' side scripts are to see: its error is what a script expects with
	// "refused ERR". Those of Verbs may be here instead, such as delete, recover and
	// purge; and these, which a World without Administration does not have:
	//
	//	create                     a key of the name of the store's key
	//	policy WHAT D ...          the key's rotation policy, and nothing else in it:
	//	                           after, before-expiry, expires-after, notice-before
	//	maintain                   what is due
	//	protect                    no purging before the retention, of 7 days, is over
	Administration map[string]func(args string) error
	// Told returns what the vault has reported by itself since it was called last, as
	// "told" names it: KeyNearExpiry, KeyRotated, KeyPurged. It goes with Administration.
	Told func() []string

	// NotApplicable says of verbs that the world does not have why that is so.
	// Scripts that use one are not run, and that is logged.
	NotApplicable map[string]string

	// DeletedIsNotFound says that the vault cannot tell a deleted key from one that
	// never was, as Key Vault's data plane cannot: where a script says ErrKeyDeleted,
	// it is ErrKeyNotFound.
	DeletedIsNotFound bool

	// Hide replaces what differs from run to run in this world's reasons, such as
	// the path of a directory; may be nil.
	Hide *strings.Replacer
}
