package azure

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/vault"
)

// PreflightOptions configure a preflight. A nil *PreflightOptions, and each zero field,
// means the default that the field states.
type PreflightOptions struct {
	// Tenant that the vault is expected to be in. Default: any.
	Tenant string
	// ExpiryHorizon is how long the key should still be in date. Default: 30 days.
	ExpiryHorizon time.Duration
	// Slow is how long a call should take at most. Default: 1 second.
	Slow time.Duration
	// AllowPurge makes a vault without purge protection a warning. Default: it fails,
	// because one call then destroys the key and all data under it.
	AllowPurge bool
}

func (o *PreflightOptions) withDefaults() PreflightOptions {
	var f PreflightOptions
	if o != nil {
		f = *o
	}
	if f.ExpiryHorizon == 0 {
		f.ExpiryHorizon = 30 * day
	}
	if f.Slow == 0 {
		f.Slow = time.Second
	}
	return f
}

// Preflight looks whether a key can serve as the KEK of a store, with this Vault's
// identity: that the vault answers and in which tenant, how it protects deleted keys,
// the key's type, operations, state and dates, and the permissions by a real wrap and
// unwrap of random bytes. It changes nothing. It makes three calls, and what fails is in
// the report with what to do; ctx bounds it.
func (v *Vault) Preflight(ctx context.Context, id vault.KeyID, opts *PreflightOptions) Report {
	p := preflight{Report: Report{Vault: v.url, Key: id.String()}, v: v, opts: opts.withDefaults(), now: v.opts.Clock.Now()}
	id, err := v.own(vault.OpGet, id)
	if err != nil {
		p.add("key", Fail, "name a key of this vault", "%v", err)
		return p.Report
	}
	p.Key = id.String()
	var bundle azkeys.KeyBundle
	var key vault.Key
	took := p.timed(func() {
		err = v.do(ctx, vault.OpGet, id, func(ctx context.Context) error {
			resp, err := v.keys.GetKey(ctx, id.Name, id.Version, nil)
			if err != nil {
				return err
			}
			bundle = resp.KeyBundle
			key, err = v.key(vault.OpGet, id, bundle)
			return err
		})
	})
	p.tenant()
	if err != nil {
		p.failed("get", err)
		return p.Report
	}
	p.Key = key.ID.String()
	p.passed("get", took, "the identity may read the key's properties")
	p.recovery(bundle.Attributes)
	p.shape(key, bundle)
	p.state(key)
	p.use(ctx, key.ID)
	p.latency()
	return p.Report
}

type preflight struct {
	Report
	v    *Vault
	opts PreflightOptions
	now  time.Time
}

func (p *preflight) timed(f func()) time.Duration {
	start := p.v.opts.Clock.Elapsed()
	f()
	return p.v.opts.Clock.Elapsed() - start
}

func (p *preflight) passed(name string, took time.Duration, detail string) {
	p.Checks = append(p.Checks, Check{Name: name, Status: Pass, Detail: detail, Took: took})
}

// failed adds an operation's error. Its detail says what to do already.
func (p *preflight) failed(name string, err error) {
	c := Check{Name: name, Status: Fail, Detail: err.Error(), Remedy: "see the error's text"}
	if e, ok := errors.AsType[*vault.Error](err); ok && e.Detail != "" {
		c.Remedy = e.Detail
	}
	p.Checks = append(p.Checks, c)
}

func (p *preflight) tenant() {
	p.Tenant = p.v.client.tenant()
	switch want := p.opts.Tenant; {
	case p.Tenant == "":
		p.add("tenant", Warn, "look at what stands between: a Key Vault names its tenant before it takes a token", "the vault named none")
	case want != "" && !strings.EqualFold(want, p.Tenant):
		p.add("tenant", Fail, "use a vault of the tenant "+want+", or expect this one", "the vault is in tenant %s", p.Tenant)
	default:
		p.add("tenant", Pass, "", "%s", p.Tenant)
	}
}

// recovery reads the recovery level, which Key Vault gives with every key: Purgeable,
// Recoverable, Recoverable+Purgeable, Recoverable+ProtectedSubscription, and the same
// with CustomizedRecoverable for a retention of less than 90 days.
func (p *preflight) recovery(at *azkeys.KeyAttributes) {
	level, days := "", int32(0)
	if at.RecoveryLevel != nil {
		level = clean(*at.RecoveryLevel, "", 64)
	}
	if at.RecoverableDays != nil {
		days = *at.RecoverableDays
	}
	if !strings.Contains(level, "Recoverable") {
		p.add("soft delete", Fail, "enable soft delete: az keyvault update --enable-soft-delete true", "off: a deleted key is gone at once (recovery level %q)", level)
	} else {
		p.add("soft delete", Pass, "", "on: a deleted key can be recovered for %d days", days)
	}
	switch {
	case level != "" && !strings.Contains(level, "Purgeable"):
		p.add("purge protection", Pass, "", "on")
	case p.opts.AllowPurge:
		p.add("purge protection", Warn, purgeRemedy, "off: a deleted key can be purged at once")
	default:
		p.add("purge protection", Fail, purgeRemedy, "off: a deleted key can be purged at once, and everything under it is lost")
	}
}

const purgeRemedy = "enable purge protection, which cannot be undone: az keyvault update --enable-purge-protection true"

func (p *preflight) shape(key vault.Key, b azkeys.KeyBundle) {
	if why := unacceptable(key.Public); why != "" {
		p.add("key type", Fail, "make an RSA key of 2048 bits: az keyvault key create --kty RSA --size 2048", "%s", why)
	} else {
		p.add("key type", Pass, "", "%s, 2048 bits", clean(string(*b.Key.Kty), "", 16))
	}
	const remedy = "let the key permit wrapKey and unwrapKey alone: az keyvault key set-attributes --ops wrapKey unwrapKey"
	var more []string
	for _, op := range key.Operations {
		if op != vault.OpGet && op != vault.OpWrapKey && op != vault.OpUnwrapKey {
			more = append(more, clean(string(op), "", 16))
		}
	}
	slices.Sort(more)
	switch {
	case !key.Permits(vault.OpWrapKey) || !key.Permits(vault.OpUnwrapKey):
		p.add("key operations", Fail, remedy, "the key does not permit both wrapKey and unwrapKey")
	case slices.Contains(more, "decrypt"):
		p.add("key operations", Warn, remedy, "wrapKey and unwrapKey, and %s too: whoever may decrypt with the key can unwrap", strings.Join(more, ", "))
	case len(more) > 0:
		p.add("key operations", Warn, remedy, "wrapKey and unwrapKey, and %s too: a key should have one use", strings.Join(more, ", "))
	default:
		p.add("key operations", Pass, "", "wrapKey and unwrapKey")
	}
}

func (p *preflight) state(key vault.Key) {
	if key.Enabled {
		p.add("enabled", Pass, "", "the key version is enabled")
	} else {
		p.add("enabled", Fail, "enable it: az keyvault key set-attributes --enabled true", "the key version is disabled")
	}
	left := key.Expires.Sub(p.now)
	switch {
	case !key.NotBefore.IsZero() && p.now.Before(key.NotBefore):
		p.add("dates", Fail, "wait, or set an earlier activation date", "the key version is valid from %s", rfc3339(key.NotBefore))
	case key.Expires.IsZero():
		p.add("dates", Pass, "", "the key version does not expire")
	case left <= 0:
		p.add("dates", Fail, "extend its expiry, or rotate the key", "the key version expired at %s", rfc3339(key.Expires))
	case left < p.opts.ExpiryHorizon:
		p.add("dates", Warn, "rotate the key in time, or give it a rotation policy", "the key version expires at %s, in %d days", rfc3339(key.Expires), left/day)
	default:
		p.add("dates", Pass, "", "the key version expires at %s, in %d days", rfc3339(key.Expires), left/day)
	}
}

// use wraps and unwraps in the vault, also where Options.WrapLocally is set.
func (p *preflight) use(ctx context.Context, id vault.KeyID) {
	secret := make([]byte, 32)
	rand.Read(secret)
	var w vault.Wrapped
	var err error
	took := p.timed(func() { w, err = p.v.wrapRemotely(ctx, id, secret) })
	if err != nil {
		p.failed("wrap", err)
		return
	}
	p.passed("wrap", took, "the identity may wrap")
	var got []byte
	took = p.timed(func() { got, err = p.v.UnwrapKey(ctx, w) })
	switch {
	case err != nil:
		p.failed("unwrap", err)
	case subtle.ConstantTimeCompare(got, secret) != 1:
		p.add("unwrap", Fail, "do not use this vault", "the vault unwrapped something else than was wrapped")
	default:
		p.passed("unwrap", took, "the identity may unwrap, and what comes back is what went in")
	}
}

func (p *preflight) latency() {
	var slowest time.Duration
	for _, c := range p.Checks {
		slowest = max(slowest, c.Took)
	}
	slowest = slowest.Round(time.Millisecond)
	if slowest > p.opts.Slow {
		p.add("latency", Warn, "use a vault in the store's region, through a private endpoint", "the slowest of the calls took %v", slowest)
		return
	}
	p.add("latency", Pass, "", "the slowest of the calls took %v", slowest)
}

// Preflight is [Vault.Preflight] with the store's identity, and what only the
// administrator may see: whether the key rotates by itself, and how many versions of it
// are enabled.
func (a *Admin) Preflight(ctx context.Context, store *Vault, id vault.KeyID, opts *PreflightOptions) Report {
	r := store.Preflight(ctx, id, opts)
	id, err := a.own(OpGetRotationPolicy, id)
	if err != nil {
		r.add("administrator", Fail, "use an Admin of the store's vault", "%v", err)
		return r
	}
	policy, err := a.RotationPolicy(ctx, id.Name)
	switch {
	case err != nil:
		r.add("rotation policy", Warn, "let the administrator read it", "%v", err)
	case policy.RotateAfter == 0 && policy.RotateBeforeExpiry == 0:
		r.add("rotation policy", Warn, "set one: az keyvault key rotation-policy update", "the key does not rotate by itself")
	case id.Version != "":
		r.add("rotation policy", Warn, "use the key without a version, or move the store with RotateKEK after each rotation",
			"the key rotates by itself, and the store is pinned to one version")
	default:
		r.add("rotation policy", Pass, "", "the key rotates by itself")
	}
	versions, err := a.Versions(ctx, id.Name)
	if err != nil {
		r.add("versions", Warn, "let the administrator list them", "%v", err)
		return r
	}
	enabled := 0
	for _, v := range versions {
		if v.Enabled {
			enabled++
		}
	}
	r.add("versions", Pass, "", "%d, of which %d are enabled", len(versions), enabled)
	return r
}
