// Package keyvaulttest is a key vault to test clients with: a TLS server on loopback,
// or without any network, that speaks the REST of Azure Key Vault for keys (versions 7.0
// to 7.6 and 2025-07-01) over the logic of the file vault (vault/local), which has Key
// Vault's semantics and real RSA-2048 keys. Microsoft's clients for Go, JavaScript and
// Python work with it; internal/keyvaulttest/clients runs the latter two.
//
// Start with [New]; [Server.AddIdentity] makes a caller with grants, and
// [Server.Credential] its credential. [Server.Client] is the HTTP client that trusts
// the server. [Server.Vault] is the file vault beneath, for the owner's hand.
//
// What it does as Key Vault does: challenge authentication with tenant and audience,
// bearer tokens that are mapped to identities and grants, key identifiers, attributes,
// versions, dates, soft delete, purge protection, rotation and its policy, backup,
// restore, import (also of transfer blobs), error bodies with inner codes, request ids,
// tags, pages of lists, throttling in a sliding window. [Server.Inject] adds faults.
//
// What it does not: keys other than RSA-2048, operations other than wrapKey and unwrapKey
// with RSA-OAEP-256 (no encrypt, decrypt, sign or verify; a client that has the public key
// encrypts by itself), certificates and secrets, delays of deletion, events. A key of type
// RSA-HSM is a software key that says it is one; which those are, tags, and when a policy
// notifies are not kept with the file vault.
//
// It is for tests and rehearsals: its authority hands tokens to whoever has an
// identity's secret, and its keys are in the process.
package keyvaulttest
