package main

import (
	"strconv"
	"strings"
	"time"
)

// daysFlag is a duration that may be given in days: 90d, 36h, 1h30m.
type daysFlag struct{ d time.Duration }

func (f *daysFlag) Type() string { return "duration" }

func (f *daysFlag) String() string {
	if f.d == 0 {
		return ""
	}
	return days(f.d)
}

func (f *daysFlag) Set(s string) (err error) {
	f.d, err = parseDays(s)
	return err
}

func parseDays(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseInt(n, 10, 32)
		return time.Duration(days) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// days writes a duration, in days if it is a whole number of them.
func days(d time.Duration) string {
	if d != 0 && d%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(d/(24*time.Hour)), 10) + "d"
	}
	return d.String()
}

// timeFlag is a moment: RFC 3339, a date, "now", "never", or a duration from now on
// such as 90d, or before now such as -1h.
type timeFlag struct {
	set bool
	t   time.Time // zero: never
}

const timeHelp = "(RFC 3339, 2027-01-31, now, never, or from now on: 90d, -1h)"

func (f *timeFlag) Type() string { return "time" }

func (f *timeFlag) String() string {
	if !f.set {
		return ""
	}
	return shown(f.t)
}

func (f *timeFlag) Set(s string) error {
	f.set = true
	switch s {
	case "never":
		f.t = time.Time{}
		return nil
	case "now":
		f.t = time.Now()
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			f.t = t
			return nil
		}
	}
	d, err := parseDays(s)
	f.t = time.Now().Add(d)
	return err
}
