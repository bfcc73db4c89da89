package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/kek"
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
	// which wraps its document, and those that wrap records of it (ByKEK). Nil for a copy
	// of which an older release remembered KEK alone, until the store's KEK changes next
	// and the copy can be reached.
	KEKs []vault.KeyID `json:",omitempty"`
}

// needs returns the KEK versions that the copy is known to need.
func (c Copy) needs() []vault.KeyID {
	if c.KEKs == nil {
		return []vault.KeyID{c.KEK}
	}
	return c.KEKs
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

// The record of a copy, in the meta space under "copy/", the instance of the store
// that made it, "/", and the copy's own instance: a copy holds the records of its
// siblings, and has nothing to do with them. On disk, and must not change.
//
//	offset  size  field
//	     0     1  version, 2
//	     1     8  made, seconds since 1970-01-01 UTC
//	     9     8  generation of the copy's keyring document
//	    17     4  length of the following
//	    21     .  key identifier of the KEK that wraps it
//	     .     2  number of the following: KEK versions that may wrap records of it, beside
//	              that one, ascending by their identifiers
//	     .     .  for each, its length in 2 bytes, and the key identifier
//	     .     .  path, to the end
//
// Version 1 lacks the KEK versions that wrap records.
const (
	copyVersion1 = 1
	copyVersion  = 2
	metaCopy     = "copy/"
)

func (c Copy) encode() []byte {
	b := []byte{copyVersion}
	if c.KEKs == nil {
		b[0] = copyVersion1
	}
	b = binary.BigEndian.AppendUint64(b, uint64(c.Made.Unix()))
	b = binary.BigEndian.AppendUint64(b, c.Generation)
	b = appendLong(b, []byte(c.KEK.String()))
	if c.KEKs != nil {
		others := slices.DeleteFunc(slices.Clone(c.KEKs), func(id vault.KeyID) bool { return id == c.KEK })
		b = binary.BigEndian.AppendUint16(b, uint16(len(others))) // a keyring has 1,024 at the most
		for _, id := range others {
			b = appendKeyID(b, id)
		}
	}
	return append(b, c.Path...)
}

func decodeCopy(instance string, b []byte) (c Copy, err error) {
	if len(b) > 0 && b[0] != copyVersion1 && b[0] != copyVersion {
		return c, fmt.Errorf("block: the record of copy %s: %w", instance, ErrVersion)
	}
	if len(b) < 21 || uint64(binary.BigEndian.Uint32(b[17:])) > uint64(len(b)-21) {
		return c, fmt.Errorf("block: the record of copy %s is cut off: %w", instance, ErrCorrupt)
	}
	n := 21 + int(binary.BigEndian.Uint32(b[17:]))
	id, err := vault.ParseKeyID(string(b[21:n]))
	if err != nil {
		return c, fmt.Errorf("block: the record of copy %s: %w: %w", instance, ErrCorrupt, err)
	}
	c = Copy{
		Instance: instance, KEK: id,
		Made:       time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0).UTC(),
		Generation: binary.BigEndian.Uint64(b[9:]),
	}
	rest := b[n:]
	if b[0] == copyVersion {
		if rest, err = c.decodeKEKs(rest); err != nil {
			return Copy{}, fmt.Errorf("block: the record of copy %s: %w: %w", instance, ErrCorrupt, err)
		}
	}
	c.Path = string(rest)
	return c, nil
}

// decodeKEKs reads the KEK versions that may wrap records, and returns what follows.
func (c *Copy) decodeKEKs(b []byte) (rest []byte, err error) {
	if len(b) < 2 {
		return nil, errors.New("it is cut off")
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	var others []vault.KeyID
	for range n {
		var id vault.KeyID
		if id, b, err = cutKeyID(b); err != nil {
			return nil, err
		}
		if id == c.KEK || len(others) > 0 && byIdentifier(others[len(others)-1], id) >= 0 {
			return nil, errors.New("its key identifiers are out of order")
		}
		others = append(others, id)
	}
	c.need(others...)
	return b, nil
}

// Copies returns the checkpoints that the store remembers, with the KEK versions that
// each was last known to need. It needs no access.
func (s *Store) Copies(ctx context.Context) ([]Copy, error) {
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return nil, fmt.Errorf("block: copies: %w", ErrClosed)
	}
	return s.copies()
}

// copies is Copies for those who keep the engine open.
func (s *Store) copies() ([]Copy, error) {
	prefix := metaKey(s.copyRecord(""))
	it, err := s.db.NewIter(prefix, append(bytes.Clone(prefix), 0xff))
	if err != nil {
		return nil, s.damage(err)
	}
	defer it.Close()
	var out []Copy
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return nil, s.damage(err)
		}
		c, err := decodeCopy(string(it.Key()[len(prefix):]), v)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, s.damage(it.Err())
}

// copyRecord is the name of the record of a copy that this store made.
func (s *Store) copyRecord(instance string) string {
	return metaCopy + s.Instance() + "/" + instance
}

// ForgetCopy makes the store forget a checkpoint, because it was destroyed or is
// none of the store's concern any more. If the store is moving it to another KEK, that is
// ended first: when ForgetCopy has returned the copy's files can be removed.
func (s *Store) ForgetCopy(ctx context.Context, instance string) error {
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return fmt.Errorf("block: forget copy: %w", ErrClosed)
	}
	if s.opts.ReadOnly {
		return fmt.Errorf("block: forget copy: %w", ErrReadOnly)
	}
	err := s.endMove(ctx, instance, func() error { return s.writeMeta(s.copyRecord(instance), nil) })
	if err != nil {
		return fmt.Errorf("block: forget copy: %w", err)
	}
	return nil
}

// writeMeta sets a meta record durably, or deletes it if value is nil.
func (s *Store) writeMeta(name string, value []byte) error {
	if err := s.setMeta(name, value); err != nil {
		return err
	}
	s.changed()
	return nil
}

// setMeta is writeMeta for what is not counted.
func (s *Store) setMeta(name string, value []byte) error {
	b := s.db.NewBatch()
	defer b.Close()
	err := b.Delete(metaKey(name))
	if value != nil {
		err = b.Set(metaKey(name), value)
	}
	if err != nil {
		return err
	}
	return s.db.Commit(b, true)
}

// announce remembers a copy that is about to be made, with the KEK versions that it may
// need, so that there is none, whole or not, that the store does not remember.
func (s *Store) announce(dir string, instance instanceID) error {
	keks, active := s.keys.KEKs()
	c := Copy{Path: dir, Made: s.keys.Now(), KEK: keks[active], Generation: s.keys.State().Generation}
	c.need(slices.Collect(maps.Values(keks))...)
	return s.writeMeta(s.copyRecord(instance.String()), c.encode())
}

// register remembers a copy that was just made. Reading the document back from the
// copy shows which KEK versions it needs, whatever was rotated meanwhile, and that the
// copy opens.
func (s *Store) register(dir string, instance instanceID) error {
	in, err := s.copyDocument(dir)
	if err != nil {
		return err
	}
	c := Copy{Path: dir, Made: s.keys.Now()}
	c.take(in)
	return s.writeMeta(s.copyRecord(instance.String()), c.encode())
}

// copyDocument reads the clear part of the keyring document of a copy that has no
// identity yet.
func (s *Store) copyDocument(dir string) (in keyring.Info, err error) {
	lock, err := engine.LockDir(dir, s.opts.FS, true)
	if err != nil {
		return in, err
	}
	defer lock.Close()
	db, err := engine.Open(dir, lock, engine.Options{FS: s.opts.FS, ReadOnly: true, Fatal: s.opts.Fatal})
	if err != nil {
		return in, s.damage(err)
	}
	doc, err := readMeta(db, metaKeyring)
	if err = errors.Join(err, db.Close()); err != nil {
		return in, s.damage(err)
	}
	return keyring.Inspect(doc)
}

// RewrapCheckpoint moves an offline copy of a store from the KEK that wraps it to
// another, without touching its blocks: for copies that a KEK change did not
// reach. The copy goes on waiting for its own Revalidate. Records wrapped ByKEK are
// rewrapped too, at three vault calls each. Cut off by a crash or by ctx, it goes on
// with the next call.
//
// If from is gone or refused the error names the key version that the copy needs. It is
// [ErrLocked] while somebody has the copy open, as its store has while it moves it along.
func RewrapCheckpoint(ctx context.Context, dir string, from, to *kek.KEK, opts *Options) error {
	var o Options
	if opts != nil {
		o = *opts
	}
	o.ReadOnly, o.atRest = false, true
	// The anchor of the options, if there is one, is the store's: a copy is older.
	o.Keyring.AwaitRevalidate, o.Keyring.OnEvent, o.Keyring.Anchor = true, nil, nil
	if found, err := hasStore(o.fs(), dir); err != nil || !found {
		return errors.Join(err, fmt.Errorf("block: rewrap checkpoint %s: %w", dir, ErrNotStore))
	}
	s, err := openCopy(ctx, dir, from, &o)
	if errors.Is(err, keyring.ErrWrongKEK) || from.ID().Vault == "" && vault.Denied(err) {
		// Perhaps it was moved before, and cut off before its records were; to a key of
		// the same name, if from does not say which vault it is in.
		o.Keyring.OtherKEKs = append(slices.Clone(o.Keyring.OtherKEKs), from)
		if again, errTo := openCopy(ctx, dir, to, &o); errTo == nil {
			s, err = again, nil
		}
	}
	if err != nil {
		return fmt.Errorf("block: rewrap checkpoint: %w", err)
	}
	if err = s.keys.ChangeKEK(ctx, to); err == nil {
		err = s.rewrapDEKs(ctx, nil, false)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("block: rewrap checkpoint %s (instance %s, wrapped by %s): %w", dir, s.Instance(), s.keys.State().KEK, err)
	}
	return nil
}

// outOfDate reports whether a refusal is for a KEK version's dates.
func outOfDate(err error) bool {
	kind := vault.Kind(err)
	return kind == vault.ErrKeyExpired || kind == vault.ErrKeyNotYetValid
}

// openCopy opens a copy and makes it available, but leaves it a copy. One that is on a KEK
// version that is out of date comes back locked: a change of the KEK moves it, if there is a
// successor, or says why not.
func openCopy(ctx context.Context, dir string, k *kek.KEK, o *Options) (*Store, error) {
	s, err := Open(ctx, dir, k, o)
	if err != nil {
		return nil, err
	}
	if err := s.keys.Revalidate(ctx); err != nil && !outOfDate(err) {
		return nil, errors.Join(fmt.Errorf("%s (instance %s, wrapped by %s): %w", dir, s.Instance(), s.keys.State().KEK, err), s.Close())
	}
	return s, nil
}

// rewrapCopy moves a copy to a KEK, and keeps written down what it needs, also when it
// does not come to its end.
func (s *Store) rewrapCopy(ctx context.Context, c *Copy, to *kek.KEK) error {
	if err := c.isThere(s.opts.FS); err != nil {
		return err
	}
	// A crash may have come between moving the copy and writing that down.
	o := Options{FS: s.opts.FS, Fatal: s.opts.Fatal, MemTable: 1 << 20, RecordCache: -1}
	in, err := InspectKeyring(c.Path, &o)
	if err != nil {
		return err
	}
	c.take(in)
	from, ok := s.keys.KEKFor(in.KEK)
	done := c.NeedsOnly(to.ID())
	// Before it is moved, so that nobody takes the new version for unneeded in between.
	record := *c
	if ok && !done {
		record.need(to.ID())
	}
	if err := s.writeMeta(s.copyRecord(c.Instance), record.encode()); err != nil || done {
		return err
	}
	if !ok {
		return fmt.Errorf("block: copy %s is wrapped by %s, for which no KEK was given; move it with RewrapCheckpoint: %w",
			c.Instance, in.KEK, keyring.ErrWrongKEK)
	}
	o.Keyring.Clock, o.Keyring.VaultTimeout, o.VaultRate = s.opts.Keyring.Clock, s.opts.Keyring.VaultTimeout, s.opts.VaultRate
	for _, id := range in.KEKs {
		if k, ok := s.keys.KEKFor(id); ok {
			o.Keyring.OtherKEKs = append(o.Keyring.OtherKEKs, k)
		}
	}
	err = RewrapCheckpoint(ctx, c.Path, from, to, &o)
	in, again := InspectKeyring(c.Path, &o)
	if again != nil {
		return errors.Join(err, again)
	}
	c.take(in)
	return errors.Join(err, s.writeMeta(s.copyRecord(c.Instance), c.encode()))
}

// isThere returns an error unless the copy is where it was made.
func (c Copy) isThere(fsys vfs.FS) error {
	if found, err := hasStore(fsys, c.Path); err != nil || !found {
		return errors.Join(err, c.elsewhere())
	}
	id, err := readIdentity(fsys, c.Path)
	if err != nil {
		return err
	}
	if id.instance.String() != c.Instance {
		return c.elsewhere()
	}
	return nil
}

// elsewhere says of a copy that it is not where it was made.
func (c Copy) elsewhere() error {
	return fmt.Errorf("block: copy %s is not at %s any more, or was not made whole; where it is, it needs %s", c.Instance, c.Path, named(c.needs()))
}

// named lists key versions.
func named(ids []vault.KeyID) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	return strings.Join(texts, ", ")
}
