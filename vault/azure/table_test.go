package azure_test

import (
	"regexp"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

const (
	app         = "00000000-aaaa-4000-8000-000000000001"
	object      = "00000000-bbbb-4000-8000-000000000002"
	otherTenant = "99999999-8888-7777-6666-555555555555"
	callerText  = "appid=" + app + ";oid=" + object + ";iss=https://sts.windows.net/" + keyvaulttest.DefaultTenant + "/"
)

// row is one way in which a vault does not do as asked: what comes over the wire,
// what the store makes of it, and what a reader of a block is told.
type row struct {
	name  string
	fault keyvaulttest.Fault
	do    func(r *rig) // beside the fault, or in its place
	kind  error
	text  string // of the vault's error, with <key>, <version> and <id>
}

var rows = []row{
	{
		name: "403 role-based access: no role",
		fault: keyvaulttest.Fault{Status: 403, Code: "Forbidden", Inner: "ForbiddenByRbac", Message: "Caller is not authorized to perform action on resource.\r\n" +
			"Caller: " + callerText + "\r\nAction: 'Microsoft.KeyVault/vaults/keys/read'\r\nVault: contoso;location=westeurope\r\n"},
		kind: vault.ErrAccessDenied,
		text: "vault: get <key>: access denied: the caller (application " + app + ", object " + object + ") has no role that permits it; assign one, such as Key Vault Crypto Service Encryption User, on the key or its vault [Forbidden/ForbiddenByRbac] [request <id>]",
	},
	{
		name:  "403 role-based access, the code outside",
		fault: keyvaulttest.Fault{Status: 403, Code: "ForbiddenByRbac", Message: "Caller is not authorized to perform action on resource."},
		kind:  vault.ErrAccessDenied,
		text:  "vault: get <key>: access denied: the caller's identity has no role that permits it; assign one, such as Key Vault Crypto Service Encryption User, on the key or its vault [ForbiddenByRbac] [request <id>]",
	},
	{
		name: "403 access policy",
		fault: keyvaulttest.Fault{Op: "unwrapKey", Status: 403, Code: "Forbidden", Inner: "AccessDenied",
			Message: "The user, group or application '" + callerText + "' does not have keys unwrapKey permission on key vault 'contoso;location=westeurope'."},
		kind: vault.ErrAccessDenied,
		text: "vault: unwrapKey <key>/<version>: access denied: the vault's access policy does not permit it to the caller (application " + app + ", object " + object + "); add get, wrapKey and unwrapKey for keys [Forbidden/AccessDenied] [request <id>]",
	},
	{
		name:  "403 the key's operations",
		fault: keyvaulttest.Fault{Op: "wrapKey", Status: 403, Code: "KeyOperationForbidden", Message: "Operation wrapKey is not permitted on this key."},
		kind:  vault.ErrAccessDenied,
		text:  "vault: wrapKey <key>/<version>: access denied: the key's permitted operations do not include it; add wrapKey to the key version [KeyOperationForbidden] [request <id>]",
	},
	{
		name:  "403 disabled",
		fault: keyvaulttest.Fault{Op: "unwrapKey", Status: 403, Code: "Forbidden", Inner: "KeyDisabled", Message: "Operation unwrapKey is not allowed on a disabled key."},
		kind:  vault.ErrKeyDisabled,
		text:  "vault: unwrapKey <key>/<version>: key disabled: enable the key version to use it [Forbidden/KeyDisabled] [request <id>]",
	},
	{
		name: "403 firewall",
		fault: keyvaulttest.Fault{Status: 403, Code: "Forbidden", Inner: "ForbiddenByFirewall",
			Message: "Client address is not authorized and caller is not a trusted service.\r\nClient address: 203.0.113.7\r\nCaller: " + callerText + "\r\nVault: contoso;location=westeurope"},
		kind: vault.ErrAccessDenied,
		text: "vault: get <key>: access denied: the vault's firewall does not allow the address 203.0.113.7; add it to the vault's network rules (5 times in a row) [Forbidden/ForbiddenByFirewall] [request <id>]",
	},
	{
		name: "403 public access off",
		fault: keyvaulttest.Fault{Status: 403, Code: "Forbidden", Inner: "ForbiddenByConnection",
			Message: "Public network access is disabled and request is not from a trusted service nor via an approved private link.\r\nCaller: " + callerText},
		kind: vault.ErrAccessDenied,
		text: "vault: get <key>: access denied: the vault takes no calls from the public network; call it through its private endpoint (5 times in a row) [Forbidden/ForbiddenByConnection] [request <id>]",
	},
	{
		name:  "403 expired, with a code",
		fault: keyvaulttest.Fault{Op: "wrapKey", Status: 403, Code: "Forbidden", Inner: "KeyExpired", Message: "Operation wrapKey is not allowed on an expired key."},
		kind:  vault.ErrKeyExpired,
		text:  "vault: wrapKey <key>/<version>: key expired: extend the key version's expiry, or rotate the key [Forbidden/KeyExpired] [request <id>]",
	},
	{
		name:  "403 not yet valid, with a code",
		fault: keyvaulttest.Fault{Op: "wrapKey", Status: 403, Code: "Forbidden", Inner: "KeyNotYetValid", Message: "Operation wrapKey is not allowed on a key that is not yet valid."},
		kind:  vault.ErrKeyNotYetValid,
		text:  "vault: wrapKey <key>/<version>: key not yet valid: it can be used from its activation date on [Forbidden/KeyNotYetValid] [request <id>]",
	},
	{
		name: "outside nbf/exp: wrap 403 Forbidden alone",
		// It expires between the check's first question and its second.
		fault: keyvaulttest.Fault{Op: "get", Times: 1, Mutate: func(b map[string]any) { delete(b["attributes"].(map[string]any), "exp") }},
		do:    expire,
		kind:  vault.ErrKeyExpired,
		text:  "vault: wrapKey <key>/<version>: key expired: it expired at <time>; the time was taken to be <time> by this machine's clock, which agrees with the vault's [Forbidden] [request <id>]",
	},
	{
		name:  "outside nbf/exp: wrap 403 with a code that is new",
		fault: keyvaulttest.Fault{Op: "get", Times: 1, Mutate: func(b map[string]any) { delete(b["attributes"].(map[string]any), "exp") }},
		do: func(r *rig) {
			expire(r)
			r.Inject(keyvaulttest.Fault{Op: "wrapKey", Status: 403, Code: "Forbidden", Inner: "ForbiddenByExpiry", Message: "Operation wrapKey is not allowed on an expired key."})
		},
		kind: vault.ErrKeyExpired,
		text: "vault: wrapKey <key>/<version>: key expired: it expired at <time>; the time was taken to be <time> by this machine's clock, which agrees with the vault's [Forbidden/ForbiddenByExpiry] [request <id>]",
	},
	{
		name:  "wrap 403 with a code that is new, of a key that is in date",
		fault: keyvaulttest.Fault{Op: "wrapKey", Status: 403, Code: "Forbidden", Inner: "ForbiddenByTheMoon", Message: "Not tonight."},
		kind:  vault.ErrAccessDenied,
		text:  "vault: wrapKey <key>/<version>: access denied: the vault refuses it, with a code that does not say why [Forbidden/ForbiddenByTheMoon] [request <id>]: Key Vault says: Not tonight.",
	},
	{
		name:  "403 unknown",
		fault: keyvaulttest.Fault{Status: 403, Code: "Forbidden", Inner: "ForbiddenByTheMoon", Message: "Not tonight.\r\nCaller: " + callerText},
		kind:  vault.ErrAccessDenied,
		text:  "vault: get <key>: access denied: the vault refuses it, with a code that does not say why [Forbidden/ForbiddenByTheMoon] [request <id>]: Key Vault says: Not tonight. Caller: " + callerText,
	},
	{
		name:  "403 Forbidden, and no more",
		fault: keyvaulttest.Fault{Op: "unwrapKey", Status: 403, Code: "Forbidden"},
		kind:  vault.ErrAccessDenied,
		text:  "vault: unwrapKey <key>/<version>: access denied: the vault refuses it, with a code that does not say why [Forbidden] [request <id>]",
	},
	{
		name: "404 no such key, or deleted",
		do: func(r *rig) {
			_, err := r.Server.Vault().DeleteKey(r.t.Context(), "kek")
			require.NoError(r.t, err)
		},
		kind: vault.ErrKeyNotFound,
		text: "vault: get <key>: key not found: there is no such key, or it was deleted; a deleted key can be recovered until it is purged [KeyNotFound] [request <id>]",
	},
	{
		name:  "404 no such version",
		fault: keyvaulttest.Fault{Op: "unwrapKey", Status: 404, Code: "KeyNotFound", Message: "A key with (name/id) kek was not found in this key vault."},
		kind:  vault.ErrKeyNotFound,
		text:  "vault: unwrapKey <key>/<version>: key not found: the key has no such version, or was deleted; a deleted key can be recovered until it is purged [KeyNotFound] [request <id>]",
	},
	{
		name:  "409 deleted, told apart",
		fault: keyvaulttest.Fault{Status: 409, Code: "Conflict", Inner: "ObjectIsDeletedButRecoverable", Message: "Key kek is currently in a deleted but recoverable state."},
		kind:  vault.ErrKeyDeleted,
		text:  "vault: get <key>: key deleted: recover the key to use it, or purge it to free its name [Conflict/ObjectIsDeletedButRecoverable] [request <id>]",
	},
	{
		name:  "409 being recovered",
		fault: keyvaulttest.Fault{Status: 409, Code: "Conflict", Inner: "ObjectIsBeingRecovered", Message: "Key kek is currently being recovered."},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: try again in a few seconds [Conflict/ObjectIsBeingRecovered] [request <id>]: an operation on the key is under way",
	},
	{
		name: "401 wrong tenant",
		do:   func(r *rig) { r.SetTenant(otherTenant) },
		kind: vault.ErrWrongTenant,
		text: "vault: get <key>: wrong tenant: the token was issued by tenant " + keyvaulttest.DefaultTenant + " and the vault is in tenant " + otherTenant + "; sign in to the tenant that owns the vault [Unauthorized/AKV10032] [request <id>]: Key Vault says: AKV10032: Invalid issuer. Expected one of https://sts.windows.net/" + otherTenant + "/, found https://sts.windows.net/" + keyvaulttest.DefaultTenant + "/.",
	},
	{
		name:  "401 wrong audience",
		fault: keyvaulttest.Fault{Status: 401, Code: "Unauthorized", Message: "AKV10022: Invalid audience. Expected https://vault.usgovcloudapi.net, found: https://vault.azure.net."},
		kind:  vault.ErrAccessDenied,
		text:  "vault: get <key>: access denied: the token was issued for another service; check that ClientOptions.Cloud is the vault's cloud [Unauthorized/AKV10022] [request <id>]: Key Vault says: AKV10022: Invalid audience. Expected https://vault.usgovcloudapi.net, found: https://vault.azure.net.",
	},
	{
		name: "401 identity deleted",
		do:   func(r *rig) { r.DeleteIdentity(store) },
		kind: vault.ErrAccessDenied,
		text: "vault: get <key>: access denied: the vault did not accept the caller's token (5 times in a row) [Unauthorized/AKV10001] [request <id>]: Key Vault says: AKV10001: Error validating token: the principal does not exist",
	},
	{
		name:  "400 another version's ciphertext",
		fault: keyvaulttest.Fault{Op: "unwrapKey", Status: 400, Code: "BadParameter", Message: "The parameter is incorrect."},
		kind:  vault.ErrBadCiphertext,
		text:  "vault: unwrapKey <key>/<version>: ciphertext not of this key: it was wrapped by another key version, or altered [BadParameter] [request <id>]: Key Vault says: The parameter is incorrect.",
	},
	{
		name:  "400 a key of another kind",
		fault: keyvaulttest.Fault{Op: "wrapKey", Status: 400, Code: "BadParameter", Message: "Property has invalid value alg."},
		kind:  vault.ErrUnsupportedKey,
		text:  "vault: wrapKey <key>/<version>: unsupported key: the key does not take RSA-OAEP-256; it must be RSA-2048 [BadParameter] [request <id>]: Key Vault says: Property has invalid value alg.",
	},
	{
		name:  "429 with Retry-After",
		fault: keyvaulttest.Fault{Status: 429, Code: "Throttled", Message: "Request was not processed because too many requests were received.", RetryAfter: "7"},
		kind:  vault.ErrThrottled,
		text:  "vault: get <key>: throttled: too many requests to this vault (retry after 7s) [Throttled] [request <id>]",
	},
	{
		name:  "429 without",
		fault: keyvaulttest.Fault{Status: 429, Body: "slow down"},
		kind:  vault.ErrThrottled,
		text:  "vault: get <key>: throttled: too many requests to this vault [HTTP 429] [request <id>]",
	},
	{
		name:  "500",
		fault: keyvaulttest.Fault{Status: 500, Code: "InternalServerError", Message: "Sorry."},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: the vault service failed, try again later [InternalServerError] [request <id>]",
	},
	{
		name:  "503",
		fault: keyvaulttest.Fault{Status: 503, Body: "<html>upstream</html>"},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: the vault service failed, try again later [HTTP 503] [request <id>]",
	},
	{
		name:  "an unknown 5xx",
		fault: keyvaulttest.Fault{Status: 599, Code: "Unheard"},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: the vault service failed, try again later [Unheard] [request <id>]",
	},
	{
		name:  "a status that Key Vault does not give",
		fault: keyvaulttest.Fault{Status: 418, Code: "Teapot"},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: an answer that Key Vault does not give; check the URL, and what stands between [Teapot] [request <id>]",
	},
	{
		name: "the vault is gone: its name does not resolve",
		do:   func(r *rig) { r.NoSuchHost() },
		kind: vault.ErrUnavailable,
		text: "vault: get <key>: vault unavailable: the vault's host name does not resolve; the vault may have been deleted, and then needs to be recovered, or its private DNS zone is not linked to this network: lookup 127.0.0.1: no such host",
	},
	{
		name: "no name server",
		do:   func(r *rig) { r.NoNameServer() },
		kind: vault.ErrUnavailable,
		text: "vault: get <key>: vault unavailable: the vault's host name cannot be looked up, check the network's name servers: lookup 127.0.0.1: server misbehaving",
	},
	{
		name: "no network",
		do:   func(r *rig) { r.Unreachable() },
		kind: vault.ErrUnavailable,
		text: "vault: get <key>: vault unavailable: the vault cannot be reached, check the network: dial tcp: network is unreachable",
	},
	{
		name:  "a cut connection",
		fault: keyvaulttest.Fault{Cut: true},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: the vault cannot be reached, check the network: EOF",
	},
	{
		name:  "an answer cut off",
		fault: keyvaulttest.Fault{Op: "unwrapKey", Drop: 20},
		kind:  vault.ErrUnavailable,
		text:  "vault: unwrapKey <key>/<version>: vault unavailable: the vault's answer is cut short or malformed",
	},
	{
		name:  "JSON that ends early",
		fault: keyvaulttest.Fault{Op: "wrapKey", Truncate: 30},
		kind:  vault.ErrUnavailable,
		text:  "vault: wrapKey <key>/<version>: vault unavailable: the vault's answer is cut short or malformed",
	},
	{
		name:  "no JSON",
		fault: keyvaulttest.Fault{Replace: "<html>Welcome to the hotel</html>"},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: the vault's answer is cut short or malformed",
	},
	{
		name:  "JSON of nothing",
		fault: keyvaulttest.Fault{Replace: "{}"},
		kind:  vault.ErrUnavailable,
		text:  "vault: get <key>: vault unavailable: the vault's answer is cut short or malformed: it has no key, or no attributes",
	},
	{
		name:  "a key of another name",
		fault: mutateKey(func(k map[string]any) { k["kid"] = strings.Replace(k["kid"].(string), "/kek/", "/other/", 1) }),
		kind:  vault.ErrUnsupportedKey,
		text:  "vault: get <key>: unsupported key: the vault answered for another key, <vault>/keys/other/<version>",
	},
	{
		name: "a wrap by another version",
		fault: keyvaulttest.Fault{Op: "wrapKey", Mutate: func(b map[string]any) {
			kid := b["kid"].(string)
			b["kid"] = kid[:len(kid)-32] + strings.Repeat("0", 32)
		}},
		kind: vault.ErrUnsupportedKey,
		text: "vault: wrapKey <key>/<version>: unsupported key: the vault answered for another key, <key>/<version>",
	},
	{
		name: "a wrap by another vault",
		fault: keyvaulttest.Fault{Op: "wrapKey", Mutate: func(b map[string]any) {
			b["kid"] = regexp.MustCompile(`https://[^/]+`).ReplaceAllString(b["kid"].(string), "https://fabrikam.vault.azure.net")
		}},
		kind: vault.ErrUnsupportedKey,
		text: "vault: wrapKey <key>/<version>: unsupported key: the vault answered for another key, https://fabrikam.vault.azure.net/keys/kek/<version>",
	},
	{
		name:  "a ciphertext of another length",
		fault: keyvaulttest.Fault{Op: "wrapKey", Mutate: func(b map[string]any) { b["value"] = strings.Repeat("A", 512) }},
		kind:  vault.ErrUnsupportedKey,
		text:  "vault: wrapKey <key>/<version>: unsupported key: the vault returned 384 wrapped bytes, an RSA-2048 key gives 256",
	},
	{
		name:  "a secret of another length",
		fault: keyvaulttest.Fault{Op: "unwrapKey", Mutate: func(b map[string]any) { b["value"] = strings.Repeat("A", 256) }},
		kind:  vault.ErrBadCiphertext,
		text:  "vault: unwrapKey <key>/<version>: ciphertext not of this key: the vault returned 192 bytes, want 1 to 190",
	},
	{
		name: "another public key under the same version",
		fault: mutateKey(func(k map[string]any) {
			n := k["n"].(string)
			k["n"] = n[:100] + strings.Repeat("A", 10) + n[110:]
		}),
		kind: vault.ErrUnsupportedKey,
		text: "vault: get <key>/<version>: unsupported key: its public key is not the one that this version had before",
	},
	{
		name:  "an elliptic key",
		fault: mutateKey(func(k map[string]any) { k["kty"] = "EC" }),
		kind:  vault.ErrUnsupportedKey,
		text:  "vault: get <key>/<version>: unsupported key: it is a key of type EC, want RSA-2048",
	},
	{
		name:  "an exponent that is none",
		fault: mutateKey(func(k map[string]any) { k["e"] = "AQAAAAAB" }),
		kind:  vault.ErrUnsupportedKey,
		text:  "vault: get <key>/<version>: unsupported key: its public exponent has 41 bits, want at most 31",
	},
	{
		name: "expired, as its properties say",
		do:   expire,
		kind: vault.ErrKeyExpired,
		text: "vault: get <key>/<version>: key expired: it expired at <time>; the time was taken to be <time> by this machine's clock, which agrees with the vault's",
	},
	{
		name: "disabled, as its properties say",
		do:   func(r *rig) { r.setEnabled(false) },
		kind: vault.ErrKeyDisabled,
		text: "vault: get <key>/<version>: key disabled: enable the key version to use it",
	},
}

func expire(r *rig) {
	past := time.Now().Add(-time.Hour)
	r.update(r.key, local.Update{Expires: &past})
}

func mutateKey(change func(jwk map[string]any)) keyvaulttest.Fault {
	return keyvaulttest.Fault{Op: "get", Mutate: func(b map[string]any) { change(b["key"].(map[string]any)) }}
}
