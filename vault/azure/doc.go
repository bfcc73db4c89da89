// Package azure is Azure Key Vault and Azure Managed HSM as a [vault.Vault], through
// Microsoft's azkeys client.
//
// Start with [New]; a Vault goes to kek.New:
//
//	cred, err := azidentity.NewDefaultAzureCredential(nil)
//	...
//	v, err := azure.New("https://contoso.vault.azure.net", cred, nil)
//	...
//	k := kek.New(v, vault.KeyID{Vault: v.URL(), Name: "kek"})
//
// The package takes a credential and builds none. A Vault uses three operations of
// the data plane (get, wrapKey, unwrapKey), RSA-OAEP-256 and nothing else; whoever
// creates, rotates and deletes keys has another identity, and an [Admin].
// [Vault.Preflight] says whether a key can serve; docs/azure.md how all is set up.
//
// # Versions
//
// The version in the vault's answer is what WrapKey returns: after a rotation, the
// current version does not unwrap what an older one wrapped. An answer for another
// vault, key or version, of a wrong length, or with another public key than the
// version had before, is an error.
//
// # Errors
//
// Every error of an operation is a [vault.Error] and matches one sentinel, of package
// vault or of this one: what the vault answered is told by its status, its code and its
// inner code, and the text says who was refused what and where to look. An argument
// that cannot be right (an empty secret, a name that Key Vault does not have, a wrapped
// secret without a version) is [ErrInvalid], and nothing is sent. In short:
//
//	400 BadParameter                       unwrapKey: ErrBadCiphertext; wrapKey: ErrUnsupportedKey
//	401 ... AKV10032                       ErrWrongTenant
//	401                                    ErrAccessDenied, when it repeats
//	403 Forbidden/ForbiddenByRbac          ErrAccessDenied: a role
//	403 Forbidden/AccessDenied             ErrAccessDenied: an access policy
//	403 Forbidden/ForbiddenByFirewall      ErrAccessDenied: the vault's network rules, when it repeats
//	403 Forbidden/ForbiddenByConnection    ErrAccessDenied: the private endpoint, when it repeats
//	403 Forbidden/KeyOperationForbidden    ErrAccessDenied: the key's own operations
//	403 Forbidden/KeyDisabled              ErrKeyDisabled
//	403 Forbidden, outside the dates       ErrKeyExpired, ErrKeyNotYetValid
//	403 anything else                      ErrAccessDenied; of a wrap, whatever its dates say
//	404 KeyNotFound                        ErrKeyNotFound, also for a key that was deleted
//	409 ObjectIsDeletedButRecoverable      ErrKeyDeleted
//	409 ObjectIsBeingDeleted, -Recovered   ErrUnavailable; for an Admin, ErrBusy
//	429                                    ErrThrottled, with RetryAfter
//	408, 5xx, no answer, no such host      ErrUnavailable
//	an answer that makes no sense          ErrUnavailable: it proves nothing
//	a page that is not Key Vault's         ErrUnavailable, whatever its status
//
// What is said to count when it repeats comes and goes for identities whose access nobody
// has taken away. Before it is passed on the question is put four more times, in about
// five seconds and within the time of the call; docs/azure.md has the list, with sources.
//
// Key Vault's data plane does not tell a deleted key from one that never was. A host
// name that does not resolve is no denial either: broken name resolution looks the
// same. A credential that gives no token, for whatever reason, is ErrUnavailable, unless
// Microsoft Entra ID says that the identity is gone or may not have one: what its token
// endpoint answers is not the vault's answer. A sign-in may go on for up to a minute after
// the call that began it has ended, one for all calls, so that a slow credential comes to
// its end.
//
// No error's text holds a token, a secret, or a credential's own text beyond what the
// network, a status or a code of Microsoft Entra ID say. Key Vault's text is quoted of a 401
// and of what its codes do not explain. The request id is
// also noted of a request that succeeds ([vault.OnRequestID]), as package audit does.
//
// # Limits
//
// Key Vault serves 4,000 operations with RSA-2048 keys in 10 seconds, 2,000 with keys
// in an HSM, all callers together. A Vault sends at most Options.Budget, makes one
// request of identical ones, and sends nothing at all for as long as a 429 asks for.
// Callers whose turn would come too late are told at once (ErrThrottled, by the client
// itself), and calls of [vault.WithPriority] go first: a store that is asked for more
// than the budget slows down, and does not lose its access.
//
// # What stays in memory
//
// A secret passes through HTTP and JSON in the clear inside TLS, and the copies that
// those make are the garbage collector's. What is within reach is cleared.
package azure
