package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// The copies follow the KEK of the store: RotateKEK and ChangeKEK move them, and so does the store
// by itself, when it finds that one needs another KEK version than the store's. It compares
// versions and relies on no event: the store may adopt a version while it is opened, and an event
// may be dropped.

// followWithCopies moves the copies that are behind, if there are any.
func (s *Store) followWithCopies(ctx context.Context) error {
	behind, err := s.lookAtCopies(ctx, false)
	if err == nil && behind > 0 {
		err = errTold
	}
	return err
}

// errTold says that something was not done, for reasons that events have told.
var errTold = errors.New("block: not done, for reasons that were told")

// rewrapCopies moves the copies that can be reached to the KEK that wraps the store, tells of the
// others, and returns how many those are. If nobody asked for it, it tells only what is news and,
// with Options.ManualRewrap, leaves a copy alone whose records alone are behind. The caller has the
// turn s.following.
func (s *Store) rewrapCopies(ctx context.Context, asked bool) (behind int, err error) {
	s.tellRegister()
	// The KEK is read before the register, so that a copy that was made before a KEK change is
	// whole in it; KEKMoves is compared after it, so that no younger copy is moved back.
	moves := s.keys.KEKMoves()
	keks, active := s.keys.KEKs()
	now := keks[active]
	reg, _ := s.storage.View()
	to, ok := s.keys.For(inner.Block{}).KEKFor(now)
	if !ok || s.keys.KEKMoves() != moves {
		return 0, nil // whoever changed the KEK looks at the copies next
	}
	told := map[string]error{}
	defer func() { s.copiesTold = told }()
	notMoved := func(c register.Entry, err error) {
		if before, ok := s.copiesTold[c.Instance]; asked || !ok || !sameReason(before, err) {
			s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.CopyKEKNotChanged, Key: c.KEK, Detail: c.Path, Err: err})
		}
		told[c.Instance] = err
		behind++
	}
	var due []register.Entry
	for _, c := range reg.Copies {
		switch {
		case c.NeedsOnly(now) || !asked && s.opts.ManualRewrap && c.KEK == now:
		case c.Doubt != "":
			notMoved(c, doubted(c.Copy))
		case !c.Whole():
			// The copy is being made, or was cut off. Its registration says what it is, and must
			// not be overwritten by what is known now.
			notMoved(c, elsewhere(c.Copy))
		default:
			due = append(due, c)
		}
	}
	// A register is as authentic as the keyring document, which anybody with the KEK's public key
	// can make. Nothing is moved for a document that opens no record of this store.
	if len(due) > 0 {
		if err := s.proveNow(ctx); err != nil {
			return behind, err
		}
	}
	// Tell of all of them before the first is touched; if nobody asked, of those that are news.
	for _, c := range due {
		if _, before := s.copiesTold[c.Instance]; asked || !before {
			s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.CopyDue, Key: now, Detail: c.Path})
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
		s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.CopyKEKChanged, Key: now, Detail: c.Path})
	}
	return behind, nil
}

// tellRegister tells once that the register was not believed.
func (s *Store) tellRegister() {
	if doubt := s.storage.Wrong(); doubt != "" {
		s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: "the register of copies and KEK versions was not believed",
			Err: fmt.Errorf("block: the register of copies and KEK versions of %s: %s: copies and KEK versions may be missing from it: %w", s.db.place.Dir(), doubt, ErrIncomplete)})
	}
}

// copyTurns has the turns of those who work with a store's copies.
type copyTurns struct {
	following  chan struct{}    // admits one look at the copies at a time
	copiesTold map[string]error // why a copy was not moved, by instance, as it was told last; guarded by following
	listing    sync.Mutex       // held while the list of copies is changed
	moves      copyMoves
	// copying admits one Checkpoint at a time, until the copy is registered: whoever has this turn
	// knows of every copy that was begun before.
	copying chan struct{}
}

// copyMoves is which copy is being moved. What is saved of a copy during its move must not bring
// back one that was forgotten. And who forgets a copy may remove its files next, when nobody of
// this store may be using them.
type copyMoves struct {
	mu       sync.Mutex
	instance string // "": none is
	stop     context.CancelFunc
	ended    chan struct{}
}

// beginMove begins the move of a copy, unless it was forgotten since it was listed, and returns
// what is known of it now. Its context also ends when the copy is forgotten. The caller calls end.
func (s *Store) beginMove(ctx context.Context, instance string) (_ context.Context, c register.Entry, end func(), ok bool) {
	m := &s.moves
	m.mu.Lock()
	defer m.mu.Unlock()
	r, _ := s.storage.View()
	i, found := r.Find(instance)
	if !found {
		return nil, c, nil, false
	}
	ctx, m.stop = context.WithCancel(ctx)
	m.instance, m.ended = instance, make(chan struct{})
	return ctx, r.Copies[i], func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.stop()
		close(m.ended)
		m.instance = ""
	}, true
}

// endMove stops a move of the copy that is under way, and runs f when the copy is not being moved,
// nor will be before f has returned.
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

// ChangeCheckpointKEK moves an offline copy of a store from one KEK to another, without touching its
// blocks: for copies that a KEK change did not reach. The copy goes on waiting for its own
// Revalidate. Records wrapped ByKEK are rewrapped too, at three vault calls each. After a crash or
// the end of ctx the next call goes on.
//
// If from is gone or refused, the error names the key version that the copy needs. [ErrLocked] says
// that somebody has the copy open, as its store has while it moves it.
func ChangeCheckpointKEK(ctx context.Context, dir string, from, to *kek.KEK, opts *Options) error {
	for _, k := range []struct {
		name string
		*kek.KEK
	}{{"from", from}, {"to", to}} {
		if err := inner.RequireKEK(k.KEK); err != nil {
			return fmt.Errorf("block: change the KEK of checkpoint %s: %s: %w", dir, k.name, err)
		}
	}
	_, err := moveCopy(ctx, dir, from, to, opts, nil)
	return err
}

// moveCopy is ChangeCheckpointKEK. With of, a store moves that copy of its own and nothing else: it
// leaves alone what needs no move, and sets of.Document. It returns what the copy's keyring says in
// the end, if it could be opened.
func moveCopy(ctx context.Context, dir string, from, to *kek.KEK, opts *Options, of *register.Entry) (in *keyring.Info, err error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o.ReadOnly, o.atRest = false, true
	if of != nil {
		as := *of // the copy's own keyring reads it while of is changed
		o.moving = &as
	}
	// An anchor in the options is the store's, and a copy is older.
	o.Keyring.For(inner.Block{}).AwaitRevalidate, o.Keyring.OnEvent, o.Keyring.Anchor = true, nil, nil
	if found, err := place.Has(o.Pebble.fs(), dir); err != nil || !found {
		return nil, errors.Join(err, fmt.Errorf("block: change the KEK of checkpoint %s: %w", dir, ErrNotStore))
	}
	s, err := openCopy(ctx, dir, from, &o)
	if errors.Is(err, keyring.ErrWrongKEK) || from.ID().Vault == "" && vault.Denied(err) {
		// Perhaps it was moved before, and cut off before its records were moved; to a key of the
		// same name, if from does not say in which vault it is.
		o.Keyring.OtherKEKs = append(slices.Clone(o.Keyring.OtherKEKs), from)
		if again, errTo := openCopy(ctx, dir, to, &o); errTo == nil {
			s, err = again, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("block: change the KEK of checkpoint: %w", err)
	}
	info := s.keyringInfo()
	if keks, active := s.keys.KEKs(); of == nil || len(keks) > 1 || keks[active] != to.ID() {
		if err = s.keys.ChangeKEK(ctx, to); err == nil {
			err = s.rewriter.RewrapDEKs(ctx, nil)
		}
		info = s.keyringInfo()
	}
	if of != nil {
		of.Document = s.storage.Sum()
	}
	if err = errors.Join(err, s.Close()); err != nil {
		err = fmt.Errorf("block: change the KEK of checkpoint %s (instance %s, wrapped by %s): %w", dir, s.Instance(), s.keys.State().KEK, err)
	}
	return &info, err
}

// keyringInfo is what the register keeps of a copy's keyring.
func (s *Store) keyringInfo() keyring.Info {
	keks, active := s.keys.KEKs()
	return keyring.Info{KEK: keks[active], KEKs: keks, Generation: s.keys.State().Generation}
}

// outOfDate reports whether a KEK version was refused for its dates.
func outOfDate(err error) bool {
	kind := vault.Kind(err)
	return kind == vault.ErrKeyExpired || kind == vault.ErrKeyNotYetValid
}

// openCopy opens a copy and makes it available, but leaves it a copy. If its KEK version is out of
// date, it comes back locked: a change of the KEK then moves it to a successor, or says why not.
func openCopy(ctx context.Context, dir string, k *kek.KEK, o *Options) (*Store, error) {
	s, err := Open(ctx, dir, k, o)
	if err != nil {
		return nil, err
	}
	if err := s.keys.Revalidate(ctx); err != nil && !outOfDate(err) {
		return nil, errors.Join(fmt.Errorf("%s (instance %s, wrapped by %s): %w", dir, s.Instance(), s.keys.State().KEK, err), s.Close())
	}
	return s, nil
}

// rewrapCopy moves a copy to a KEK, and saves what the copy needs, even if the move fails. What
// lies at the copy's path may be anything until it has proven to be the copy. Until then, what it
// says in clear may only add to what the copy needs.
func (s *Store) rewrapCopy(ctx context.Context, c *register.Entry, to *kek.KEK) error {
	o := s.copyOptions(ctx, c.Path)
	in, err := s.inspectCopy(*c, &o)
	if err != nil {
		return err
	}
	// Save this before the move, so that nobody takes the new version for unneeded in between. A
	// crash may also have come between an earlier move and its note.
	c.Need(append(slices.Collect(maps.Values(in.KEKs)), in.KEK, to.ID())...)
	if err := s.noteCopy(ctx, *c); err != nil {
		return err
	}
	from, ok := s.keys.For(inner.Block{}).KEKFor(in.KEK)
	if !ok {
		return fmt.Errorf("block: copy %s is wrapped by %s, for which no KEK was given; move it with ChangeCheckpointKEK: %w",
			c.Instance, in.KEK, keyring.ErrWrongKEK)
	}
	o.VaultRate = s.opts.VaultRate
	for _, id := range in.KEKs {
		if k, ok := s.keys.For(inner.Block{}).KEKFor(id); ok {
			o.Keyring.OtherKEKs = append(o.Keyring.OtherKEKs, k)
		}
	}
	now, err := moveCopy(ctx, c.Path, from, to, &o, c)
	if now == nil {
		return err
	}
	c.Update(*now)
	return errors.Join(err, s.noteCopy(ctx, *c))
}

// copyOptions returns the options to open the copy in a directory with.
func (s *Store) copyOptions(ctx context.Context, dir string) Options {
	db := s.db.opts
	o := Options{Name: s.name, Pebble: PebbleOptions{FS: db.Pebble.FS, Fatal: db.Pebble.Fatal, MemTable: 1 << 20}, RecordCache: -1, FileKEK: db.FileKEK}
	o.Keyring.Clock, o.Keyring.VaultTimeout = s.opts.Keyring.Clock, s.opts.Keyring.VaultTimeout
	if s.db.files != nil {
		if k := s.db.files.kekOf(ctx, dir); k != nil {
			o.FileKEK = k
		}
	}
	return o
}

// inspectCopy returns what is in clear at a copy's path, if its ids are the copy's.
func (s *Store) inspectCopy(c register.Entry, o *Options) (in keyring.Info, err error) {
	if found, err := place.Has(s.db.opts.Pebble.FS, c.Path); err != nil || !found {
		return in, errors.Join(err, elsewhere(c.Copy))
	}
	directory, err := place.InstanceAt(s.db.opts.Pebble.FS, c.Path)
	if err != nil {
		return in, err
	}
	instance := place.StoreInstance(directory, s.number)
	if instance.String() != c.Instance || instance == s.storage.Own {
		return in, elsewhere(c.Copy)
	}
	if in, err = InspectKeyring(c.Path, o); err == nil && in.StoreID != s.StoreID() {
		err = fmt.Errorf("block: what is at %s, as copy %s, is of store %v and no copy of this one: it is not moved: %w", c.Path, c.Instance, in.StoreID, ErrForeign)
	}
	return in, err
}

// doubted is the error of a doubtful copy that is not moved.
func doubted(c register.Copy) error {
	return fmt.Errorf("block: copy %s at %s, on %s: %s; look at it, and forget it or move it by a call of its own (ChangeCheckpointKEK, Relocate): %w",
		c.Instance, c.Path, named(c.KEKs), c.Doubt, ErrIncomplete)
}

// noteCopy saves what is known of a copy.
func (s *Store) noteCopy(ctx context.Context, c register.Entry) error {
	t, err := s.taggerFor(register.Name)
	if err != nil {
		return err
	}
	defer t.Destroy()
	if err := s.storage.NoteCopy(ctx, t, c); err != nil {
		return err
	}
	s.wrote()
	return nil
}

// elsewhere is the error of a copy that is not where it was made.
func elsewhere(c register.Copy) error {
	return fmt.Errorf("block: copy %s is not at %s any more, or was not made whole; where it is, it needs %s", c.Instance, c.Path, named(c.KEKs))
}

func named(ids []vault.KeyID) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	return strings.Join(texts, ", ")
}
