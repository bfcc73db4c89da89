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

// Why the store does not vouch for a copy ([Copy].Doubt).
const (
	doubtUnknown = "the keys were not accessible yet: whether this store made it nobody can tell"
	// DoubtForeign is of what somebody may have put there.
	DoubtForeign = "nothing shows that this store made it: its record is not authentic, or was made while the keys were not accessible; it is not moved"
)

// loadRegister takes over what was found in the engine, beside a document. Nothing of it is
// known to be authentic until Admit. What cannot be read is nothing that keeps a store from
// opening: it is missing, and that is said.
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
		tag, record, ok := tagged.Split(b)
		if !ok {
			m.doubt = "it is cut off"
			break
		}
		if m.reg, err = Decode(record); errors.Is(err, keyring.ErrVersion) {
			return err
		} else if err != nil {
			m.doubt = "it is damaged"
			break
		}
		m.found = [][]byte{tag, record}
		switch {
		case m.reg.Generation != in.Generation:
			m.doubt = fmt.Sprintf("it was written with generation %d of the keyring document, which has generation %d", m.reg.Generation, in.Generation)
		case m.Waits && m.reg.Instance != m.Own:
			// Of whichever it is a copy: of its source, of a copy of that, or of what that was
			// before somebody copied its files. Its copies are no concern of this one's.
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

// catchUp takes over the register that somebody else has saved with the document was, since this
// one was loaded or saved: what is saved next has to have its copies and KEK versions. One that is
// not authentic, or not of that document, is a doubt as at Open; what was known stays. m.mu is
// held.
func (m *Storage) catchUp(ctx context.Context, was keyring.Revision, is inner.Opened) error {
	if m.part == nil || was == "" || was == keyring.Revision(hex.EncodeToString(m.document[:])) {
		return nil
	}
	b, err := engine.ReadMeta(ctx, m.part, Name)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	tag, record, ok := tagged.Split(b)
	if want := is.Tag(Name, record); ok && hmac.Equal(want[:], tag) {
		reg, err := Decode(record)
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

// distrust makes everything that was found something that somebody may have put there, or
// taken from. It is kept: to name more than there is does no harm but to who has to look.
func (m *Storage) distrust() {
	m.reg.Past.Incomplete, m.reg.Lost = true, true
	for i := range m.reg.Copies {
		m.reg.Copies[i].Vouched = m.reg.Copies[i].Mine // those since are known
	}
}

// loadAnnounced takes over the copies that were announced and not registered.
func (m *Storage) loadAnnounced(ctx context.Context) error {
	return m.part.ListMeta(ctx, copyRecord(m.Own, ""), func(name string, v []byte) error {
		if engine.CheckName(name) != nil { // which nobody has written through the engine
			m.reg.Lost = true
			return nil
		}
		m.announced = append(m.announced, name)
		c, rest, err := cutEntry(v)
		if err != nil || len(rest) > 0 || name != copyRecord(m.Own, c.Instance) {
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

// Admit judges what was found, with a document that is authentic.
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
	if m.Waits && o.Instance != m.Own {
		// The copies that its source made are no concern of a copy's, which has made none but
		// what it announced.
		m.reg.Copies = slices.DeleteFunc(m.reg.Copies, func(c Entry) bool {
			return !slices.Contains(m.announced, copyRecord(m.Own, c.Instance))
		})
		m.reg.Lost = false
	}
}

// Sum is the SHA-256 of the document.
func (m *Storage) Sum() [sha256.Size]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.document
}

// CheckCopy refuses a document that is not the one which a copy was made with or had when it
// was moved, nor one that the copy has saved since: so that nobody can put another of the
// store's, or of the copy's from before, in its place, with the copy's identity, and have
// that moved. It is called with a document that is authentic.
func (m *Storage) CheckCopy(c Entry, o inner.Opened) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.Own.String() != c.Instance: // somebody exchanged the directory since it was looked at
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

// Past returns the KEK versions that wrapped a document.
func (m *Storage) Past() PastKEKs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reg.Past.clone()
}

// Wrong returns, once, why the register that was found was not believed; "": it was.
func (m *Storage) Wrong() (doubt string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known || m.told {
		return ""
	}
	m.told = true
	return m.doubt
}

// MayBeShared reports whether copies were found of which the store may not have noted
// that they have the keys of its epochs: announced ones, and those that were cut off.
func (m *Storage) MayBeShared() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.announced) > 0 || slices.ContainsFunc(m.reg.Copies, func(c Entry) bool { return !c.Whole() })
}
