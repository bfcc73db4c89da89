package block

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Why the store does not vouch for a copy.
const (
	doubtUnknown = "the keys were not accessible yet: whether this store made it nobody can tell"
	doubtForeign = "nothing shows that this store made it: its record is not authentic, or was made while the keys were not accessible; it is not moved"
)

// loadRegister takes over what was found in the engine, beside a document. Nothing of it is
// known to be authentic until admit. What cannot be read is nothing that keeps a store from
// opening: it is missing, and that is said.
func (m *metaStorage) loadRegister(ctx context.Context, document []byte) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	m.document, m.found = sha256.Sum256(document), nil
	b, err := engine.ReadMeta(ctx, m.part, metaRegister)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		m.doubt = "it is missing"
	case err != nil:
		return err
	case len(b) > 0 && b[0] != tagged.Version:
		return fmt.Errorf("block: the register of copies and KEK versions: %w", ErrVersion)
	default:
		tag, record, ok := tagged.Split(b)
		if !ok {
			m.doubt = "it is cut off"
			break
		}
		if m.reg, err = decodeRegister(record); errors.Is(err, ErrVersion) {
			return err
		} else if err != nil {
			m.doubt = "it is damaged"
			break
		}
		m.found = [][]byte{tag, record}
		switch {
		case m.reg.generation != in.Generation:
			m.doubt = fmt.Sprintf("it was written with generation %d of the keyring document, which has generation %d", m.reg.generation, in.Generation)
		case m.waits && m.reg.instance != m.own:
			// Of whichever it is a copy: of its source, of a copy of that, or of what that was
			// before somebody copied its files. Its copies are no concern of this one's.
			m.reg.copies, m.reg.lost = nil, false
		case m.reg.instance != m.own:
			m.doubt = fmt.Sprintf("it is of instance %v, and the store is %v", m.reg.instance, m.own)
		}
	}
	m.reg.generation = in.Generation
	m.reg.past = m.reg.past.with(in.KEK, in.PublicKeys[in.KEK])
	if m.doubt != "" {
		m.distrust()
	}
	return m.loadAnnounced(ctx)
}

// catchUp takes over the register that somebody else has saved with the document was, since this
// one was loaded or saved: what is saved next has to have its copies and KEK versions. One that is
// not authentic, or not of that document, is a doubt as at Open; what was known stays. m.mu is
// held.
func (m *metaStorage) catchUp(ctx context.Context, was keyring.Revision, is keyring.Opened) error {
	if m.part == nil || was == "" || was == keyring.Revision(hex.EncodeToString(m.document[:])) {
		return nil
	}
	b, err := engine.ReadMeta(ctx, m.part, metaRegister)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	tag, record, ok := tagged.Split(b)
	if want := is.Tag(metaRegister, record); ok && hmac.Equal(want[:], tag) {
		reg, err := decodeRegister(record)
		if err != nil {
			return err
		}
		if reg.instance == is.Instance && reg.generation+1 == is.Generation {
			for i := range reg.copies {
				at, found := m.reg.find(reg.copies[i].Instance)
				reg.copies[i].mine = found && m.reg.copies[at].mine
			}
			m.reg = reg
			return nil
		}
	}
	m.doubt, m.told = "it is not the one that was saved with the keyring document that somebody else has saved", false
	m.distrust()
	return nil
}

// distrust makes everything that was found something that somebody may have put there, or
// taken from. It is kept: to name more than there is does no harm but to who has to look.
func (m *metaStorage) distrust() {
	m.reg.past.incomplete, m.reg.lost = true, true
	for i := range m.reg.copies {
		m.reg.copies[i].vouched = m.reg.copies[i].mine // those since are known
	}
}

// loadAnnounced takes over the copies that were announced and not registered.
func (m *metaStorage) loadAnnounced(ctx context.Context) error {
	return m.part.ListMeta(ctx, copyRecord(m.own, ""), func(name string, v []byte) error {
		if engine.CheckName(name) != nil { // which nobody has written through the engine
			m.reg.lost = true
			return nil
		}
		m.announced = append(m.announced, name)
		c, rest, err := cutCopy(v)
		if err != nil || len(rest) > 0 || name != copyRecord(m.own, c.Instance) {
			m.reg.lost = true // a copy of which nothing is known
			return nil
		}
		if _, found := m.reg.find(c.Instance); found {
			return nil
		}
		if len(m.reg.copies) == maxCopies {
			m.reg.lost = true
			return nil
		}
		c.vouched = false
		m.reg.copies = m.reg.with(c)
		return nil
	})
}

// admit judges what was found, with a document that is authentic.
func (m *metaStorage) admit(o keyring.Opened) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known {
		return
	}
	m.known = true
	if m.doubt == "" {
		want := o.Tag(metaRegister, m.found[1])
		switch {
		case !hmac.Equal(want[:], m.found[0]):
			m.doubt = "it was not made by this store"
		case m.reg.instance != o.Instance: // a document that a copy saved was put in its place
			m.doubt = fmt.Sprintf("it is of instance %v, and the keyring document of %v", m.reg.instance, o.Instance)
		}
		if m.doubt != "" {
			m.distrust()
		}
	}
	if m.waits && o.Instance != m.own {
		// The copies that its source made are no concern of a copy's, which has made none but
		// what it announced.
		m.reg.copies = slices.DeleteFunc(m.reg.copies, func(c copyEntry) bool {
			return !slices.Contains(m.announced, copyRecord(m.own, c.Instance))
		})
		m.reg.lost = false
	}
}

// sum is the SHA-256 of the document.
func (m *metaStorage) sum() [sha256.Size]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.document
}

// isCopy refuses a document that is not the one which a copy was made with or had when it
// was moved, nor one that the copy has saved since: so that nobody can put another of the
// store's, or of the copy's from before, in its place, with the copy's identity, and have
// that moved. It is called with a document
// that is authentic.
func (m *metaStorage) isCopy(c copyEntry, o keyring.Opened) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.own.String() != c.Instance: // somebody exchanged the directory since it was looked at
	case o.Instance == m.own && o.Generation >= c.Generation:
		return nil // saved by the copy
	case m.document == c.document:
		return nil // as it was made; no document has a hash of zeros
	}
	return fmt.Errorf("block: what is at %s has generation %d of the keyring document of instance %v and is not copy %s as the store made it, with generation %d, or as it was moved since: "+
		"it is not moved: %w", c.Path, o.Generation, o.Instance, c.Instance, c.Generation, keyring.ErrUnexpected)
}

// view returns the register as it is now, and whether it is known to be authentic.
func (m *metaStorage) view() (r register, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r = m.reg
	r.past, r.copies = r.past.clone(), slices.Clone(r.copies)
	for i := range r.copies {
		c := &r.copies[i]
		switch {
		case c.mine, c.vouched && m.known:
			c.Doubt = ""
		case !m.known:
			c.Doubt = doubtUnknown
		default:
			c.Doubt = doubtForeign
		}
	}
	return r, m.known
}

// pastKEKs returns the KEK versions that wrapped a document.
func (m *metaStorage) pastKEKs() pastKEKs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reg.past.clone()
}

// wrong returns, once, why the register that was found was not believed; "": it was.
func (m *metaStorage) wrong() (doubt string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known || m.told {
		return ""
	}
	m.told = true
	return m.doubt
}

// mayBeShared reports whether copies were found of which the store may not have noted
// that they have the keys of its epochs: announced ones, and those that were cut off.
func (m *metaStorage) mayBeShared() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.announced) > 0 || slices.ContainsFunc(m.reg.copies, func(c copyEntry) bool { return !c.whole() })
}

// announce takes over a copy that was announced; the next document has it.
func (m *metaStorage) announce(name string, c copyEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.announced, name) {
		m.announced = append(m.announced, name)
	}
	m.reg.copies = m.reg.with(c)
}

func (m *metaStorage) isAnnounced(instance string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.announced, copyRecord(m.own, instance))
}

// unannounce forgets a copy that was announced and is in no register yet; false: it is none
// of those.
func (m *metaStorage) unannounce(instance string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.announced, copyRecord(m.own, instance))
	if i < 0 {
		return false
	}
	m.announced = slices.Delete(slices.Clone(m.announced), i, i+1)
	m.reg.copies = m.reg.without(instance)
	return true
}

// stage has the next document be saved with other copies; unstage takes that back, unless
// it was.
func (m *metaStorage) stage(f func(r register) []copyEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged = f
}

func (m *metaStorage) unstage() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged = nil
}

// noteKEKs writes down what the vaults said of past KEK versions.
func (m *metaStorage) noteKEKs(ctx context.Context, t *keyring.Tagger, said map[vault.KeyID]KeyState, now time.Time) error {
	return m.note(ctx, t, func(r *register) (changed bool) {
		r.past, changed = r.past.after(said, now)
		return changed
	})
}

// notePast adds past KEK versions to those that there are by then: the store may have been
// moved to another while the vault was asked.
func (m *metaStorage) notePast(ctx context.Context, t *keyring.Tagger, found []pastKEK) error {
	return m.note(ctx, t, func(r *register) bool {
		for _, k := range found {
			r.past = r.past.with(k.id, k.public)
		}
		return len(found) > 0
	})
}

// noteCopy writes down what is known of a copy now, unless it was forgotten.
func (m *metaStorage) noteCopy(ctx context.Context, t *keyring.Tagger, c copyEntry) error {
	return m.note(ctx, t, func(r *register) bool {
		i, found := r.find(c.Instance)
		if !found {
			return false
		}
		was := r.copies[i]
		c.vouched, c.mine = was.vouched, was.mine
		r.copies = r.with(c)
		return !bytes.Equal(was.append(nil), c.append(nil))
	})
}

// note replaces the register beside the document that it was written with.
func (m *metaStorage) note(ctx context.Context, t *keyring.Tagger, f func(r *register) (changed bool)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.reg
	if !f(&next) {
		return nil
	}
	record := next.encode()
	if err := engine.SetMeta(ctx, m.part, metaRegister, tagged.Join(t.Tag(record), record)); err != nil {
		return err
	}
	m.reg = next
	return nil
}
