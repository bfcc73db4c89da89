package azure

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/vault"
)

// RotationPolicy says when Key Vault makes a new current version of a key by itself.
// Key Vault counts in whole days; of a policy that was made elsewhere, a month is read
// as 30 days and a year as 365. The zero policy does nothing.
type RotationPolicy struct {
	// RotateAfter rotates that long after the current version was made, at least 7
	// days. Default: never. Either this or RotateBeforeExpiry.
	RotateAfter time.Duration `json:"rotateAfter,omitzero"`
	// RotateBeforeExpiry rotates that long before the current version expires, at least
	// 7 days. It needs ExpiresAfter. Default: never.
	RotateBeforeExpiry time.Duration `json:"rotateBeforeExpiry,omitzero"`
	// ExpiresAfter is when new versions expire, at least 28 days from their creation.
	// Default: never.
	ExpiresAfter time.Duration `json:"expiresAfter,omitzero"`
	// NotifyBefore is how long before expiry Key Vault sends the event KeyNearExpiry, if
	// the version expires. Default: 30 days.
	NotifyBefore time.Duration `json:"notifyBefore,omitzero"`
}

const day = 24 * time.Hour

// What Key Vault documents ("Configure cryptographic key auto-rotation").
const (
	minExpiry   = 28 * day
	minRotation = 7 * day
)

func (p RotationPolicy) validate() error {
	for _, d := range []struct {
		name  string
		d     time.Duration
		least time.Duration
	}{
		{"RotateAfter", p.RotateAfter, minRotation}, {"RotateBeforeExpiry", p.RotateBeforeExpiry, minRotation},
		{"ExpiresAfter", p.ExpiresAfter, minExpiry}, {"NotifyBefore", p.NotifyBefore, day},
	} {
		if d.d != 0 && (d.d < d.least || d.d%day != 0) {
			return fmt.Errorf("%s is %v, want whole days, at least %d", d.name, d.d, d.least/day)
		}
	}
	switch {
	case p.RotateAfter != 0 && p.RotateBeforeExpiry != 0:
		return fmt.Errorf("RotateAfter and RotateBeforeExpiry exclude each other")
	case p.ExpiresAfter == 0 && p.RotateBeforeExpiry != 0:
		return fmt.Errorf("RotateBeforeExpiry needs ExpiresAfter")
	case p.ExpiresAfter != 0 && (p.RotateBeforeExpiry >= p.ExpiresAfter || p.NotifyBefore >= p.ExpiresAfter || p.RotateAfter >= p.ExpiresAfter):
		return fmt.Errorf("versions would expire after %d days, before the policy acts", p.ExpiresAfter/day)
	}
	return nil
}

func (p RotationPolicy) encode() azkeys.KeyRotationPolicy {
	out := azkeys.KeyRotationPolicy{
		Attributes:      &azkeys.KeyRotationPolicyAttributes{},
		LifetimeActions: []*azkeys.LifetimeAction{}, // not nil: what is not named stays
	}
	add := func(kind azkeys.KeyRotationPolicyAction, t azkeys.LifetimeActionTrigger) {
		out.LifetimeActions = append(out.LifetimeActions, &azkeys.LifetimeAction{Action: &azkeys.LifetimeActionType{Type: &kind}, Trigger: &t})
	}
	iso := func(d time.Duration) *string { return to.Ptr(fmt.Sprintf("P%dD", d/day)) }
	if p.ExpiresAfter != 0 {
		out.Attributes.ExpiryTime = iso(p.ExpiresAfter)
	}
	if p.RotateAfter != 0 {
		add(azkeys.KeyRotationPolicyActionRotate, azkeys.LifetimeActionTrigger{TimeAfterCreate: iso(p.RotateAfter)})
	}
	if p.RotateBeforeExpiry != 0 {
		add(azkeys.KeyRotationPolicyActionRotate, azkeys.LifetimeActionTrigger{TimeBeforeExpiry: iso(p.RotateBeforeExpiry)})
	}
	if p.NotifyBefore != 0 {
		add(azkeys.KeyRotationPolicyActionNotify, azkeys.LifetimeActionTrigger{TimeBeforeExpiry: iso(p.NotifyBefore)})
	}
	return out
}

func decodePolicy(in azkeys.KeyRotationPolicy) (p RotationPolicy, err error) {
	read := func(into *time.Duration, s *string) {
		if s == nil || *s == "" || err != nil {
			return
		}
		*into, err = isoDuration(*s)
	}
	if in.Attributes != nil {
		read(&p.ExpiresAfter, in.Attributes.ExpiryTime)
	}
	for _, a := range in.LifetimeActions {
		if a == nil || a.Action == nil || a.Action.Type == nil || a.Trigger == nil {
			continue
		}
		switch strings.ToLower(string(*a.Action.Type)) {
		case "rotate":
			read(&p.RotateAfter, a.Trigger.TimeAfterCreate)
			read(&p.RotateBeforeExpiry, a.Trigger.TimeBeforeExpiry)
		case "notify":
			read(&p.NotifyBefore, a.Trigger.TimeBeforeExpiry)
		}
	}
	return p, err
}

var isoForm = regexp.MustCompile(`^P(?:(\d{1,3})Y)?(?:(\d{1,4})M)?(?:(\d{1,5})D)?(?:T(\d{1,6})H)?$`)

// isoDuration reads a duration of ISO 8601, as far as Key Vault writes them.
func isoDuration(s string) (time.Duration, error) {
	m := isoForm.FindStringSubmatch(strings.ToUpper(s))
	if m == nil || len(s) < 3 {
		return 0, fmt.Errorf("a duration that cannot be read")
	}
	var d time.Duration
	for i, unit := range []time.Duration{365 * day, 30 * day, day, time.Hour} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return 0, fmt.Errorf("a duration that cannot be read")
		}
		d += time.Duration(n) * unit
	}
	return d, nil
}

// SetRotationPolicy replaces a key's rotation policy. The error matches [ErrInvalid] if
// the policy cannot be right.
func (a *Admin) SetRotationPolicy(ctx context.Context, name string, p RotationPolicy) error {
	id, err := a.own(OpSetRotationPolicy, vault.KeyID{Name: name})
	if err != nil {
		return err
	}
	if err := p.validate(); err != nil {
		return refuse(OpSetRotationPolicy, id, ErrInvalid, "a rotation policy: %v", err)
	}
	return a.do(ctx, OpSetRotationPolicy, id, func(ctx context.Context) error {
		_, err := a.keys.UpdateKeyRotationPolicy(ctx, name, p.encode(), nil)
		return err
	})
}

// RotationPolicy returns a key's rotation policy.
func (a *Admin) RotationPolicy(ctx context.Context, name string) (RotationPolicy, error) {
	id, err := a.own(OpGetRotationPolicy, vault.KeyID{Name: name})
	if err != nil {
		return RotationPolicy{}, err
	}
	var p RotationPolicy
	err = a.do(ctx, OpGetRotationPolicy, id, func(ctx context.Context) error {
		resp, err := a.keys.GetKeyRotationPolicy(ctx, name, nil)
		if err != nil {
			return err
		}
		if p, err = decodePolicy(resp.KeyRotationPolicy); err != nil {
			return malformed(OpGetRotationPolicy, id, "its rotation policy has "+err.Error())
		}
		return nil
	})
	return p, err
}
