package azure

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/blockseal/blockseal/vault"
)

// What Key Vault says about the caller in the text of a refusal.
var (
	appID   = regexp.MustCompile(`(?i)\bappid=([0-9a-f-]{36})`)
	objID   = regexp.MustCompile(`(?i)\boid=([0-9a-f-]{36})`)
	address = regexp.MustCompile(`(?i)Client address: ([0-9a-f.:]+)`)
	issuer  = regexp.MustCompile(`(?i)https://(?:sts\.windows\.net|login\.microsoftonline\.com)/([0-9a-f-]{36})`)
)

// who names the caller as the vault named it.
func who(a *answer) string {
	app, obj := first(appID, a.message), first(objID, a.message)
	switch {
	case app != "" && obj != "":
		return fmt.Sprintf("the caller (application %s, object %s)", app, obj)
	case app != "":
		return fmt.Sprintf("the caller (application %s)", app)
	case obj != "":
		return fmt.Sprintf("the caller (object %s)", obj)
	}
	return "the caller's identity"
}

func first(re *regexp.Regexp, text string) string {
	if m := re.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// forbidden reads a 403, by the most telling of its two codes. It reports whether that
// says why.
func (c *client) forbidden(e *vault.Error, cl *call) (explained bool) {
	a := cl.last
	e.Kind = vault.ErrAccessDenied
	code := a.inner
	if code == "" {
		code = a.outer
	}
	cl.refused = refusal{status: a.status, code: code}
	switch code {
	case "ForbiddenByRbac":
		e.Detail = fmt.Sprintf("%s has no role that permits it; assign one, such as %s, on the key or its vault", who(a), c.roleFor(e.Op))
	case "AccessDenied", "ForbiddenByPolicy":
		e.Detail = fmt.Sprintf("the vault's access policy does not permit it to %s; %s", who(a), policyFor(e.Op))
	case "KeyOperationForbidden":
		e.Detail = fmt.Sprintf("the key's permitted operations do not include it; add %s to the key version", e.Op)
	case "ForbiddenByFirewall":
		from := "the caller's address"
		if ip := first(address, a.message); ip != "" {
			from = "the address " + strings.TrimRight(ip, ".:")
		}
		e.Detail = fmt.Sprintf("the vault's firewall does not allow %s; add it to the vault's network rules", from)
	case "ForbiddenByConnection":
		e.Detail = "the vault takes no calls from the public network; call it through its private endpoint"
	case "KeyDisabled":
		e.Kind, e.Detail = vault.ErrKeyDisabled, "enable the key version to use it"
	case "KeyExpired":
		e.Kind, e.Detail = vault.ErrKeyExpired, "extend the key version's expiry, or rotate the key"
	case "KeyNotYetValid":
		e.Kind, e.Detail = vault.ErrKeyNotYetValid, "it can be used from its activation date on"
	default:
		// 403 with "Forbidden" alone is how a wrap outside the key's dates is refused,
		// too; WrapKey asks for the dates then, and whatever the code that is new here.
		e.Detail = "the vault refuses it, with a code that does not say why"
		quote(e, a)
		return false
	}
	return true
}

// roleFor names the built-in role with the least that permits an operation.
func (c *client) roleFor(op vault.Operation) string {
	switch hsm := c.managedHSM(); {
	case op == vault.OpGet || op == vault.OpWrapKey || op == vault.OpUnwrapKey:
		if hsm {
			return "Managed HSM Crypto Service Encryption User"
		}
		return "Key Vault Crypto Service Encryption User"
	case !hsm:
		return "Key Vault Crypto Officer"
	case op == OpPurge || op == OpRecover:
		return "Managed HSM Crypto Officer"
	}
	return "Managed HSM Crypto User"
}

func policyFor(op vault.Operation) string {
	switch op {
	case vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey:
		return "add get, wrapKey and unwrapKey for keys"
	}
	return fmt.Sprintf("add %s for keys", op)
}

// akv finds Key Vault's code for what is wrong with a token, which is in the text.
var akv = regexp.MustCompile(`\bAKV[0-9]+`)

// unauthorized reads a 401: a token that was not accepted. The client has answered
// the vault's challenge already. The vault's text is quoted, which says more than its
// codes; what it does not say is not guessed.
func (c *client) unauthorized(e *vault.Error, cl *call) {
	a := cl.last
	e.Kind = vault.ErrAccessDenied
	text := a.message + " " + a.inner + " " + a.outer
	cl.refused = refusal{status: a.status, code: a.inner, text: text}
	quote(e, a)
	code := akv.FindString(text)
	if code != "" && !strings.Contains(e.Code, code) {
		e.Code += "/" + code
	}
	switch code {
	case "AKV10032": // invalid issuer
		e.Kind = vault.ErrWrongTenant
		e.Detail = "the token was issued by another tenant than the vault's; sign in to the tenant that owns the vault"
		if tenants := issuer.FindAllStringSubmatch(a.message, -1); len(tenants) > 0 {
			found := tenants[len(tenants)-1][1]
			if want := c.tenant(); want != "" && want != found {
				e.Detail = fmt.Sprintf("the token was issued by tenant %s and the vault is in tenant %s; sign in to the tenant that owns the vault", found, want)
			}
		}
	case "AKV10022": // invalid audience
		e.Detail = "the token was issued for another service; check that ClientOptions.Cloud is the vault's cloud"
	default:
		e.Detail = "the vault did not accept the caller's token"
	}
}
