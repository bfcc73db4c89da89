package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/vault"
)

// Vault does what another vault does, and records each operation once it has
// ended. It is safe for concurrent use if that vault is.
type Vault struct {
	inner    vault.Vault
	recorder Recorder
	opts     Options
}

var (
	_ vault.Vault         = (*Vault)(nil)
	_ vault.VersionLister = (*Vault)(nil)
)

// New returns a vault that passes each operation on to inner and records it.
func New(inner vault.Vault, recorder Recorder, opts *Options) *Vault {
	return &Vault{inner: inner, recorder: recorder, opts: opts.withDefaults()}
}

// GetKey implements [vault.Vault].
func (v *Vault) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	c := v.begin(ctx, vault.OpGet, id)
	key, err := v.inner.GetKey(c.ctx, id)
	if withheld := c.end(key.ID, err); withheld != nil {
		return vault.Key{}, withheld
	}
	return key, err
}

// WrapKey implements [vault.Vault].
func (v *Vault) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	c := v.begin(ctx, vault.OpWrapKey, id)
	w, err := v.inner.WrapKey(c.ctx, id, secret)
	if withheld := c.end(w.KeyID, err); withheld != nil {
		return vault.Wrapped{}, withheld
	}
	return w, err
}

// UnwrapKey implements [vault.Vault].
func (v *Vault) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	c := v.begin(ctx, vault.OpUnwrapKey, w.KeyID)
	secret, err := v.inner.UnwrapKey(c.ctx, w)
	if withheld := c.end(w.KeyID, err); withheld != nil {
		clear(secret)
		return nil, withheld
	}
	return secret, err
}

// KeyVersions implements [vault.VersionLister], if the vault that it stands in front of does:
// otherwise the error matches [errors.ErrUnsupported], and there is nothing to record.
func (v *Vault) KeyVersions(ctx context.Context, id vault.KeyID) ([]vault.KeyID, error) {
	inner, ok := v.inner.(vault.VersionLister)
	if !ok {
		return nil, fmt.Errorf("audit: the versions of %s: %w", id.Versionless(), errors.ErrUnsupported)
	}
	id = id.Versionless()
	c := v.begin(ctx, "list", id)
	ids, err := inner.KeyVersions(c.ctx, id)
	answered := id
	if len(ids) > 0 {
		answered = ids[0].Versionless()
	}
	if withheld := c.end(answered, err); withheld != nil {
		return nil, withheld
	}
	return ids, err
}

// call is an operation of a vault.Vault.
type call struct {
	*operation
	asked vault.KeyID
}

func (v *Vault) begin(ctx context.Context, op vault.Operation, id vault.KeyID) call {
	return call{begin(ctx, v.recorder, &v.opts, op, id), id}
}

// end records the call with its answer and error, and returns the error that must
// take the answer's place, or nil.
func (c call) end(answered vault.KeyID, err error) error {
	c.ended(err)
	if err == nil {
		c.answer(answered)
	}
	notRecorded := c.write()
	if notRecorded == nil || !c.opts.FailClosed {
		return nil
	}
	if err != nil {
		// The vault gave nothing that could be withheld, and what it said must be
		// heard: a denial has to lock the store.
		return fmt.Errorf("%w; and %w", err, notRecorded)
	}
	return &vault.Error{
		Op: c.record.Operation, Key: c.asked, Kind: vault.ErrUnavailable,
		Detail: "the vault answered, but the answer was withheld because its audit record could not be written; make the audit log writable",
		Err:    notRecorded,
	}
}

// answer records which key the vault says that it used.
func (c call) answer(id vault.KeyID) {
	asked := c.asked.Canonical().Vault
	if id.Name != c.asked.Name || (asked != "" && id.Canonical().Vault != asked) ||
		(c.asked.Version != "" && id.Version != c.asked.Version) {
		c.record.Detail = "the vault answered for another key"
		if id.Validate() == nil {
			c.record.Detail += ", " + id.String()
		}
		return
	}
	c.record.Key, c.record.Version = id.Versionless().String(), id.Version
}
