package keyring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"

	"github.com/blockseal/blockseal/internal/inner"
)

// Revision names what a [Storage] holds at one moment. It is the storage's own, and opaque
// to a keyring: a counter in a column, an entity tag, or the hash of the document
// ([ContentRevision]). Two documents of one place never have the same one. The empty
// Revision names a storage that holds no document.
type Revision string

// ContentRevision is a Revision for storages that have no counter: the SHA-256 of the
// document, in hexadecimal. No two documents are alike: each is sealed under a fresh nonce.
func ContentRevision(document []byte) Revision {
	sum := sha256.Sum256(document)
	return Revision(hex.EncodeToString(sum[:]))
}

// Storage keeps one keyring document, for one keyring or for several, in one process or in
// many. The document needs no secrecy and no integrity from its storage. What Swap returned
// from without an error must survive a crash, and every Load that begins after that, by
// whomever, must return it or what replaced it. It is safe for concurrent use. Package
// storagetest has the conformance suite.
type Storage interface {
	// Load returns the document and its revision, or an error that matches
	// [ErrNoDocument]. What it returned must survive a crash too: it may be of a Swap that
	// did not return, and keys are used, and an [Anchor] advanced, by it. Each check of a
	// keyring calls it, beside whatever else goes on, and Close waits for one that is under way.
	Load(ctx context.Context) (document []byte, revision Revision, err error)
	// Swap replaces the document, atomically and durably, if its revision is still was, and
	// returns the revision that the new one has. The empty revision is of a storage that
	// holds none. It heeds its context, which ends when the keyring locks, and after
	// Options.VaultTimeout: a lock and Close wait for one that does not.
	//
	// If the revision is another, it changes nothing and returns an error that matches
	// [ErrConflict], which says that nothing of this Swap was saved: what a keyring gives back of
	// its reservations it takes off again then. So who sends a swap again, because the answer to the
	// first was lost, and then finds that the document was replaced, does not know by whom, and
	// returns another error, whatever document is there: the first may have been saved, and another
	// keyring's made from that. A client of an object store that does so by itself has to be told
	// not to. After any other error the storage holds the document of before or the new one, now or
	// a moment later: whoever called it believes neither, and loads. It keeps no reference to
	// document.
	Swap(ctx context.Context, was Revision, document []byte) (Revision, error)
}

// taggingStorage is a Storage that keeps more than the document, for a database on top
// that must not believe what it finds beside it: SwapTagged is called in the place of Swap,
// with what the document is, whose Tag can be used until SwapTagged returns. What is saved with
// each document, names its generation and is tagged, nobody can put back alone. It replaces
// both or neither.
type taggingStorage interface {
	Storage
	SwapTagged(ctx context.Context, was Revision, document []byte, is inner.Opened) (Revision, error)
}

// swap gives the storage a document with the body b in the place of the one that was taken
// last, and notes the revision that it has there. The caller has the turn of changes, whose ctx
// it is. docMu is held, but not while the storage works.
func (r *Keyring) swap(ctx context.Context, d *stored, b *body) (err error) {
	was := r.revision
	r.docMu.Unlock()
	defer r.docMu.Lock()
	if t, ok := r.storage.(taggingStorage); ok {
		d.revision, err = t.SwapTagged(ctx, was, d.document(), inner.Opened{Tag: b.tag, Generation: d.header.generation, Instance: b.instance, Counts: b.counts})
	} else {
		d.revision, err = r.storage.Swap(ctx, was, d.document())
	}
	switch {
	case err == nil && d.revision == "":
		return fmt.Errorf("save generation %d: the storage returned no revision", d.header.generation)
	case err == nil:
		return nil
	}
	return fmt.Errorf("save generation %d: %w", d.header.generation, r.whyEnded(ctx, err))
}

// swapAlone is swap for who has the keyring alone.
func (r *Keyring) swapAlone(ctx context.Context, d *stored, b *body) error {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.swap(ctx, d, b)
}

// MemStorage is a Storage in memory, for tests and for programs that keep the
// document with their own metadata. The zero value is empty. Keyrings that share it share the
// document, as those of several processes share a file.
type MemStorage struct {
	mu       sync.Mutex
	document []byte
	swaps    uint64 // its revision
}

// Load implements [Storage].
func (m *MemStorage) Load(ctx context.Context) ([]byte, Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.document == nil {
		return nil, "", fmt.Errorf("keyring: %w", ErrNoDocument)
	}
	return bytes.Clone(m.document), m.revision(), nil
}

// Swap implements [Storage].
func (m *MemStorage) Swap(ctx context.Context, was Revision, document []byte) (Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revision() != was {
		return "", fmt.Errorf("keyring: %w", ErrConflict)
	}
	m.document = append([]byte{}, document...)
	m.swaps++
	return m.revision(), nil
}

// revision is of what m holds. m.mu is held.
func (m *MemStorage) revision() Revision {
	if m.document == nil {
		return ""
	}
	return Revision(strconv.FormatUint(m.swaps, 10))
}
