package block

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Relocation is what [Relocate] did.
type Relocation struct {
	keyring.Relocation
	// Copies are the registered copies of the store, and what became of each.
	Copies []RelocatedCopy `json:"copies"`
}

// RelocatedCopy is a registered copy that was relocated too, or was not.
type RelocatedCopy struct {
	Copy
	// Err is why not; nil: its keys are where Copy says. A copy that is elsewhere needs a call of
	// its own.
	Err error `json:"error"`
}

// Relocate makes the store in dir open with k after its KEK has moved: the same key was restored or
// imported, in another vault or under another name, as after the loss of a vault. It does not ask
// the former vault, which may be gone. It does what [keyring.Relocate] does, in one atomic write:
// whatever happens meanwhile, all of the store's keys are in the former place or all are in the new
// one. It makes a constant number of vault calls for each KEK version that the document and the DEK
// records name, and for each version of k, and reads every DEK record.
//
// The registered copies that can be reached are relocated too; the result and an event say what
// became of each. A copy goes on waiting for its own Revalidate. Called again, Relocate goes on
// with what is left; if all is in place, it changes nothing. dir may be a copy, wherever it is.
//
// The store must not be open elsewhere ([ErrLocked]), and is closed when Relocate returns.
// Options.Keyring.Anchor is checked, and advanced afterwards; leave it out for a copy, which is
// older. An error says that no identifier was changed, unless it says that the store was relocated.
// If a KEK version does not exist, the error names it and matches vault.ErrKeyNotFound.
//
// Erase knows a key by its public key: its receipt has all places of one, also of earlier versions
// that are found in the new place, as after a restore. Destroying the key in one place destroys
// nothing.
func Relocate(ctx context.Context, dir string, k *kek.KEK, opts *Options) (Relocation, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.ReadOnly || o.Keyring.ReadOnly {
		return Relocation{}, fmt.Errorf("block: relocate %s: %w", dir, ErrReadOnly)
	}
	if err := inner.RequireKEK(k); err != nil {
		return Relocation{}, fmt.Errorf("block: relocate: %w", err)
	}
	if found, err := place.Has(o.Pebble.fs(), dir); err != nil || !found {
		return Relocation{}, errors.Join(err, fmt.Errorf("block: relocate %s: %w", dir, ErrNotStore))
	}
	rel, s, err := relocate(ctx, dir, k.WithVersion(""), o)
	if err != nil {
		return Relocation{}, fmt.Errorf("block: relocate %s: %w", dir, err)
	}
	out := Relocation{Relocation: rel}
	if len(rel.Moved) > 0 {
		s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.KEKChanged, Key: s.keys.State().KEK, Detail: "relocated: the same key in another place"})
	}
	err = s.keys.Revalidate(ctx)
	if err == nil {
		err = s.proveNow(ctx) // it was not yet, if nothing was relocated
	}
	if err == nil {
		err = s.notePlaces(ctx, s.keys.KEK())
	}
	if err == nil {
		out.Copies, err = s.relocateCopies(ctx, k.WithVersion(""))
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return out, fmt.Errorf("block: relocate %s: the store was relocated, and not all that comes after was done, which another call does: %w", dir, err)
	}
	return out, nil
}

// relocate relocates one store or copy, and returns it open and locked.
func relocate(ctx context.Context, dir string, k *kek.KEK, o Options) (rel keyring.Relocation, s *Store, err error) {
	o.atRest, o.Keyring.For(inner.Block{}).AwaitRevalidate = true, true
	o.relocate = func(ctx context.Context, s *Store, ko keyring.Options) error {
		done, err := s.relocate(ctx, k, ko)
		if err == nil {
			rel = done
		}
		return err
	}
	if s, err = Open(ctx, dir, k, &o); err != nil && len(rel.Moved) > 0 {
		err = fmt.Errorf("the store was relocated, and could not be opened after that, which another call does: %w", err)
	}
	return rel, s, err
}

// relocate makes the relocated document beside the engine, opens it there, and saves it once it has
// opened records of this store. So nothing is written under a keyring that opens none, and what
// opens there opens afterwards.
func (s *Store) relocate(ctx context.Context, k *kek.KEK, ko keyring.Options) (rel keyring.Relocation, err error) {
	before, was, err := s.storage.Load(ctx)
	if err != nil {
		return rel, row.Damage(err)
	}
	unused, err := s.unnamedKEKs(ctx, before)
	if err != nil {
		return rel, err
	}
	ko.OnEvent, ko.Logger = nil, nil // nothing has happened yet
	var beside keyring.MemStorage
	if _, err := beside.Swap(ctx, "", before); err != nil {
		return rel, err
	}
	if rel, err = keyring.Relocate(ctx, &beside, k, &ko, unused...); err != nil || len(rel.Moved) == 0 {
		return rel, err
	}
	ko.For(inner.Block{}).AwaitRevalidate, ko.RequireAccess, ko.ReadOnly = false, true, true
	keys, err := keyring.Open(ctx, &beside, k, &ko)
	if err != nil {
		return rel, err
	}
	defer keys.Close()
	h, err := keys.Acquire()
	if err != nil {
		return rel, err
	}
	err = s.prove(ctx, &h)
	var t *inner.Tagger
	if err == nil {
		t, err = h.For(inner.Block{}).Tagger(register.Name)
	}
	h.Release()
	if err != nil {
		return rel, err
	}
	defer t.Destroy()
	after, _, err := beside.Load(ctx)
	if err != nil {
		return rel, err
	}
	_, err = s.storage.SwapTagged(ctx, was, after, inner.Opened{
		Tag:        func(_ string, record []byte) [inner.TagSize]byte { return t.Tag(record) },
		Generation: rel.Generation, Instance: s.opts.Keyring.For(inner.Block{}).Instance, // Relocate made it of this instance
	})
	return rel, err
}

// unnamedKEKs returns the ids of a document's KEKs that no DEK record names.
func (s *Store) unnamedKEKs(ctx context.Context, document []byte) (unused []uint32, err error) {
	in, err := keyring.Inspect(document)
	if err != nil {
		return nil, err
	}
	named := map[uint32]bool{}
	err = s.eachRecord(ctx, func(_, _ []byte, in keyring.RecordInfo) (bool, error) {
		if in.Wrapping == keyring.ByKEK {
			named[in.KEK] = true
		}
		return true, nil
	})
	for id := range in.KEKs {
		if !named[id] {
			unused = append(unused, id)
		}
	}
	return unused, err
}

// notePlaces saves which versions in the new place are keys that wrapped the store in the past: a
// copy from then opens with them there too. It asks for all versions of the key; if the vault does
// not list them, for those with the former names.
func (s *Store) notePlaces(ctx context.Context, k *kek.KEK) error {
	past := s.storage.Past()
	var found []register.PastKEK
	here, wanted := map[vault.KeyID]bool{}, map[register.PublicKey]bool{}
	var ask []vault.KeyID
	for _, p := range past.KEKs {
		if p.ID.Versionless() == k.ID().Versionless() {
			here[p.ID] = true
		} else if p.Public != (register.PublicKey{}) {
			wanted[p.Public] = true
			ask = append(ask, k.WithVersion(p.ID.Version).ID())
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if lister, ok := k.Vault().(vault.VersionLister); ok {
		inTime, end := s.vaultTime(ctx)
		all, err := lister.KeyVersions(inTime, k.ID().Versionless())
		if end(); err == nil {
			ask = all
		}
	}
	for _, id := range ask {
		if here[id] {
			continue
		}
		inTime, end := s.vaultTime(ctx)
		key, err := kek.New(k.Vault(), id).Get(inTime, s.keys.For(inner.Block{}).Now())
		if end(); key.ID == (vault.KeyID{}) {
			if errors.Is(err, vault.ErrKeyNotFound) {
				continue
			}
			return fmt.Errorf("which of the key's versions wrapped the store before: %w", err)
		}
		if kek.AdmitPublic(key.Public) != nil {
			continue
		}
		if public, err := kek.Fingerprint(key.Public); err == nil && wanted[public] {
			found = append(found, register.PastKEK{ID: key.ID, Public: public})
		}
	}
	t, err := s.taggerFor(register.Name)
	if err != nil {
		return err
	}
	defer t.Destroy()
	return s.storage.NotePast(ctx, t, found)
}

// vaultTime is ctx for one call to a vault.
func (s *Store) vaultTime(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := s.keys.For(inner.Block{}).AfterFunc(cmp.Or(s.opts.Keyring.VaultTimeout, keyring.DefaultVaultTimeout), cancel)
	return ctx, func() { stop(); cancel() }
}

// relocateCopies relocates the registered copies, and saves where their keys are now.
func (s *Store) relocateCopies(ctx context.Context, k *kek.KEK) ([]RelocatedCopy, error) {
	reg, _ := s.storage.View()
	var out []RelocatedCopy
	for _, c := range reg.Copies {
		err := s.relocateCopy(ctx, &c, k)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		e := keyring.Event{Kind: keyring.CopyKEKChanged, Key: c.KEK, Detail: c.Path}
		if err != nil {
			e.Kind, e.Err = keyring.CopyKEKNotChanged, err
		}
		s.keys.For(inner.Block{}).Emit(e)
		out = append(out, RelocatedCopy{Copy: Copy(c.Copy), Err: err})
	}
	return out, nil
}

func (s *Store) relocateCopy(ctx context.Context, c *register.Entry, k *kek.KEK) error {
	if c.Doubt != "" {
		return doubted(c.Copy)
	}
	o := s.copyOptions(ctx, c.Path)
	if _, err := s.inspectCopy(*c, &o); err != nil {
		return err
	}
	ko := s.opts.Keyring
	o.Keyring = keyring.Options{Clock: ko.Clock, VaultTimeout: ko.VaultTimeout, OtherKEKs: ko.OtherKEKs}
	as := *c // the copy's own keyring reads it while c is changed
	o.moving = &as
	_, copied, err := relocate(ctx, c.Path, k, o)
	var in keyring.Info
	if err == nil {
		// It stays a copy. Access is only needed to tag its list of files.
		err = copied.keys.Revalidate(ctx)
		in, c.Document = copied.keyringInfo(), copied.storage.Sum()
		err = errors.Join(err, copied.Close())
	}
	if err == nil {
		c.Update(in)
		return s.noteCopy(ctx, *c)
	}
	// Its document may have been saved. In clear it may only add to what the copy needs.
	if in, again := s.inspectCopy(*c, &o); again == nil {
		c.Need(append(slices.Collect(maps.Values(in.KEKs)), in.KEK)...)
		err = errors.Join(err, s.noteCopy(ctx, *c))
	}
	return err
}

// MarshalJSON implements [json.Marshaler].
func (r RelocatedCopy) MarshalJSON() ([]byte, error) {
	type plain RelocatedCopy
	return json.Marshal(struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain(r), errorText(r.Err)})
}
