package keyring

import "time"

// Policy is what the document remembers of [Options], and what holds now, whatever
// this Open was given.
type Policy struct {
	Wrapping     Wrapping      `json:"wrapping"`
	EpochMaxDEKs uint64        `json:"epochMaxDEKs"`
	EpochMaxAge  time.Duration `json:"epochMaxAge"` // 0: for ever
	RekeyAfter   time.Duration `json:"rekeyAfter"`  // 0: never
}

// Policy returns the policy in force; the zero Policy before the keyring was first
// available, because it is in the document's sealed part.
func (r *Keyring) Policy() Policy {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.policy
	return Policy{Wrapping: p.wrapping, EpochMaxDEKs: p.maxDEKs, EpochMaxAge: p.maxAge, RekeyAfter: p.rekeyAfter}
}

// overlay sets in p what the options say explicitly, and reports whether that
// changed anything.
func (p *policy) overlay(o *Options) bool {
	was := *p
	if o.Wrapping != 0 {
		p.wrapping = o.Wrapping
	}
	if o.EpochMaxDEKs != 0 {
		p.maxDEKs = o.EpochMaxDEKs
	}
	p.maxAge = age(o.EpochMaxAge, p.maxAge)
	p.rekeyAfter = age(o.RekeyAfter, p.rekeyAfter)
	return *p != was
}

// age is what an option says of an age, in whole seconds: 0 leaves what was,
// negative is none.
func age(option, was time.Duration) time.Duration {
	switch {
	case option == 0:
		return was
	case option < 0:
		return 0
	}
	return max(option.Truncate(time.Second), time.Second)
}

// epochsPerRekey is how many epochs begin in RekeyAfter at least: a DEK is replaced
// when the oldest that its epoch can hold is due, so up to this part of the time early.
const epochsPerRekey = 4

// epochAge is the age at which an epoch is followed by another; 0: any.
func (p *policy) epochAge() time.Duration {
	if p.rekeyAfter == 0 {
		return p.maxAge
	}
	part := max(p.rekeyAfter/epochsPerRekey, time.Second)
	if p.maxAge == 0 {
		return part
	}
	return min(p.maxAge, part)
}
