package block

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// The register is what hands keys to something, or tells a person which keys may be
// destroyed: the copies that the store made, and the KEK versions that ever wrapped a
// keyring document of it. It is one tagged record, written in one batch with each keyring
// document, whose generation and instance it names. So whoever can write the disk can
// neither make one, nor put back one of before alone, nor take it away unnoticed: that
// takes the document of before as well, which an anchor refuses. Which copies there are
// changes only with a document. What is known of a copy, and since when a KEK version is
// gone, is written in between too; what is put back of that names more, and not less.
//
// Without access nothing can be tagged: a copy that is made then is announced in a record
// of its own, "copy/", the instance of the store, "/", and the copy's, whose value is the
// copy as in the register. Nobody who finds one can know who wrote it.
//
// On disk, and must not change:
//
//	offset  size  field
//	     0     1  version, 1
//	     1    16  instance of the store
//	    17     8  generation of the keyring document that it was written with
//	    25     1  1: KEK versions may be missing below; 2: copies; 3: both; else 0
//	    26     2  number of KEK versions, at most 1,024
//	    28     .  for each, oldest first: see pastKEK
//	     .     2  number of copies, at most 4,096
//	     .     .  for each, by ascending instance: see copyEntry
const (
	metaRegister    = "register"
	registerVersion = 1
	fixedRegister   = 26

	keksMissing   = 1
	copiesMissing = 2

	// maxCopies bounds what is written with each document.
	maxCopies = 4096
)

// register is the decoded record, with what is known of it.
type register struct {
	instance   keyring.InstanceID
	generation uint64
	past       pastKEKs
	copies     []copyEntry // by ascending instance
	lost       bool        // copies may be missing
}

func (r register) encode() []byte {
	b := append([]byte{registerVersion}, r.instance[:]...)
	b = binary.BigEndian.AppendUint64(b, r.generation)
	missing := byte(0)
	if r.past.incomplete {
		missing |= keksMissing
	}
	if r.lost {
		missing |= copiesMissing
	}
	b = append(b, missing)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.past.keks)))
	for _, k := range r.past.keks {
		b = k.append(b)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.copies)))
	for _, c := range r.copies {
		b = c.append(b)
	}
	return b
}

func decodeRegister(b []byte) (r register, err error) {
	bad := func(what string, err error) (register, error) {
		if err != nil {
			return register{}, fmt.Errorf("block: the register of copies and KEK versions %s: %w: %w", what, ErrCorrupt, err)
		}
		return register{}, fmt.Errorf("block: the register of copies and KEK versions %s: %w", what, ErrCorrupt)
	}
	if len(b) > 0 && b[0] != registerVersion {
		return r, fmt.Errorf("block: the register of copies and KEK versions: %w", ErrVersion)
	}
	if len(b) < fixedRegister || b[25] > keksMissing|copiesMissing {
		return bad("is damaged at its start", nil)
	}
	r.instance = keyring.InstanceID(b[1:17])
	r.generation = binary.BigEndian.Uint64(b[17:])
	r.past.incomplete, r.lost = b[25]&keksMissing != 0, b[25]&copiesMissing != 0
	rest := b[fixedRegister:]
	count := func(most int) (n int, ok bool) {
		if len(rest) < 2 {
			return 0, false
		}
		n = int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		return n, n <= most
	}
	n, ok := count(maxPast)
	if !ok {
		return bad("has no number of KEK versions, or one that is too large", nil)
	}
	for range n {
		var k pastKEK
		if k, rest, err = cutPast(rest); err != nil {
			return bad("has a bad KEK version", err)
		}
		if r.past.index(k.id) >= 0 {
			return bad("has a KEK version twice", nil)
		}
		r.past.keks = append(r.past.keks, k)
	}
	if n, ok = count(maxCopies); !ok {
		return bad("has no number of copies, or one that is too large", nil)
	}
	for range n {
		var c copyEntry
		if c, rest, err = cutCopy(rest); err != nil {
			return bad("has a bad copy", err)
		}
		if len(r.copies) > 0 && r.copies[len(r.copies)-1].Instance >= c.Instance {
			return bad("has its copies out of order", nil)
		}
		r.copies = append(r.copies, c)
	}
	if len(rest) > 0 {
		return bad("goes on after its end", nil)
	}
	return r, nil
}

// find returns where a copy is, or belongs.
func (r register) find(instance string) (int, bool) {
	return slices.BinarySearchFunc(r.copies, instance, func(c copyEntry, instance string) int {
		return strings.Compare(c.Instance, instance)
	})
}

// with returns the copies with one more, or another in the place of one.
func (r register) with(c copyEntry) []copyEntry {
	out := slices.Clone(r.copies)
	i, found := r.find(c.Instance)
	if found {
		out[i] = c
	} else {
		out = slices.Insert(out, i, c)
	}
	return out
}

func (r register) has(instance string) bool {
	_, found := r.find(instance)
	return found
}

// without returns the copies without one.
func (r register) without(instance string) []copyEntry {
	return slices.DeleteFunc(slices.Clone(r.copies), func(c copyEntry) bool { return c.Instance == instance })
}

// Why the store does not vouch for a copy.
const (
	doubtUnknown = "the keys were not accessible yet: whether this store made it nobody can tell"
	doubtForeign = "nothing shows that this store made it: its record is not authentic, or was made while the keys were not accessible; it is not moved"
)

// loadRegister takes over what was found in the engine, beside a document. Nothing of it is
// known to be authentic until admit. What cannot be read is nothing that keeps a store from
// opening: it is missing, and that is said.
func (m *metaStorage) loadRegister(document []byte) error {
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	m.document, m.found = sha256.Sum256(document), nil
	b, err := readMeta(m.db, metaRegister)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		m.doubt = "it is missing"
	case err != nil:
		return err
	case len(b) > 0 && b[0] != taggedVersion:
		return fmt.Errorf("block: the register of copies and KEK versions: %w", ErrVersion)
	default:
		tag, record, ok := splitTagged(b)
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
		case slices.Contains(m.from, m.reg.instance) && m.reg.instance != m.own:
			m.reg.copies, m.reg.lost = nil, false // no concern of this copy's
		case m.reg.instance != m.own:
			m.doubt = fmt.Sprintf("it is of instance %v, and the store is %v", m.reg.instance, m.own)
		}
	}
	m.reg.generation = in.Generation
	m.reg.past = m.reg.past.with(in.KEK, in.PublicKeys[in.KEK])
	if m.doubt != "" {
		m.distrust()
	}
	return m.loadAnnounced()
}

// distrust makes everything that was found something that somebody may have put there, or
// taken from. It is kept: to name more than there is does no harm but to who has to look.
func (m *metaStorage) distrust() {
	m.reg.past.incomplete, m.reg.lost = true, true
	for i := range m.reg.copies {
		m.reg.copies[i].vouched = false
	}
}

// loadAnnounced takes over the copies that were announced and not registered.
func (m *metaStorage) loadAnnounced() error {
	prefix := metaKey(copyRecord(m.own, ""))
	it, err := m.db.NewIter(prefix, append(bytes.Clone(prefix), 0xff))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return err
		}
		name := string(it.Key()[1:])
		m.announced = append(m.announced, name)
		c, rest, err := cutCopy(v)
		if err != nil || len(rest) > 0 || name != copyRecord(m.own, c.Instance) {
			m.reg.lost = true // a copy of which nothing is known
			continue
		}
		if _, found := m.reg.find(c.Instance); found {
			continue
		}
		if len(m.reg.copies) == maxCopies {
			m.reg.lost = true
			continue
		}
		c.vouched = false
		m.reg.copies = m.reg.with(c)
	}
	return it.Err()
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
	if o.Instance != m.own && slices.Contains(m.from, o.Instance) {
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
	return len(m.announced) > 0 || slices.ContainsFunc(m.reg.copies, func(c copyEntry) bool { return c.document == [sha256.Size]byte{} })
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

// noteCopy writes down what is known of a copy now, unless it was forgotten.
func (m *metaStorage) noteCopy(t *keyring.Tagger, c copyEntry) error {
	return m.note(t, func(r *register) bool {
		i, found := r.find(c.Instance)
		if found {
			c.vouched, c.mine = r.copies[i].vouched, r.copies[i].mine
			r.copies = r.with(c)
		}
		return found
	})
}

// note replaces the register beside the document that it was written with.
func (m *metaStorage) note(t *keyring.Tagger, f func(r *register) (changed bool)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.reg
	if !f(&next) {
		return nil
	}
	record := next.encode()
	b := m.db.NewBatch()
	defer b.Close()
	if err := b.Set(metaKey(metaRegister), joinTagged(t.Tag(record), record)); err != nil {
		return err
	}
	if err := m.db.Commit(b, true); err != nil {
		return err
	}
	m.reg = next
	return nil
}
