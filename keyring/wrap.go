package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// NewDEK returns a fresh DEK and its record, [RecordSize] or [RecordSizeByKEK]
// bytes, for the caller to keep apart from what the key seals. context is what
// the key is bound to, such as a partition and a block's id: OpenDEK needs the
// same. Destroy the key after use.
//
// The key outlives a lock that comes after NewDEK returned. To have the work
// with it end before a lock is announced, use [Keyring.Acquire] and
// [Hold.NewDEK].
func (r *Keyring) NewDEK(ctx context.Context, context []byte) (key *dek.Key, wrapped []byte, err error) {
	var b Binding
	b.Set(context)
	key = new(dek.Key)
	if wrapped, err = r.withHold(func(h *Hold) ([]byte, error) { return h.NewDEK(ctx, nil, key, &b) }); err != nil {
		return nil, nil, err
	}
	return key, wrapped, nil
}

// OpenDEK returns the DEK of a record that NewDEK returned with the same context.
// Destroy it after use. It returns an error that matches [ErrCorrupt] if the
// record is damaged, forged, of another store or another context.
func (r *Keyring) OpenDEK(ctx context.Context, wrapped, context []byte) (*dek.Key, error) {
	var b Binding
	b.Set(context)
	key := new(dek.Key)
	if _, err := r.withHold(func(h *Hold) ([]byte, error) { return nil, h.OpenDEK(ctx, key, wrapped, &b) }); err != nil {
		return nil, err
	}
	return key, nil
}

func (r *Keyring) withHold(f func(h *Hold) ([]byte, error)) ([]byte, error) {
	h, err := r.Acquire()
	if err != nil {
		return nil, err
	}
	defer func() { h.Release() }()
	return f(&h)
}

// NewDEK makes k a fresh key bound to b, and appends its record to dst. With
// ByKEK it releases the hold while the vault is asked and takes it again
// afterwards; if the keyring locked in between it returns [ErrInaccessible], k is
// destroyed, and the hold is good for nothing but to be released.
func (h *Hold) NewDEK(ctx context.Context, dst []byte, k *dek.Key, b *Binding) ([]byte, error) {
	if h.r.opts.ReadOnly {
		return nil, fmt.Errorf("keyring: new DEK: %w", ErrReadOnly)
	}
	if h.r.wrapsByKEK.Load() {
		k.Generate()
		dst, err := h.wrapByKEK(ctx, dst, k, b)
		if err != nil {
			k.Destroy()
		}
		return dst, err
	}
	e, err := h.epochForUse(ctx)
	if err != nil {
		return nil, err
	}
	aad := b.aad(RecordInfo{Wrapping: ByKeyring, Epoch: e.id}, (*[storeIDSize]byte)(&h.r.storeID))
	return k.GenerateWrapped(append(dst, aad[:headByKeyring]...), &e.aead, aad), nil
}

// sealRecord appends a record with the given clear part to dst.
func sealRecord(dst []byte, in RecordInfo, e *epoch, plain []byte, b *Binding, store *[storeIDSize]byte) []byte {
	aad := b.aad(in, store)
	dst = append(dst, aad[:in.headSize()]...)
	return e.aead.Seal(dst, plain, aad)
}

// wrapByKEK appends a ByKEK record for k to dst. The vault's wrap goes inside the
// epoch's seal, because an RSA wrap alone is authenticated by nobody, and with it a
// commitment to k, because what the wrap holds only the vault could say.
func (h *Hold) wrapByKEK(ctx context.Context, dst []byte, k *dek.Key, b *Binding) ([]byte, error) {
	r := h.r
	cur, client, err := h.kekForRecords(ctx)
	if err != nil {
		return nil, err
	}
	var w vault.Wrapped
	if err := h.outside(ctx, func(ctx context.Context) (err error) {
		w, err = r.wrap(ctx, kek.New(client.Vault(), cur.key), k.Bytes())
		return err
	}); err != nil {
		return nil, h.r.suspect(err)
	}
	e, err := h.epochForUse(ctx)
	if err != nil {
		return nil, err
	}
	in := RecordInfo{Wrapping: ByKEK, Epoch: e.id, KEK: cur.id}
	sum := commitment(k.Bytes())
	var room [innerByKEK]byte
	inner := append(append(room[:0], w.Ciphertext...), sum[:]...)
	return sealRecord(dst, in, e, inner, b, (*[storeIDSize]byte)(&r.storeID)), nil
}

// kekForRecords returns the KEK that new ByKEK records are wrapped by. Before the
// first one, the document says that there are such records, so that the KEK's
// version is not forgotten when the document moves to another. It moves at any time,
// so that what is returned was seen to be marked in the document, as one.
func (h *Hold) kekForRecords(ctx context.Context) (kekEntry, *kek.KEK, error) {
	r := h.r
	for {
		r.docMu.Lock()
		cur, client := r.header.current(), r.kek
		r.docMu.Unlock()
		if cur.records {
			return cur, client, nil
		}
		if err := ofDocument(r.mutateHeader(ctx, h, markRecords, nil)); err != nil {
			return kekEntry{}, nil, err
		}
	}
}

// markRecords says of the KEK that wraps the document that it wraps records too.
func markRecords(next *header, _ *body) error {
	for i := range next.keks {
		if e := &next.keks[i]; e.id == next.active {
			if e.records {
				return errUnchanged
			}
			e.records = true
		}
	}
	return nil
}

// outside runs f without the hold, because it waits for a vault, and then takes
// the hold again. f's error comes first; if the keyring locked meanwhile, that.
//
// A lock does not wait for the vault: it ends the ctx that f is given, for which no call
// outlasts it, even of a client that ignores its context. But it waits for the operation,
// which has a DEK in hand, to come back from there, find that there is no hold to be had,
// and end: until the hold is released the operation counts as away.
func (h *Hold) outside(ctx context.Context, f func(context.Context) error) error {
	s := h.s
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errLockedMeanwhile) })()
	s.away.N.Add(1) // before the hold is let go, so that a lock sees one or the other
	h.Release()
	h.c = &s.away
	err := f(ctx)
	again, lockErr := h.r.For(inner.Block{}).AcquireSession(s.id)
	if lockErr != nil {
		if err != nil && !errors.Is(context.Cause(ctx), errLockedMeanwhile) {
			return err
		}
		return lockErr
	}
	s.away.end()
	*h = again
	return err
}

// OpenDEK makes k the key of a record, bound to b. With a ByKEK record whose DEK
// is not in the cache it lets go of the hold as NewDEK does. A record that names an epoch or
// a KEK that the keyring does not know is damaged if the document in storage does not have it
// either.
func (h *Hold) OpenDEK(ctx context.Context, k *dek.Key, record []byte, b *Binding) error {
	in, err := ParseRecord(record)
	if err != nil {
		return err
	}
	e := h.s.epoch(in.Epoch)
	if e == nil {
		if e, err = h.lookForEpoch(ctx, in); err != nil {
			return err
		}
	}
	aad := b.aad(in, (*[storeIDSize]byte)(&h.r.storeID))
	if in.Wrapping == ByKeyring {
		if k.Unwrap(record[headByKeyring:], &e.aead, aad) != nil {
			return errRecord(in)
		}
		return nil
	}
	inner, err := e.aead.Open(nil, record[headByKEK:], aad)
	if err != nil {
		return errRecord(in)
	}
	return h.openByKEK(ctx, k, in, inner)
}

// CheckRecord authenticates a record for b under its epoch, without opening the
// DEK and without a vault. If the keyring does not know the epoch, it looks for it in the
// storage.
func (f *holdForBlock) CheckRecord(ctx context.Context, record []byte, b *Binding) error {
	h := (*Hold)(f)
	in, err := ParseRecord(record)
	if err != nil {
		return err
	}
	e := h.s.epoch(in.Epoch)
	if e == nil {
		if e, err = h.lookForEpoch(ctx, in); err != nil {
			return err
		}
	}
	got, err := e.aead.Open(nil, record[in.headSize():], b.aad(in, (*[storeIDSize]byte)(&h.r.storeID)))
	clear(got)
	if err != nil {
		return errRecord(in)
	}
	return nil
}

func errNoEpoch(in RecordInfo) error {
	return corrupt("the DEK record names epoch %d, which the keyring does not have", in.Epoch)
}

func errRecord(in RecordInfo) error {
	return corrupt("the DEK record does not authenticate under epoch %d: it was altered, or is another block's, another store's, or of a copy of this one that has an epoch %d of its own", in.Epoch, in.Epoch)
}

// openByKEK makes k the DEK that the vault wrapped and inner commits to, from the cache
// or from the vault.
func (h *Hold) openByKEK(ctx context.Context, k *dek.Key, in RecordInfo, inner []byte) error {
	r, cache := h.r, h.s.cache
	if cache.get(inner, k) {
		r.calls.dekHits.Add(1)
		return nil
	}
	r.calls.dekMisses.Add(1)
	client, id, err := h.lookForKEK(ctx, in)
	if err != nil {
		return err
	}
	var got []byte
	if err := h.outside(ctx, func(ctx context.Context) (err error) {
		got, err = cache.once(ctx, inner, func(ctx context.Context) ([]byte, error) {
			return r.unwrap(ctx, client, vault.Wrapped{KeyID: id, Ciphertext: inner[:vault.WrappedSize]})
		})
		return err
	}); err != nil {
		clear(got)
		return r.suspect(err)
	}
	defer clear(got)
	if err := checkCommitment(got, inner, id); err != nil {
		return err
	}
	h.s.cache.put(inner, got)
	return k.Set(got)
}

// suspect passes an error of a vault call for a block on. If the vault said no,
// there is no reason to wait for the next check to find out what that means for
// all the others.
func (r *Keyring) suspect(err error) error {
	if vault.Denied(err) && !errors.Is(err, ErrInaccessible) {
		r.checkSoon()
	}
	return err
}
