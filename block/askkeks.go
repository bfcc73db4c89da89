package block

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

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
