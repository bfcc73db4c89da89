package block

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/blockseal/blockseal/keyring"
)

// The copies follow the KEK of the store: RotateKEK and ChangeKEK move them along, and so
// does the store by itself, which looks whether one needs another KEK version than the one
// that wraps the store now. It does not go by what happened, since a version may be taken
// up while the store is opened, and an event may be lost.

// followWithCopies moves the copies that are behind, if there are any.
func (s *Store) followWithCopies(ctx context.Context) error {
	behind, err := s.lookAtCopies(ctx, false)
	if err == nil && behind > 0 {
		err = errTold
	}
	return err
}

// errTold says that something was not done, for reasons of which there are events.
var errTold = errors.New("block: not done, for reasons that were told")

// rewrapCopies moves the copies that can be reached to the KEK that wraps the store
// now, says of the others what they need, and returns how many those are. If nobody asked
// for it, it says so only if that is news; and with Options.ManualRewrap it then leaves a
// copy alone of which just the records are behind. The caller has the turn of those who
// look at the copies.
func (s *Store) rewrapCopies(ctx context.Context, asked bool) (behind int, err error) {
	s.tellRegister()
	register, _ := s.storage.view()
	keks, active := s.keys.KEKs()
	now := keks[active]
	to, ok := s.keys.KEKFor(now)
	if !ok {
		return 0, nil // changed meanwhile: whoever did that looks at the copies next
	}
	told := map[string]error{}
	defer func() { s.copiesTold = told }()
	notMoved := func(c copyEntry, err error) {
		if before, ok := s.copiesTold[c.Instance]; asked || !ok || !sameReason(before, err) {
			s.keys.Emit(keyring.Event{Kind: keyring.CopyNotRewrapped, Key: c.KEK, Detail: c.Path, Err: err})
		}
		told[c.Instance] = err
		behind++
	}
	var due []copyEntry
	for _, c := range register.copies {
		switch {
		case c.NeedsOnly(now) || !asked && s.opts.ManualRewrap && c.KEK == now:
		case c.Doubt != "":
			notMoved(c, c.doubted())
		case !c.whole():
			// It is being made, or was cut off. What it is, its registration says, which must
			// not be written over by what is known of it now.
			notMoved(c, c.elsewhere())
		default:
			due = append(due, c)
		}
	}
	// A register is as authentic as the keyring document, which anybody can make who has the
	// KEK's public key: nothing is moved because of one that opens no record of this store.
	if len(due) > 0 {
		if err := s.proveNow(ctx); err != nil {
			return behind, err
		}
	}
	// All of them, before the first is touched; by itself, as far as that is news.
	for _, c := range due {
		if _, before := s.copiesTold[c.Instance]; asked || !before {
			s.keys.Emit(keyring.Event{Kind: keyring.CopyDue, Key: now, Detail: c.Path})
		}
	}
	for _, c := range due {
		moving, c, end, ok := s.beginMove(ctx, c.Instance)
		if !ok {
			continue // forgotten
		}
		err := s.rewrapCopy(moving, &c, to)
		forgotten := moving.Err() != nil && ctx.Err() == nil
		end()
		if forgotten {
			continue
		}
		if err != nil {
			notMoved(c, err)
			if ctx.Err() != nil {
				return behind, ctx.Err()
			}
			continue
		}
		s.keys.Emit(keyring.Event{Kind: keyring.CopyRewrapped, Key: now, Detail: c.Path})
	}
	return behind, nil
}

// tellRegister says once that what was found of copies and KEK versions is not whole.
func (s *Store) tellRegister() {
	if doubt := s.storage.wrong(); doubt != "" {
		s.keys.Emit(keyring.Event{Kind: keyring.Progressed, Detail: "the register of copies and KEK versions was not believed",
			Err: fmt.Errorf("block: the register of copies and KEK versions of %s: %s: copies and KEK versions may be missing from it: %w", s.place.Dir(), doubt, ErrIncomplete)})
	}
}

// copyMoves is which copy is being moved. What is written down of a copy while it is moved
// must not bring one back that was forgotten; and who forgets a copy may remove its files
// next, which nobody of this store's may be at then.
type copyMoves struct {
	mu       sync.Mutex
	instance string // "": none is
	stop     context.CancelFunc
	ended    chan struct{}
}

// beginMove begins the move of a copy, unless it was forgotten since it was listed, and
// returns what is known of it now. The context ends as well when it is forgotten; end follows.
func (s *Store) beginMove(ctx context.Context, instance string) (_ context.Context, c copyEntry, end func(), ok bool) {
	m := &s.moves
	m.mu.Lock()
	defer m.mu.Unlock()
	r, _ := s.storage.view()
	i, found := r.find(instance)
	if !found {
		return nil, c, nil, false
	}
	ctx, m.stop = context.WithCancel(ctx)
	m.instance, m.ended = instance, make(chan struct{})
	return ctx, r.copies[i], func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.stop()
		close(m.ended)
		m.instance = ""
	}, true
}

// endMove runs f when the copy is not being moved, nor will be before f has ended; a move
// that is under way is stopped.
func (s *Store) endMove(ctx context.Context, instance string, f func() error) error {
	m := &s.moves
	for {
		m.mu.Lock()
		if m.instance != instance {
			defer m.mu.Unlock()
			return f()
		}
		m.stop()
		ended := m.ended
		m.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
