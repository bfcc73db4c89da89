package audit

import "github.com/blockseal/blockseal/vault"

// Options configure a [Vault] or an [Administrator]. Nil is all defaults.
type Options struct {
	// Identity is who calls the vault, such as the service's name. The default is
	// ""; [WithIdentity] overrides it.
	Identity string

	// Store is the store that the calls are for, such as its id or directory. The
	// default is ""; [WithStore] overrides it.
	Store string

	// FailClosed withholds the answer of an operation that could not be recorded:
	// the caller gets an error that matches [vault.ErrUnavailable] and
	// [ErrNotRecorded], and a secret is cleared. A store then behaves as if the
	// vault could not be reached: it serves until its lease ends. The record may
	// still be written later, so that the log can show an answer that nobody got,
	// and never the reverse. What it means for changes of a vault,
	// [Administrator.Do] says. The default is false: the operation goes on, and
	// OnError is told.
	FailClosed bool

	// OnError, if not nil, is called with the error of each record that could not
	// be written, before the operation returns. It may be called concurrently.
	OnError func(error)

	// Clock tells the time and measures durations. The default is the system's.
	Clock vault.Clock
}

// withDefaults returns a copy of o, which may be nil, with its defaults.
func (o *Options) withDefaults() (out Options) {
	if o != nil {
		out = *o
	}
	if out.Clock == nil {
		out.Clock = vault.SystemClock()
	}
	return out
}
