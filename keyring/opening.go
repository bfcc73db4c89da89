package keyring

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/secret"
)

// opening is a later document that was opened in a session, on its way to being the keyring's.
// Admit, which may take long, looks at it meanwhile. The lock that ends the session does
// not wait for that: it destroys the keys. Guarded by Keyring.docMu.
type opening struct {
	r           *Keyring
	b           *body // nil: it was destroyed
	secret      [secretSize]byte
	fingerprint string
	instance    inner.InstanceID
}

// openFound opens d in the session s, which must not have ended, with docSecret, which it clears, or
// with the session's own secret if that is nil. Close what it returns.
func (r *Keyring) openFound(s *session, d *stored, docSecret *[secretSize]byte) (*opening, error) {
	if docSecret != nil {
		defer clear(docSecret[:])
	}
	r.docMu.Lock()
	defer r.docMu.Unlock()
	if r.session.Load() != s { // it is destroyed under docMu
		return nil, r.endedSession()
	}
	if int64(r.clock.Elapsed()) >= s.deadline.Load() { // and the lock is late
		return nil, errSessionEnded
	}
	o := &opening{r: r}
	secret.Do(func() {
		if o.secret = s.secret; docSecret != nil {
			o.secret = *docSecret
		}
	})
	b, err := openBody(d.sealed, &o.secret, d.aad)
	if err != nil {
		clear(o.secret[:])
		return nil, &reloadError{err}
	}
	o.b, o.fingerprint, o.instance = b, b.fingerprint(), b.instance
	if s.opening == nil {
		s.opening = map[*opening]struct{}{}
	}
	s.opening[o] = struct{}{}
	return o, nil
}

func (o *opening) close(s *session) {
	o.r.docMu.Lock()
	defer o.r.docMu.Unlock()
	o.destroy()
	delete(s.opening, o)
}

// destroy overwrites the keys. docMu is held.
func (o *opening) destroy() {
	if o.b != nil {
		o.b.destroy()
	}
	o.b = nil
	clear(o.secret[:])
}

// tag is that of the document or, when its keys are gone, one that is nobody's.
func (o *opening) tag(purpose string, data []byte) (tag [inner.TagSize]byte) {
	o.r.docMu.Lock()
	defer o.r.docMu.Unlock()
	if o.b == nil {
		rand.Read(tag[:])
		return tag
	}
	return o.b.tag(purpose, data)
}

// admitFound is admit for a document that was opened in the session s. It does not wait for an
// Admit that does not come back.
func (r *Keyring) admitFound(s *session, o *opening, generation uint64) error {
	if err := r.authentic(o.fingerprint, o.instance, generation); err != nil || r.opts.For(inner.Block{}).Admit == nil {
		return err
	}
	slow := fmt.Errorf("keyring: Admit did not return within %v, the keyring's Options.VaultTimeout", r.opts.VaultTimeout)
	return within(s.ctx, r.clock, r.opts.VaultTimeout, slow, r.ctx, func(ctx context.Context) error {
		return r.callAdmit(ctx, inner.Opened{Tag: o.tag, Generation: generation, Instance: o.instance})
	})
}
