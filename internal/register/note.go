package register

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tagged"
	"github.com/blockseal/blockseal/vault"
)

// Announce saves a copy in a meta record without a tag, which cannot show who wrote it. The next
// document's register adopts the copy; one that is full has it that copies are missing.
func (m *Storage) Announce(ctx context.Context, c Entry) error {
	name := announcementName(m.Own, c.Instance)
	m.short.Lock()
	part := m.part
	m.short.Unlock()
	if err := engine.SetMeta(ctx, part, name, c.Append(nil)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.announced, name) {
		m.announced = append(m.announced, name)
	}
	if len(m.reg.Copies) >= MaxCopies && !m.reg.Has(c.Instance) {
		m.reg.Lost = true
		return nil
	}
	m.reg.Copies = m.reg.With(c)
	return nil
}

// Announced reports whether a copy is announced and in no register yet, and returns the name of its
// meta record.
func (m *Storage) Announced(instance string) (name string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = announcementName(m.Own, instance)
	return name, slices.Contains(m.announced, name)
}

// Unannounce removes a copy that is announced and in no register yet; else it returns false.
func (m *Storage) Unannounce(instance string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.announced, announcementName(m.Own, instance))
	if i < 0 {
		return false
	}
	m.announced = slices.Delete(slices.Clone(m.announced), i, i+1)
	m.reg.Copies = m.reg.Without(instance)
	return true
}

// Stage sets the copies that the next document is saved with.
func (m *Storage) Stage(f func(r Register) []Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged = f
}

// Unstage cancels Stage, unless the document was saved.
func (m *Storage) Unstage() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged = nil
}

// NoteKEKs saves what the vaults answered about past KEK versions.
func (m *Storage) NoteKEKs(ctx context.Context, t *inner.Tagger, said map[vault.KeyID]Answer, now time.Time) error {
	return m.note(ctx, t, func(r *Register) (changed bool) {
		r.Past, changed = r.Past.After(said, now)
		return changed
	})
}

// NotePast adds past KEK versions to the present list, which may have grown while the vault was
// asked.
func (m *Storage) NotePast(ctx context.Context, t *inner.Tagger, found []PastKEK) error {
	return m.note(ctx, t, func(r *Register) bool {
		for _, k := range found {
			r.Past = r.Past.With(k.ID, k.Public)
		}
		return len(found) > 0
	})
}

// NoteCopy saves what is known of a copy now, unless it was forgotten.
func (m *Storage) NoteCopy(ctx context.Context, t *inner.Tagger, c Entry) error {
	return m.note(ctx, t, func(r *Register) bool {
		i, found := r.Find(c.Instance)
		if !found {
			return false
		}
		was := r.Copies[i]
		c.Vouched, c.Mine = was.Vouched, was.Mine
		r.Copies = r.With(c)
		return !bytes.Equal(was.Append(nil), c.Append(nil))
	})
}

// note saves a changed register beside the document that the register was written with. If
// somebody else has saved a document since, with a register of its own, that one stays: what is
// noted saves work, and is found out again.
func (m *Storage) note(ctx context.Context, t *inner.Tagger, f func(r *Register) (changed bool)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.reg
	if !f(&next) {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	// The register first: a document that is saved after this look has another revision of it.
	_, revision, err := m.part.LoadMeta(ctx, Name)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return err
	}
	document, err := Document(ctx, m.part)
	if err != nil {
		return err
	}
	if sha256.Sum256(document) != m.document {
		return nil
	}
	content := next.Encode()
	_, err = m.part.SwapMeta(ctx, engine.Swap{Name: Name, Revision: revision, Value: tagged.Join(t.Tag(content), content)})
	if errors.Is(err, engine.ErrConflict) {
		return nil
	}
	if err != nil {
		return err
	}
	m.reg = next
	return nil
}
