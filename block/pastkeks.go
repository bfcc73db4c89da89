package block

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// pastKEKs are the KEK versions that wrapped a keyring document of the store, oldest
// first: a copy of the files that somebody made then opens with one of them, whatever
// was rotated or erased since, for as long as that version exists. The one that wraps the
// document now is among them. They are in the register.
type pastKEKs struct {
	keks       []pastKEK
	incomplete bool
}

// pastKEK is one of them. On disk, and must not change:
//
//	8  since when the vault has said that there is no such version, seconds since
//	   1970-01-01 UTC; 0: it has not
//	32 SHA-256 of its public key; zeros: not known
//	2  length of the following
//	.  key identifier
type pastKEK struct {
	id     vault.KeyID
	gone   int64     // since when, as on disk
	public publicKey // which key it is, whatever it is called
}

const (
	// maxPast bounds the table, which is written with each document, to what a
	// keyring document can name. When it is full the oldest goes, and the table says so.
	maxPast = 1024
	// recoverable is longer than a vault keeps what was deleted: a Key Vault 90 days at
	// the most, others some months. A vault may say of a deleted key that there is none, as
	// a Key Vault does, so that what it once said so of is not gone for good before.
	recoverable = 366 * 24 * time.Hour
)

func (p pastKEKs) clone() pastKEKs { return pastKEKs{slices.Clone(p.keks), p.incomplete} }

func (p pastKEKs) ids() (ids []vault.KeyID) {
	for _, k := range p.keks {
		ids = append(ids, k.id)
	}
	return ids
}

func (p pastKEKs) index(id vault.KeyID) int {
	return slices.IndexFunc(p.keks, func(k pastKEK) bool { return k.id == id })
}

// with returns the table with the version that wraps the document from now on.
func (p pastKEKs) with(id vault.KeyID, public publicKey) pastKEKs {
	p = p.clone()
	if i := p.index(id); i >= 0 {
		p.keks[i].gone, p.keks[i].public = 0, public // it wrapped something: it is there
		return p
	}
	p.keks = append(p.keks, pastKEK{id: id, public: public})
	if n := len(p.keks) - maxPast; n > 0 {
		p.keks, p.incomplete = p.keks[n:], true
	}
	return p
}

// after returns the table after the vaults were asked. What has been gone for longer
// than a vault can bring it back leaves it; the version of which the vault said nothing
// certain stays as it was.
func (p pastKEKs) after(said map[vault.KeyID]KeyState, now time.Time) (next pastKEKs, changed bool) {
	next.incomplete = p.incomplete
	for _, k := range p.keks {
		was := k
		switch said[k.id] {
		case KeyExists:
			k.gone = 0
		case KeyNotFound:
			if k.gone == 0 {
				k.gone = now.Unix()
			} else if now.Sub(time.Unix(k.gone, 0)) >= recoverable {
				changed = true
				continue
			}
		}
		changed = changed || k != was
		next.keks = append(next.keks, k)
	}
	return next, changed
}

func (k pastKEK) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(k.gone))
	b = append(b, k.public[:]...)
	return appendKeyID(b, k.id)
}

func cutPast(b []byte) (k pastKEK, rest []byte, err error) {
	if len(b) < 8+len(publicKey{}) {
		return k, nil, errors.New("it is cut off")
	}
	k = pastKEK{gone: int64(binary.BigEndian.Uint64(b)), public: publicKey(b[8:40])}
	if k.gone < 0 {
		return k, nil, errors.New("it has been gone since a time that there is not")
	}
	k.id, rest, err = cutKeyID(b[40:])
	return k, rest, err
}

// appendKeyID appends a key identifier behind its length in 2 bytes; cutKeyID reads it.
func appendKeyID(b []byte, id vault.KeyID) []byte {
	text := id.String() // of 775 bytes at the most
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

func cutKeyID(b []byte) (id vault.KeyID, rest []byte, err error) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) > len(b)-2 {
		return id, nil, fmt.Errorf("a key identifier is cut off")
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	if id, err = vault.ParseKeyID(string(b[2:n])); err == nil && (id.Version == "" || id != id.Canonical()) {
		err = fmt.Errorf("the key identifier %s has no version, or is not how that is spelled", id)
	}
	return id, b[n:], err
}

// given is the KEKs that the store was given.
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

// nowhere reports whether a KEK of the name was given without saying in which vault.
func (g *given) nowhere(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.ids, func(id vault.KeyID) bool { return id.Vault == "" && id.Name == name })
}

// askForKEKs asks the vaults whether KEK versions exist. A vault that once does not
// answer is not asked for the others: that would only take longer.
func (s *Store) askForKEKs(ctx context.Context, ids []vault.KeyID) []ReceiptKey {
	now := s.keys.State().KEK
	silent := map[string]bool{}
	out := make([]ReceiptKey, 0, len(ids))
	for _, id := range ids {
		state := KeyUnknown
		if k, ok := s.keys.KEKFor(id); ok && !silent[id.Vault] && s.rewriter.Budget.Take(ctx, 1) == nil {
			var answered bool
			state, answered = s.askForKEK(ctx, k)
			silent[id.Vault] = !answered
		}
		// Of a key of another vault every vault says that there is none.
		if state == KeyNotFound && id.Versionless() != now.Versionless() && s.given.nowhere(id.Name) {
			state = KeyUnknown
		}
		out = append(out, ReceiptKey{KeyID: id, State: state})
	}
	return out
}

// askForKEK asks for one, for as long as a vault has time to answer. A client that goes
// on after that is left behind.
func (s *Store) askForKEK(ctx context.Context, k *kek.KEK) (state KeyState, answered bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.keys.AfterFunc(cmp.Or(s.opts.Keyring.VaultTimeout, keyring.DefaultVaultTimeout), cancel)()
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
