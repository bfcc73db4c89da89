package keyvaulttest

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

type rotationPolicy struct {
	ID      string   `json:"id,omitempty"`
	Actions []action `json:"lifetimeActions"`
	Attr    struct {
		Expiry  string `json:"expiryTime,omitempty"`
		Created int64  `json:"created,omitempty"`
		Updated int64  `json:"updated,omitempty"`
	} `json:"attributes"`
}

type action struct {
	Trigger struct {
		AfterCreate  string `json:"timeAfterCreate,omitempty"`
		BeforeExpiry string `json:"timeBeforeExpiry,omitempty"`
	} `json:"trigger"`
	Action struct {
		Type string `json:"type"`
	} `json:"action"`
}

const day = 24 * time.Hour

var isoDuration = regexp.MustCompile(`^P(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,5})D)?(?:T(\d{1,5})H)?$`)

// period reads a duration of ISO 8601; a year is taken for 365 days, a month for 30.
func period(s string) (time.Duration, error) {
	m := isoDuration.FindStringSubmatch(strings.ToUpper(s))
	if m == nil || s == "P" {
		return 0, badParameter("The duration " + s + " is not valid.")
	}
	var d time.Duration
	for i, unit := range []time.Duration{365 * day, 30 * day, day, time.Hour} {
		if m[i+1] != "" {
			n, err := strconv.Atoi(m[i+1])
			if err != nil {
				return 0, badParameter("The duration " + s + " is not valid.")
			}
			d += time.Duration(n) * unit
		}
	}
	return d, nil
}

func isoOf(d time.Duration) string {
	if d%day == 0 {
		return fmt.Sprintf("P%dD", d/day)
	}
	return fmt.Sprintf("PT%dH", d/time.Hour)
}

// policyOf returns a key's policy, and whether there is such a key.
func (s *Server) policyOf(r *request) (local.RotationPolicy, error) {
	keys, err := s.vault.ListKeys(r.Context())
	if err != nil {
		return local.RotationPolicy{}, err
	}
	for _, k := range keys {
		if k.Current.ID.Name == r.name {
			return k.Policy, nil
		}
	}
	return local.RotationPolicy{}, &vault.Error{Op: vault.OpGet, Key: r.key(), Kind: vault.ErrKeyNotFound}
}

// defaultNotify is when Key Vault tells of an expiry of a key whose policy does not say.
const defaultNotify = "P30D"

func (s *Server) getPolicy(r *request) (any, error) {
	if err := s.granted(r, vault.OpGet); err != nil {
		return nil, err
	}
	p, err := s.policyOf(r)
	if err != nil {
		return nil, err
	}
	out := rotationPolicy{ID: s.url + "/keys/" + r.name + "/rotationpolicy", Actions: []action{}}
	if p.ExpiresAfter > 0 {
		out.Attr.Expiry = isoOf(p.ExpiresAfter)
	}
	add := func(kind, afterCreate, beforeExpiry string) {
		var a action
		a.Action.Type, a.Trigger.AfterCreate, a.Trigger.BeforeExpiry = kind, afterCreate, beforeExpiry
		out.Actions = append(out.Actions, a)
	}
	if p.RotateAfter > 0 {
		add("Rotate", isoOf(p.RotateAfter), "")
	}
	if p.RotateBeforeExpiry > 0 {
		add("Rotate", "", isoOf(p.RotateBeforeExpiry))
	}
	s.mu.Lock()
	notify := s.notify[r.name]
	s.mu.Unlock()
	add("Notify", "", cmp.Or(notify, defaultNotify))
	return out, nil
}

func (s *Server) setPolicy(r *request) (any, error) {
	var in rotationPolicy
	if err := r.read(&in); err != nil {
		return nil, err
	}
	p := local.RotationPolicy{}
	var err error
	if in.Attr.Expiry != "" {
		if p.ExpiresAfter, err = period(in.Attr.Expiry); err != nil {
			return nil, err
		}
		if p.ExpiresAfter < 28*day {
			return nil, badParameter("The expiryTime should be at least 28 days.")
		}
	}
	notify := ""
	for _, a := range in.Actions {
		switch t := a.Trigger; {
		case strings.EqualFold(a.Action.Type, "Notify"):
			before, err := period(t.BeforeExpiry)
			if err != nil || t.AfterCreate != "" {
				return nil, badParameter("The trigger of Notify is a time before expiry.")
			}
			notify = isoOf(before)
		case !strings.EqualFold(a.Action.Type, "Rotate"):
			return nil, badParameter("The action " + a.Action.Type + " is not supported.")
		default:
			if t.AfterCreate != "" {
				if p.RotateAfter, err = period(t.AfterCreate); err != nil {
					return nil, err
				}
			}
			if t.BeforeExpiry != "" {
				if p.RotateBeforeExpiry, err = period(t.BeforeExpiry); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := s.admin(r).SetRotationPolicy(r.Context(), r.name, p); err != nil {
		return nil, err
	}
	// The file vault tells nobody of anything.
	s.mu.Lock()
	s.notify[r.name] = notify
	s.mu.Unlock()
	return s.getPolicy(r)
}
