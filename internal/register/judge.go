package register

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/keyring"
)

// These are the reasons of [Copy].Doubt.
const (
	doubtUnknown = "the keys were not accessible yet: whether this store made it nobody can tell"
	// DoubtForeign is the doubt about a copy that somebody may have put there.
	DoubtForeign = "nothing shows that this store made it: its record is not authentic, or was made while the keys were not accessible; it is not moved"
)

// loadRegister reads the register from the engine. Nothing in it is known to be authentic before
// Admit. A register that cannot be read does not keep the store from opening: the copies and KEK
// versions count as incomplete.
func (m *Storage) loadRegister(ctx context.Context, document []byte) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	m.document, m.found = sha256.Sum256(document), nil
	b, err := engine.ReadMeta(ctx, m.part, Name)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		m.doubt = "it is missing"
	case err != nil:
		return err
	case len(b) > 0 && b[0] != tagged.Version:
		return fmt.Errorf("block: the register of copies and KEK versions: %w", keyring.ErrVersion)
	default:
		tag, content, ok := tagged.Split(b)
		if !ok {
			m.doubt = "it is cut off"
			break
		}
		if m.reg, err = Decode(content); errors.Is(err, keyring.ErrVersion) {
			return err
		} else if err != nil {
			m.doubt = "it is damaged"
			break
		}
		m.found = [][]byte{tag, content}
		switch {
		case m.reg.Generation != in.Generation:
			m.doubt = fmt.Sprintf("it was written with generation %d of the keyring document, which has generation %d", m.reg.Generation, in.Generation)
		case m.waits && m.reg.Instance != m.Own:
			// A copy finds the register of its source, of a copy of that, or of what the source was
			// before somebody copied its files. Those copies are not this one's.
			m.reg.Copies, m.reg.Lost = nil, false
		case m.reg.Instance != m.Own:
			m.doubt = fmt.Sprintf("it is of instance %v, and the store is %v", m.reg.Instance, m.Own)
		}
	}
	m.reg.Generation = in.Generation
	m.reg.Past = m.reg.Past.With(in.KEK, in.PublicKeys[in.KEK])
	if m.doubt != "" {
		m.distrust()
	}
	return m.loadAnnounced(ctx)
}

// catchUp adopts the register that somebody else has saved with the document was, since this one
// was loaded or saved: the next save must have its copies and KEK versions. If it is not authentic,
// or not of that document, it is in doubt as at Open, and what was known stays. m.mu is held.
func (m *Storage) catchUp(ctx context.Context, was keyring.Revision, is inner.Opened) error {
	if m.part == nil || was == "" || was == keyring.Revision(hex.EncodeToString(m.document[:])) {
		return nil
	}
	b, err := engine.ReadMeta(ctx, m.part, Name)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	tag, content, ok := tagged.Split(b)
	if want := is.Tag(Name, content); ok && hmac.Equal(want[:], tag) {
		reg, err := Decode(content)
		if err != nil {
			return err
		}
		if reg.Instance == is.Instance && reg.Generation+1 == is.Generation {
			for i := range reg.Copies {
				at, found := m.reg.Find(reg.Copies[i].Instance)
				reg.Copies[i].Mine = found && m.reg.Copies[at].Mine
			}
			m.reg = reg
			return nil
		}
	}
	m.doubt, m.told = "it is not the one that was saved with the keyring document that somebody else has saved", false
	m.distrust()
	return nil
}

// distrust marks everything that was found as doubtful and incomplete. It keeps the entries: one
// too many costs a look, one too few may cost a key.
func (m *Storage) distrust() {
	m.reg.Past.Incomplete, m.reg.Lost = true, true
	for i := range m.reg.Copies {
		m.reg.Copies[i].Vouched = m.reg.Copies[i].Mine // this process knows its own
	}
}

// loadAnnounced adopts the copies that were announced and not registered.
func (m *Storage) loadAnnounced(ctx context.Context) error {
	return m.part.ListMeta(ctx, announcementName(m.Own, ""), func(name string, v []byte) error {
		if engine.CheckName(name) != nil { // nobody has written this name through the engine
			m.reg.Lost = true
			return nil
		}
		m.announced = append(m.announced, name)
		c, rest, err := cutEntry(v)
		if err != nil || len(rest) > 0 || name != announcementName(m.Own, c.Instance) {
			m.reg.Lost = true // a copy of which nothing is known
			return nil
		}
		if _, found := m.reg.Find(c.Instance); found {
			return nil
		}
		if len(m.reg.Copies) == MaxCopies {
			m.reg.Lost = true
			return nil
		}
		c.Vouched = false
		m.reg.Copies = m.reg.With(c)
		return nil
	})
}

// Admit judges what was found by a document that is authentic.
func (m *Storage) Admit(o inner.Opened) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known {
		return
	}
	m.known = true
	if m.doubt == "" {
		want := o.Tag(Name, m.found[1])
		switch {
		case !hmac.Equal(want[:], m.found[0]):
			m.doubt = "it was not made by this store"
		case m.reg.Instance != o.Instance: // a document that a copy saved was put in its place
			m.doubt = fmt.Sprintf("it is of instance %v, and the keyring document of %v", m.reg.Instance, o.Instance)
		}
		if m.doubt != "" {
			m.distrust()
		}
	}
	if m.waits && o.Instance != m.Own {
		// The copies that its source made are not this copy's. It has made only those that it
		// announced.
		m.reg.Copies = slices.DeleteFunc(m.reg.Copies, func(c Entry) bool {
			return !slices.Contains(m.announced, announcementName(m.Own, c.Instance))
		})
		m.reg.Lost = false
	}
}

// Sum returns the SHA-256 of the document.
func (m *Storage) Sum() [sha256.Size]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.document
}

// CheckCopy refuses a document unless it is the one that the copy was made with, or had when it was
// moved last, or one that the copy has saved since. So nobody can have another document of the
// store, or an older one of the copy, moved under the copy's identity. o is the content of a
// document that is authentic.
func (m *Storage) CheckCopy(c Entry, o inner.Opened) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.Own.String() != c.Instance: // somebody exchanged the directory since it was inspected
	case o.Instance == m.Own && o.Generation >= c.Generation:
		return nil // saved by the copy
	case m.document == c.Document:
		return nil // as it was made; no document has a hash of zeros
	}
	return fmt.Errorf("block: what is at %s has generation %d of the keyring document of instance %v and is not copy %s as the store made it, with generation %d, or as it was moved since: "+
		"it is not moved: %w", c.Path, o.Generation, o.Instance, c.Instance, c.Generation, keyring.ErrUnexpected)
}

// View returns the register as it is now, and whether it is known to be authentic.
func (m *Storage) View() (r Register, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r = m.reg
	r.Past, r.Copies = r.Past.clone(), slices.Clone(r.Copies)
	for i := range r.Copies {
		c := &r.Copies[i]
		switch {
		case c.Mine, c.Vouched && m.known:
			c.Doubt = ""
		case !m.known:
			c.Doubt = doubtUnknown
		default:
			c.Doubt = DoubtForeign
		}
	}
	return r, m.known
}

// Past returns the KEK versions that ever wrapped a document.
func (m *Storage) Past() PastKEKs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reg.Past.clone()
}

// Wrong returns, once, why the register was not believed; "" if it was.
func (m *Storage) Wrong() (doubt string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known || m.told {
		return ""
	}
	m.told = true
	return m.doubt
}

// MayBeShared reports whether there are copies that may have the keys of the store's epochs without
// a note of that in the document: announced copies, and those that were cut off.
func (m *Storage) MayBeShared() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.announced) > 0 || slices.ContainsFunc(m.reg.Copies, func(c Entry) bool { return !c.Whole() })
}
