package block

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Copy is a checkpoint that a store remembers having made.
type Copy struct {
	Instance   string    // of the copy, 32 hexadecimal digits
	Path       string    // where it was made
	Made       time.Time // whole seconds
	KEK        vault.KeyID
	Generation uint64 // of its keyring document
	// KEKs are all KEK versions that the copy needs, sorted by their identifiers: KEK,
	// which wraps its document, and those that wrap records of it (ByKEK).
	KEKs []vault.KeyID
	// Doubt says why the store does not vouch for having made the copy; empty: it does.
	// What is in doubt is not moved to another KEK: whoever can write the disk can have
	// put it there. It counts as a use of its KEKs all the same. Without access since the
	// store was opened every copy is, because nobody can tell.
	Doubt string `json:",omitempty"`
}

// NeedsOnly reports whether the copy needs no KEK version but id.
func (c Copy) NeedsOnly(id vault.KeyID) bool {
	return len(c.KEKs) == 1 && c.KEKs[0] == id && c.KEK == id
}

// take takes over what the copy's keyring document says.
func (c *Copy) take(in keyring.Info) {
	c.KEK, c.Generation, c.KEKs = in.KEK, in.Generation, nil
	c.need(slices.Collect(maps.Values(in.KEKs))...)
}

// need adds KEK versions to those that the copy needs.
func (c *Copy) need(ids ...vault.KeyID) {
	c.KEKs = append(append(slices.Clone(c.KEKs), c.KEK), ids...)
	slices.SortFunc(c.KEKs, byIdentifier)
	c.KEKs = slices.Compact(c.KEKs)
}

func byIdentifier(a, b vault.KeyID) int { return strings.Compare(a.String(), b.String()) }

// copyEntry is a copy in the register. On disk, and must not change:
//
//	16 instance of the copy
//	1  1: the store vouches for it; 0: it was found, and somebody may have put it there
//	8  made, seconds since 1970-01-01 UTC
//	8  generation of the copy's keyring document
//	32 SHA-256 of the keyring document that it was made with, or had when it was moved
//	   last; zeros: it was not made whole
//	2  length of the following
//	.  key identifier of the KEK that wraps the copy's document
//	2  number of the following: KEK versions that may wrap records of it, beside that one,
//	   ascending by their identifiers
//	.  for each, its length in 2 bytes, and the key identifier
//	4  length of the following
//	.  path
type copyEntry struct {
	Copy
	vouched  bool
	document [sha256.Size]byte
	mine     bool // this process has made it: not on disk
}

const (
	metaCopy  = "copy/"
	fixedCopy = 16 + 1 + 8 + 8 + sha256.Size
)

// whole reports whether the copy was made whole, as far as is known: with its document it is
// registered, which comes before its identity.
func (c copyEntry) whole() bool { return c.document != [sha256.Size]byte{} }

func (c copyEntry) append(b []byte) []byte {
	var instance keyring.InstanceID
	if n, err := hex.Decode(instance[:], []byte(c.Instance)); err != nil || n != len(instance) {
		panic("block: an instance is 32 hexadecimal digits, not " + c.Instance)
	}
	b = append(b, instance[:]...)
	if c.vouched {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(c.Made.Unix()))
	b = binary.BigEndian.AppendUint64(b, c.Generation)
	b = append(b, c.document[:]...)
	b = appendKeyID(b, c.KEK)
	others := slices.DeleteFunc(slices.Clone(c.KEKs), func(id vault.KeyID) bool { return id == c.KEK })
	b = binary.BigEndian.AppendUint16(b, uint16(len(others))) // a keyring has 1,024 at the most
	for _, id := range others {
		b = appendKeyID(b, id)
	}
	return appendLong(b, []byte(c.Path))
}

func cutCopy(b []byte) (c copyEntry, rest []byte, err error) {
	if len(b) < fixedCopy {
		return c, nil, errors.New("it is cut off")
	}
	instance := keyring.InstanceID(b[:16])
	if instance == (keyring.InstanceID{}) || b[16] > 1 {
		return c, nil, errors.New("it is damaged at its start")
	}
	c.Instance, c.vouched = instance.String(), b[16] == 1
	c.Made = time.Unix(int64(binary.BigEndian.Uint64(b[17:])), 0).UTC()
	c.Generation = binary.BigEndian.Uint64(b[25:])
	c.document = [sha256.Size]byte(b[33:])
	if c.KEK, rest, err = cutKeyID(b[fixedCopy:]); err != nil {
		return c, nil, err
	}
	if len(rest) < 2 {
		return c, nil, errors.New("it is cut off")
	}
	n := int(binary.BigEndian.Uint16(rest))
	rest = rest[2:]
	var others []vault.KeyID
	for range n {
		var id vault.KeyID
		if id, rest, err = cutKeyID(rest); err != nil {
			return c, nil, err
		}
		if id == c.KEK || len(others) > 0 && byIdentifier(others[len(others)-1], id) >= 0 {
			return c, nil, errors.New("its key identifiers are out of order")
		}
		others = append(others, id)
	}
	c.need(others...)
	if len(rest) < 4 || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-4) {
		return c, nil, errors.New("its path is cut off")
	}
	end := 4 + int(binary.BigEndian.Uint32(rest))
	c.Path = string(rest[4:end])
	return c, rest[end:], nil
}

// copyRecord is the name of the record that announces a copy.
func copyRecord(own keyring.InstanceID, instance string) string {
	return metaCopy + own.String() + "/" + instance
}

// Copies returns the checkpoints that the store remembers, with the KEK versions that
// each was last known to need, sorted by their instances. It needs no access; but without
// access since the store was opened all of them are in doubt ([Copy].Doubt).
func (s *Store) Copies(ctx context.Context) ([]Copy, error) {
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return nil, fmt.Errorf("block: copies: %w", ErrClosed)
	}
	copies, _ := s.copies()
	return copies, nil
}

// copies is Copies for those who keep the engine open. whole is whether it is known that
// none is missing.
func (s *Store) copies() (out []Copy, whole bool) {
	r, known := s.storage.view()
	for _, c := range r.copies {
		out = append(out, c.Copy)
	}
	return out, known && !r.lost
}

// changeCopies saves a keyring document with other copies: which there are changes with the
// document alone, so that nobody can bring back what was before.
func (s *Store) changeCopies(ctx context.Context, f func(r register) []copyEntry) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.proveNow(ctx); err != nil {
		return err
	}
	s.storage.stage(f)
	defer s.storage.unstage()
	return s.keys.Save(ctx)
}

// ForgetCopy makes the store forget a checkpoint, because it was destroyed or is
// none of the store's concern any more. If the store is moving it to another KEK, that is
// ended first: when ForgetCopy has returned the copy's files can be removed. It takes access,
// so that nobody can bring back what was forgotten: [ErrInaccessible].
func (s *Store) ForgetCopy(ctx context.Context, instance string) error {
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return fmt.Errorf("block: forget copy: %w", ErrClosed)
	}
	if s.opts.ReadOnly {
		return fmt.Errorf("block: forget copy: %w", ErrReadOnly)
	}
	err := s.endMove(ctx, instance, func() error { return s.forget(ctx, instance) })
	if err != nil {
		return fmt.Errorf("block: forget copy: %w", err)
	}
	return nil
}

// forget takes a copy from the register, which is saved with the next document, or its
// announcement.
func (s *Store) forget(ctx context.Context, instance string) error {
	if s.storage.isAnnounced(instance) {
		if err := s.writeMeta(ctx, copyRecord(s.storage.own, instance), nil); err != nil {
			return err
		}
		if s.storage.unannounce(instance) {
			return nil
		} // else a document has just taken it over
	}
	if r, _ := s.storage.view(); !r.has(instance) {
		return nil
	}
	err := s.changeCopies(ctx, func(r register) []copyEntry { return r.without(instance) })
	if err == nil {
		s.changed()
	}
	return err
}

// writeMeta sets a meta record durably, or deletes it if value is nil.
func (s *Store) writeMeta(ctx context.Context, name string, value []byte) error {
	if err := engine.SetMeta(ctx, s.part, name, value); err != nil {
		return err
	}
	s.changed()
	return nil
}

// announce remembers a copy that is about to be made, with the KEK versions that it may
// need, so that there is none, whole or not, that the store does not remember.
func (s *Store) announce(ctx context.Context, dir string, instance keyring.InstanceID) error {
	keks, active := s.keys.KEKs()
	c := copyEntry{Copy: Copy{Instance: instance.String(), Path: dir, Made: s.keys.Now().UTC().Truncate(time.Second), KEK: keks[active],
		Generation: s.keys.State().Generation}, vouched: true, mine: true}
	c.need(slices.Collect(maps.Values(keks))...)
	if r, _ := s.storage.view(); len(r.copies) >= maxCopies {
		return fmt.Errorf("the store remembers %d copies; forget those that are gone: %w", len(r.copies), keyring.ErrLimit)
	}
	return s.remember(ctx, c)
}

// remember registers a copy, or what is known of it now. Without access it announces it: this
// process knows that it has made it, and says so with the next document; a later one can not.
func (s *Store) remember(ctx context.Context, c copyEntry) error {
	defer s.changed()
	err := s.changeCopies(ctx, func(r register) []copyEntry { return r.with(c) })
	if err == nil || !noRecord(err) && !errors.Is(err, ErrCorrupt) {
		return err
	}
	name := copyRecord(s.storage.own, c.Instance)
	if err := engine.SetMeta(ctx, s.part, name, c.append(nil)); err != nil {
		return err
	}
	s.storage.announce(name, c)
	return nil
}

// register remembers a copy that was just made. Reading the document back from the
// copy shows which KEK versions it needs, whatever was rotated meanwhile, and that the
// copy opens.
func (s *Store) register(ctx context.Context, dir string, instance keyring.InstanceID) error {
	document, err := s.copyDocument(ctx, dir)
	if err != nil {
		return err
	}
	in, err := keyring.Inspect(document)
	if err != nil {
		return err
	}
	c := copyEntry{Copy: Copy{Instance: instance.String(), Path: dir, Made: s.keys.Now().UTC().Truncate(time.Second)}, vouched: true, mine: true,
		document: sha256.Sum256(document)}
	c.take(in)
	return s.remember(ctx, c)
}

// copyDocument reads the keyring document of a copy that has no identity yet.
func (s *Store) copyDocument(ctx context.Context, dir string) (document []byte, err error) {
	lock, err := pebble.LockDir(dir, s.opts.FS, true)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	db, err := pebble.Open(dir, lock, pebble.Options{FS: s.opts.FS, ReadOnly: true, Fatal: s.opts.Fatal})
	if err != nil {
		return nil, s.damage(err)
	}
	document, err = engine.ReadMeta(ctx, db.Partition(s.partition), metaKeyring)
	if err = errors.Join(err, db.Close()); err != nil {
		return nil, s.damage(err)
	}
	return document, nil
}
