package keyring

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// DropEpochs destroys the keys of all epochs before the given one: what they
// wrapped can never be opened again. The caller has made sure that no record that
// it needs names them; [Keyring.RotateEpoch] does that for its caller. It returns the ids of the
// epochs that it dropped.
//
// before is an epoch that was the current one before the first record was rewrapped. The one that
// is current when the last has been may be younger, because one begins by itself by count and by
// age: records that were rewrapped before that name one which would be dropped.
//
// The keys are gone from the document when DropEpochs returns, and from memory
// when the operations in flight and everything that was pinned before have ended. Another
// keyring on the same document has them until it takes up the change: at its next check, or
// when its lease ends, and for as long as something is pinned there. So they serve nobody else one
// lease and the time of a check later, and "no record that it needs" is meant of all keyrings: what
// one of them is about to write, too.
func (f *forBlock) DropEpochs(ctx context.Context, before uint32) ([]uint32, error) {
	r := (*Keyring)(f)
	h, err := r.Acquire()
	if err != nil {
		return nil, err
	}
	dropped, err := r.dropEpochs(ctx, &h, before)
	h.Release()
	if err != nil {
		return nil, err
	}
	for _, id := range dropped {
		r.emit(Event{Kind: EpochDropped, Epoch: id})
	}
	r.forgetRetired(h.s)
	return dropped, r.thenAnchor(ctx, nil)
}

func (r *Keyring) dropEpochs(ctx context.Context, h *Hold, before uint32) (dropped []uint32, err error) {
	err = r.mutate(ctx, h, func(b *body) error {
		dropped = nil
		n := 0
		for n < len(b.epochs)-1 && b.epochs[n].id < before {
			dropped = append(dropped, b.epochs[n].id)
			clear(b.epochs[n].key[:])
			n++
		}
		if n == 0 {
			return errUnchanged
		}
		b.epochs = b.epochs[n:]
		return nil
	}, func(*body) error {
		set := h.s.epochs.Load()
		h.s.retire(&epochSet{current: set.current, all: slices.DeleteFunc(slices.Clone(set.all), func(e *epoch) bool {
			return slices.Contains(dropped, e.id)
		})})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keyring: drop epochs: %w", err)
	}
	return dropped, nil
}

// retire makes kept the session's epochs, and retires those that are not among them. It
// returns those. docMu is held.
func (s *session) retire(kept *epochSet) (retired []*epoch) {
	set := s.epochs.Load()
	s.pinMu.Lock()
	defer s.pinMu.Unlock()
	for _, e := range set.all {
		if kept.find(e.id) == nil {
			retired = append(retired, e)
		}
	}
	if len(retired) > 0 {
		gone := retired
		if old := s.retired.Load(); old != nil {
			gone = slices.Concat(*old, retired)
		}
		// Retired first, so that no reader finds an epoch in neither.
		s.retired.Store(&gone)
	}
	s.epochs.Store(kept)
	return retired
}

// Pin keeps epochs that are dropped from now on readable in memory until release
// is called, once: for a database that has snapshots and scans, which go on reading the
// records of their moment.
func (h Hold) Pin() (release func()) {
	r, s := h.r, h.s
	s.pinMu.Lock()
	s.pins++
	s.pinMu.Unlock()
	r.pins.Add(1)
	return func() {
		r.pins.Add(-1)
		s.pinMu.Lock()
		s.pins--
		last := s.pins == 0 && s.retired.Load() != nil
		s.pinMu.Unlock()
		if last {
			go r.forgetRetired(s)
		}
	}
}

// Pins returns how many pins there are, also of stretches of access that have ended: what
// pinned goes no further then, but is still there, and with it what it reads from.
func (f *forBlock) Pins() int {
	r := (*Keyring)(f)
	return int(r.pins.Load())
}

// How long forgetting retired epochs waits for the operations in flight: whoever
// dropped them, and then a goroutine.
const (
	forgetAtOnce = 100 * time.Millisecond
	forgetLater  = 30 * time.Second
)

// forgetRetired erases the keys of retired epochs once nothing can be using them. If
// that is not so at once, a goroutine waits for it, and goes on until it is or the
// session ends, which erases them as well.
func (r *Keyring) forgetRetired(s *session) {
	if !r.forgetting.CompareAndSwap(false, true) {
		return // somebody is at it
	}
	if r.forget(s, forgetAtOnce) {
		r.endForgetting(s)
		return
	}
	go func() {
		for !r.forget(s, forgetLater) && s.ctx.Err() == nil {
		}
		r.endForgetting(s)
	}()
}

// endForgetting looks once more: whoever came meanwhile, to retire more or with the
// last pin, found somebody at it.
func (r *Keyring) endForgetting(s *session) {
	r.forgetting.Store(false)
	s.pinMu.Lock()
	more := s.pins == 0 && s.retired.Load() != nil
	s.pinMu.Unlock()
	if more && s.ctx.Err() == nil {
		go r.forgetRetired(s)
	}
}

// forget reports whether there is nothing more to do before the last pin is gone.
// First every operation ends that may hold a record of the retired epochs and be about
// to look for the key; then nobody can find the keys any more; then every operation
// ends that found one before.
func (r *Keyring) forget(s *session, patience time.Duration) bool {
	start := time.Now()
	for {
		s.pinMu.Lock()
		gone, pinned := s.retired.Load(), s.pins > 0
		s.pinMu.Unlock()
		if gone == nil || pinned {
			return true
		}
		if !r.quiesced(patience - time.Since(start)) {
			return false
		}
		s.pinMu.Lock()
		// What was retired since then has not been waited for.
		mine := s.pins == 0 && s.retired.CompareAndSwap(gone, nil)
		if mine {
			s.unfound = append(s.unfound, *gone...)
		}
		s.pinMu.Unlock()
		if mine && !r.eraseUnfound(s, *gone, patience-time.Since(start)) {
			go func() {
				for !r.eraseUnfound(s, *gone, forgetLater) && s.ctx.Err() == nil {
				}
			}()
		}
	}
}

// eraseUnfound overwrites the keys of epochs that nobody finds any more, when nobody
// uses them either, and reports whether that is done, by this or by the end of the session.
func (r *Keyring) eraseUnfound(s *session, gone []*epoch, patience time.Duration) bool {
	if !r.quiesced(patience) {
		return false
	}
	var mine []*epoch
	s.pinMu.Lock()
	s.unfound = slices.DeleteFunc(s.unfound, func(e *epoch) bool {
		if slices.Contains(gone, e) {
			mine = append(mine, e)
			return true
		}
		return false
	})
	s.pinMu.Unlock()
	for _, e := range mine {
		e.aead.Destroy()
	}
	return true
}

// quiesced waits until every operation that was in flight has ended, and reports
// whether it saw that: each counter was at zero at some moment since. If that takes too
// long it gives up.
func (r *Keyring) quiesced(patience time.Duration) bool {
	start := time.Now()
	for c := range r.inFlight.All() {
		for c.N.Load() != 0 {
			if time.Since(start) > patience {
				return false
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
	return true
}

// Rewrap appends to dst the record of the same DEK, for the same binding, under
// the current epoch. A ByKEK record keeps the vault's wrap; no vault is called for it.
func (f *holdForBlock) Rewrap(ctx context.Context, dst, record []byte, b *Binding) ([]byte, error) {
	h := (*Hold)(f)
	in, err := ParseRecord(record)
	if err != nil {
		return nil, err
	}
	from := h.s.epoch(in.Epoch)
	if from == nil {
		if from, err = h.lookForEpoch(ctx, in); err != nil {
			return nil, err
		}
	}
	store := (*[storeIDSize]byte)(&h.r.storeID)
	var inner [RecordSizeByKEK]byte
	defer clear(inner[:])
	plain, err := from.aead.Open(inner[:0], record[in.headSize():], b.aad(in, store))
	if err != nil {
		return nil, errRecord(in)
	}
	to, err := h.epochForUse(ctx)
	if err != nil {
		return nil, err
	}
	in.Epoch = to.id
	return sealRecord(dst, in, to, plain, b, store), nil
}
