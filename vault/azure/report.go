package azure

import (
	"fmt"
	"strings"
	"time"
)

// Status is the outcome of a [Check]. The zero value is none.
type Status int

// The outcomes.
const (
	Pass Status = iota + 1
	Warn        // it works, and somebody should look at it
	Fail        // a store would not open, or its data could be lost
)

// String returns "pass", "warn" or "fail".
func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Warn:
		return "warn"
	case Fail:
		return "fail"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// MarshalText implements encoding.TextMarshaler: the status in JSON.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Check is one thing that a preflight looked at.
type Check struct {
	Name   string        `json:"name"`
	Status Status        `json:"status"`
	Detail string        `json:"detail"`           // what was found
	Remedy string        `json:"remedy,omitempty"` // what to do; "" if it passed
	Took   time.Duration `json:"took,omitempty"`
}

// Report is what a preflight found, in the order in which it looked.
type Report struct {
	Vault  string  `json:"vault"`
	Key    string  `json:"key"` // with its version, if the vault answered
	Tenant string  `json:"tenant,omitempty"`
	Checks []Check `json:"checks"`
}

// Worst returns the worst status of the checks.
func (r Report) Worst() Status {
	worst := Pass
	for _, c := range r.Checks {
		worst = max(worst, c.Status)
	}
	return worst
}

// OK reports whether no check failed.
func (r Report) OK() bool { return r.Worst() < Fail }

// String returns the report as a text of some lines, one or two for each check.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Key)
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "  %-4s  %-18s %s\n", c.Status, c.Name, c.Detail)
		if c.Remedy != "" {
			fmt.Fprintf(&b, "  %-4s  %-18s -> %s\n", "", "", c.Remedy)
		}
	}
	return b.String()
}

func (r *Report) add(name string, s Status, remedy, format string, args ...any) {
	c := Check{Name: name, Status: s, Detail: fmt.Sprintf(format, args...)}
	if s != Pass {
		c.Remedy = remedy
	}
	r.Checks = append(r.Checks, c)
}
