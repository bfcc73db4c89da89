package vaulttest

import (
	"net"
	"syscall"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// The functions in this file return what Key Vault says, or what its client sees,
// when it does not do as asked: for [Fault.Err] and [Vault.SetOutage], which fill
// in the operation and the key. Each result is the caller's own.

// AccessDeniedByRBAC is 403 under role-based access: the role assignment is gone.
func AccessDeniedByRBAC() *vault.Error {
	return &vault.Error{Kind: vault.ErrAccessDenied, Code: "Forbidden/ForbiddenByRbac",
		Detail: "the caller's identity has no role that permits it; assign one, such as Key Vault Crypto Service Encryption User, on the key or its vault"}
}

// AccessDeniedByPolicy is 403 under an access policy that lacks the permission.
func AccessDeniedByPolicy() *vault.Error {
	return &vault.Error{Kind: vault.ErrAccessDenied, Code: "Forbidden/AccessDenied",
		Detail: "the vault's access policy does not permit it to the caller's identity; add get, wrapKey and unwrapKey for keys"}
}

// KeyOperationForbidden is 403 for an operation that the key itself does not
// list.
func KeyOperationForbidden() *vault.Error {
	return &vault.Error{Kind: vault.ErrAccessDenied, Code: "KeyOperationForbidden",
		Detail: "the key's permitted operations do not include it; add it to the key version"}
}

// ForbiddenByFirewall is 403 for a caller whose address the vault's firewall does
// not let through.
func ForbiddenByFirewall() *vault.Error {
	return &vault.Error{Kind: vault.ErrAccessDenied, Code: "Forbidden/ForbiddenByFirewall",
		Detail: "the vault's firewall does not allow the caller's address; add it to the vault's network rules"}
}

// ForbiddenByConnection is 403 for a caller from the public network when the
// vault takes calls through its private endpoint only.
func ForbiddenByConnection() *vault.Error {
	return &vault.Error{Kind: vault.ErrAccessDenied, Code: "Forbidden/ForbiddenByConnection",
		Detail: "the vault takes no calls from the public network; call it through its private endpoint"}
}

// IdentityDeleted is 401 for a caller whose identity no longer exists.
func IdentityDeleted() *vault.Error {
	return &vault.Error{Kind: vault.ErrAccessDenied, Code: "Unauthorized",
		Detail: "the caller's identity was not accepted; it may have been deleted, and then needs to be made and granted again"}
}

// WrongTenant is 401 for a token of another directory than the vault's.
func WrongTenant() *vault.Error {
	return &vault.Error{Kind: vault.ErrWrongTenant, Code: "Unauthorized/AKV10032",
		Detail: "the token was issued by another tenant than the vault's; sign in to the tenant that owns the vault"}
}

// Throttled is 429 with a Retry-After, or without one if retryAfter is 0.
func Throttled(retryAfter time.Duration) *vault.Error {
	return &vault.Error{Kind: vault.ErrThrottled, Code: "Throttled", RetryAfter: retryAfter,
		Detail: "too many requests to this vault"}
}

// Unavailable is 503: the service is there and cannot serve.
func Unavailable() *vault.Error {
	return &vault.Error{Kind: vault.ErrUnavailable, Code: "ServiceUnavailable", Detail: "the vault service failed, try again later"}
}

// InternalError is 500: the service failed.
func InternalError() *vault.Error {
	return &vault.Error{Kind: vault.ErrUnavailable, Code: "InternalServerError", Detail: "the vault service failed, try again later"}
}

// NetworkGone is a connection that cannot be made.
func NetworkGone() *vault.Error {
	return &vault.Error{Kind: vault.ErrUnavailable, Detail: "the vault cannot be reached, check the network",
		Err: &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH}}
}

// VaultDeleted is what a client sees of a vault that was deleted: its host name
// does not resolve. No vault answered, so that it is ErrUnavailable and not a
// denial: broken name resolution looks the same.
func VaultDeleted() *vault.Error {
	return &vault.Error{Kind: vault.ErrUnavailable,
		Detail: "the vault's host name does not resolve; the vault may have been deleted, and then needs to be recovered",
		Err:    &net.DNSError{Err: "no such host", Name: "deleted.vault.azure.net", IsNotFound: true}}
}
