package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// upkeepEvery is how often the store looks whether there is something to do by itself, besides when
// hurry is called. After a failure it waits twice as long each time, up to upkeepMost. While it is
// Inaccessible it only looks, as often, whether that is still so: it relies on no event.
const (
	upkeepEvery = time.Minute
	upkeepMost  = time.Hour
)

// upkeep is what the store does by itself, each on a goroutine of its own: rewrapping DEKs of an
// older KEK, replacing DEKs that are too old, and moving copies to the KEK that wraps the store.
type upkeep struct{ rewrap, renew, copies chan struct{} }

func newUpkeep() upkeep {
	return upkeep{rewrap: make(chan struct{}, 1), renew: make(chan struct{}, 1), copies: make(chan struct{}, 1)}
}

// startUpkeep starts upkeep. A read-only store has none.
func (s *Store) startUpkeep() {
	if s.opts.ReadOnly || s.opts.atRest {
		return
	}
	s.spawn(func() { s.keepUp(s.upkeep.renew, s.rewriter.Renew) })
	s.spawn(func() { s.keepUp(s.upkeep.copies, s.followWithCopies) })
	if !s.opts.ManualRewrap {
		s.spawn(func() { s.keepUp(s.upkeep.rewrap, s.followWithDEKs) })
	}
}

// hurry has upkeep look now.
func (u *upkeep) hurry() {
	for _, c := range []chan struct{}{u.rewrap, u.renew, u.copies} {
		select {
		case c <- struct{}{}:
		default: // it is about to look, or has ended
		}
	}
}

// keepUp runs f again and again until the store is closed.
func (s *Store) keepUp(hurry <-chan struct{}, f func(context.Context) error) {
	wait := upkeepEvery
	for s.ctx.Err() == nil {
		if s.keys.State().Status == keyring.Inaccessible {
			s.waitFor(hurry, upkeepEvery)
			continue
		}
		err := f(s.ctx)
		switch {
		case s.ctx.Err() != nil:
			return
		case err == nil || s.keys.State().Status == keyring.Inaccessible:
			wait = upkeepEvery
		default:
			if !errors.Is(err, errTold) {
				s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: "what the store does by itself failed, and is tried again", Err: err})
			}
			wait = min(2*wait, upkeepMost)
		}
		s.waitFor(hurry, wait)
	}
}

// waitFor waits until d has elapsed on the keyring's clock, hurry is sent to, or the store is
// closed.
func (s *Store) waitFor(hurry <-chan struct{}, d time.Duration) {
	rang := make(chan struct{})
	defer s.keys.For(inner.Block{}).AfterFunc(d, func() { close(rang) })()
	select {
	case <-rang:
	case <-hurry:
	case <-s.ctx.Done():
	}
}

// followWithDEKs rewraps the DEKs of an older KEK, if there are any.
func (s *Store) followWithDEKs(ctx context.Context) error {
	if keks, _ := s.keys.KEKs(); len(keks) == 1 {
		return nil
	}
	start := s.keys.For(inner.Block{}).Elapsed()
	err := s.RewrapDEKs(ctx, nil)
	if err == nil {
		s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: "rewrapped the DEKs of an older KEK version",
			Duration: s.keys.For(inner.Block{}).Elapsed() - start})
	}
	return err
}

// Policy returns the policy in the keyring document; see [keyring.Keyring.Policy].
func (s *Store) Policy() keyring.Policy { return s.keys.Policy() }

// tasks is what a store, or a DB, does in the background, under ctx, which ends when it begins to
// close.
type tasks struct {
	ctx      context.Context
	cancel   context.CancelFunc
	spawning sync.Mutex // orders the start of background work and Close
	running  sync.WaitGroup
}

func (t *tasks) begin() { t.ctx, t.cancel = context.WithCancel(context.Background()) }

// spawn runs f in the background, or returns false if the store has begun to close.
func (t *tasks) spawn(f func()) bool {
	t.spawning.Lock()
	defer t.spawning.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	t.running.Go(f)
	return true
}

// end ends the background work, and waits for it.
func (t *tasks) end() {
	t.spawning.Lock()
	t.cancel()
	t.spawning.Unlock()
	t.running.Wait()
}

// acquireTurn acquires one of the store's turns; receiving from turn releases it.
func (t *tasks) acquireTurn(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ctx.Done():
		return ErrClosed
	}
}

// whileOpen returns a context that also ends when the store begins to close: for long work that
// keeps the engine open.
func (t *tasks) whileOpen(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// ending adds ErrClosed to an error, if the store has begun to close.
func (t *tasks) ending(err error) error {
	if err != nil && t.ctx.Err() != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// KeyUse is what still needs a KEK version.
type KeyUse struct {
	Key vault.KeyID `json:"key"`
	// PublicKey is the SHA-256 of the version's public key (SubjectPublicKeyInfo, DER), 64
	// hexadecimal digits; empty: not known. SameAs are the other versions, past or present, that
	// have the same: they are the same key, which is destroyed only when all of them are.
	PublicKey string        `json:"publicKey"`
	SameAs    []vault.KeyID `json:"sameAs"`

	Document bool   `json:"document"` // it wraps the store's keyring, and with it all epochs, or did when KeyUsage began
	Epochs   int    `json:"epochs"`   // number of those epochs; 0 if the store is Inaccessible
	Records  uint64 `json:"records"`  // DEK records that are wrapped by it (ByKEK)
	Copies   []Copy `json:"copies"`   // registered checkpoints that need it, for their document or for DEK records
}

// Needed reports whether anything needs the version.
func (u KeyUse) Needed() bool { return u.Document || u.Records > 0 || len(u.Copies) > 0 }

// KeyUsage returns the KEK versions that the store or a registered copy still needs, sorted by
// their identifiers. A version that is not listed, or is not [KeyUse.Needed], can be disabled
// without loss to them. KeyUsage reads every DEK record, calls no vault, and needs no access.
//
// If the store may have copies that it does not know, KeyUsage returns what it found and an error
// that matches [ErrIncomplete]: a version that is not listed may be needed then. That is so until
// the store was available once since Open and its keyring has opened records of the store, which
// KeyUsage checks itself; and for good, if the register of copies was once missing or not the
// store's own.
func (s *Store) KeyUsage(ctx context.Context) ([]KeyUse, error) {
	if err := s.lookAtDocument(ctx); err != nil {
		return nil, fmt.Errorf("block: key usage: %w", err)
	}
	keks, active := s.keys.KEKs()
	uses := map[vault.KeyID]*KeyUse{}
	use := func(id vault.KeyID) *KeyUse {
		if uses[id] == nil {
			uses[id] = &KeyUse{Key: id}
		}
		return uses[id]
	}
	use(keks[active]).Document = true
	err := s.eachRecord(ctx, func(id, _ []byte, in keyring.RecordInfo) (bool, error) {
		if in.Wrapping != keyring.ByKEK {
			return true, nil
		}
		key, ok := keks[in.KEK]
		if !ok {
			// The list may have grown since: the record may name the newest KEK.
			if err := s.lookAtDocument(ctx); err != nil {
				return false, err
			}
			if keks, _ = s.keys.KEKs(); keks[in.KEK] == (vault.KeyID{}) {
				return false, fmt.Errorf("block %s names KEK %d, which the keyring does not list: %w", row.Shown(id), in.KEK, ErrCorrupt)
			}
			key = keks[in.KEK]
		}
		use(key).Records++
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("block: key usage: %w", err)
	}
	copies, whole := s.copies()
	for _, c := range copies {
		for _, id := range c.KEKs {
			use(id).Copies = append(use(id).Copies, c)
		}
	}
	// The KEK may have been changed during the walk. The former version stays marked: until then
	// records may have been wrapped by it behind the walk.
	if err := s.lookAtDocument(ctx); err != nil {
		return nil, fmt.Errorf("block: key usage: %w", err)
	}
	keks, active = s.keys.KEKs()
	use(keks[active]).Document = true
	use(keks[active]).Epochs = s.keys.State().Epochs
	out := sortUses(s.storage.Past().PublicKeys(s.keys.For(inner.Block{}).PublicKeys()), uses)
	if !whole {
		return out, fmt.Errorf("block: key usage: versions that are not named may be needed by copies: %w", ErrIncomplete)
	}
	if s.db.shared && s.keys.State().Status == keyring.Inaccessible {
		return out, fmt.Errorf("block: key usage: other processes may have moved the store to a version that is not named: %w", ErrIncomplete)
	}
	// A register is as much the store's own as the keyring is.
	if err := s.proveNow(ctx); err != nil {
		return out, fmt.Errorf("block: key usage: versions that are not named may be needed by copies: %w: the keyring was not seen to be the store's own: %w", ErrIncomplete, err)
	}
	return out, nil
}

// sortUses returns what was found of each version, sorted, with its public key and the versions
// that are the same key.
func sortUses(p register.PublicKeys, found map[vault.KeyID]*KeyUse) (out []KeyUse) {
	for _, u := range found {
		u.PublicKey, u.SameAs = p[u.Key].String(), p.Same(u.Key)
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b KeyUse) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return out
}

// given has the KEKs that the store was given.
type given struct {
	mu  sync.Mutex
	ids []vault.KeyID
}

func (g *given) add(keks ...*kek.KEK) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keks {
		if k != nil && !slices.Contains(g.ids, k.ID()) {
			g.ids = append(g.ids, k.ID())
		}
	}
}

// nowhere reports whether a KEK of this name was given without a vault.
func (g *given) nowhere(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.ids, func(id vault.KeyID) bool { return id.Vault == "" && id.Name == name })
}

// askForKEKs asks the vaults whether KEK versions exist. A vault that does not answer once is not
// asked again.
func (s *Store) askForKEKs(ctx context.Context, ids []vault.KeyID) []ReceiptKey {
	now := s.keys.State().KEK
	silent := map[string]bool{}
	out := make([]ReceiptKey, 0, len(ids))
	for _, id := range ids {
		state := KeyUnknown
		if k, ok := s.keys.For(inner.Block{}).KEKFor(id); ok && !silent[id.Vault] && s.rewriter.Budget.Wait(ctx, 1) == nil {
			var answered bool
			state, answered = s.askForKEK(ctx, k)
			silent[id.Vault] = !answered
		}
		// Every vault says of another vault's key that there is none.
		if state == KeyNotFound && id.Versionless() != now.Versionless() && s.given.nowhere(id.Name) {
			state = KeyUnknown
		}
		out = append(out, ReceiptKey{Key: id, State: state})
	}
	return out
}

// askForKEK asks for one version, for the time that a vault has to answer. It leaves a client
// behind that goes on after that.
func (s *Store) askForKEK(ctx context.Context, k *kek.KEK) (state KeyState, answered bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.keys.For(inner.Block{}).AfterFunc(cmp.Or(s.opts.Keyring.VaultTimeout, keyring.DefaultVaultTimeout), cancel)()
	type answer struct {
		key vault.Key
		err error
	}
	got := make(chan answer, 1)
	go func() {
		key, err := k.Vault().GetKey(ctx, k.ID())
		got <- answer{key, err}
	}()
	select {
	case a := <-got:
		switch {
		case a.err == nil && a.key.ID == k.ID(), errors.Is(a.err, vault.ErrKeyDeleted), errors.Is(a.err, vault.ErrKeyDisabled),
			errors.Is(a.err, vault.ErrKeyExpired), errors.Is(a.err, vault.ErrKeyNotYetValid), errors.Is(a.err, vault.ErrUnsupportedKey):
			return KeyExists, true
		case errors.Is(a.err, vault.ErrKeyNotFound):
			return KeyNotFound, true
		}
		return KeyUnknown, a.err == nil || vault.Denied(a.err)
	case <-ctx.Done():
		return KeyUnknown, false
	}
}

// tell sets which key each version of a receipt is. If a version is gone, and another with the same
// public key is not, the key is not gone: the other opens what the first has wrapped.
func tell(p register.PublicKeys, keys []ReceiptKey) {
	states := map[register.PublicKey][]KeyState{}
	for _, k := range keys {
		states[p[k.Key]] = append(states[p[k.Key]], k.State)
	}
	for i := range keys {
		k := &keys[i]
		public := p[k.Key]
		k.PublicKey = public.String()
		if k.State != KeyNotFound || public == (register.PublicKey{}) {
			continue
		}
		switch others := states[public]; {
		case slices.Contains(others, KeyExists):
			k.State = KeyElsewhere
		case slices.Contains(others, KeyUnknown):
			k.State = KeyUnknown
		}
	}
}
