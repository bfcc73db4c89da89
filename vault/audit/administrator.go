package audit

import (
	"context"
	"fmt"

	"github.com/blockseal/blockseal/vault"
)

// Administrator records what is no call of a [vault.Vault]: what is done to a
// vault's keys, grants and secrets, by whatever the vault has for it, such as
// vault/local's Administrator and Vault. It is safe for concurrent use.
type Administrator struct {
	recorder Recorder
	opts     Options
}

// NewAdministrator returns an Administrator that records with recorder, as opts
// say.
func NewAdministrator(recorder Recorder, opts *Options) *Administrator {
	return &Administrator{recorder: recorder, opts: opts.withDefaults()}
}

// Action is an operation of an administrator. It is recorded as it is: it must have
// no secret in it.
type Action struct {
	Operation vault.Operation // such as "rotate" or "grant"
	Key       vault.KeyID     // of which key; of a vault as a whole, its name alone
	Detail    string          // what these do not say, such as what is granted to whom; may be empty
}

// Do runs f, which does what the action says, and records it once it has ended: when
// it began, how long it took, who asked, its outcome and, of a refusal or failure,
// what a [Vault] records of one. f returns the key that it used or made; the zero
// KeyID is the action's. Do returns f's error.
//
// With [Options.FailClosed] the recorder is asked first, if it can tell as [*Log]
// can ([Log.Flush]): what is sure not to be recorded is not begun, with an error that
// matches [vault.ErrUnavailable] and [ErrNotRecorded]. If only the record of what f
// did cannot be written, the error matches ErrNotRecorded: a change was made, and
// should be looked at before it is made again; what f read must not be used, so that
// the log never lacks what somebody got. Put what f read into its place, such as a
// file, after Do.
func (a *Administrator) Do(ctx context.Context, what Action, f func(context.Context) (vault.KeyID, error)) error {
	if log, ok := a.recorder.(interface{ Flush(context.Context) error }); ok && a.opts.FailClosed {
		if err := log.Flush(ctx); err != nil {
			if a.opts.OnError != nil {
				a.opts.OnError(err)
			}
			return &vault.Error{Op: what.Operation, Key: what.Key, Kind: vault.ErrUnavailable,
				Detail: "it was not begun because it could not be recorded; make the audit log writable", Err: err}
		}
	}
	o := begin(ctx, a.recorder, &a.opts, what.Operation, what.Key)
	used, err := f(o.ctx)
	o.ended(err)
	if used != (vault.KeyID{}) {
		o.record.Key, o.record.Version = used.Versionless().String(), used.Version
	} else {
		used = what.Key
	}
	switch {
	case o.record.Detail == "":
		o.record.Detail = what.Detail
	case what.Detail != "":
		o.record.Detail = what.Detail + "; " + o.record.Detail
	}
	notRecorded := o.write()
	switch {
	case notRecorded == nil || !a.opts.FailClosed:
		return err
	case err != nil:
		return fmt.Errorf("%w; and %w", err, notRecorded)
	}
	return fmt.Errorf("audit: %s of %s was done, and could not be recorded; make the audit log writable: %w", what.Operation, used, notRecorded)
}

// Refusal is an error of a program that says no by itself, without asking the
// vault. It is recorded as [OutcomeDenied], with both texts, which must have no
// secret in them.
type Refusal struct {
	Reason string // of which kind, such as "key in use"
	Detail string // what to look at or do
}

// Error returns the reason and the detail.
func (r *Refusal) Error() string {
	if r.Detail == "" {
		return r.Reason
	}
	return r.Reason + ": " + r.Detail
}
