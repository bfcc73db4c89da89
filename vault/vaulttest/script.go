package vaulttest

import "time"

// Step is one step of a script.
type Step struct {
	At time.Duration // after the script's start, on the monotonic clock
	Do func(*Vault)  // what happens then
}

// Script arranges for steps to happen as the clock advances from now on. Each
// runs inside [Clock.Advance], at its moment; steps of one moment run in the
// order given. stop leaves out those that have not happened.
//
//	v.Script(clock, []vaulttest.Step{
//		{At: 5 * time.Minute, Do: func(v *vaulttest.Vault) { v.SetOutage(vaulttest.NetworkGone()) }},
//		{At: 9 * time.Minute, Do: func(v *vaulttest.Vault) { v.SetOutage(nil) }},
//	})
func (v *Vault) Script(clock *Clock, steps []Step) (stop func()) {
	var stops []func() bool
	for _, s := range steps {
		stops = append(stops, clock.AfterFunc(s.At, func() { s.Do(v) }))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}
