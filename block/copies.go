package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

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
}

// The record of a copy, in the meta space under "copy/", the instance of the store
// that made it, "/", and the copy's own instance: a copy holds the records of its
// siblings, and has nothing to do with them. On disk, and must not change.
//
//	offset  size  field
//	     0     1  version, 1
//	     1     8  made, seconds since 1970-01-01 UTC
//	     9     8  generation of the copy's keyring document
//	    17     4  length of the following
//	    21     .  key identifier of the KEK that wraps it
//	     .     .  path, to the end
const (
	copyVersion = 1
	metaCopy    = "copy/"
)

func (c Copy) encode() []byte {
	b := []byte{copyVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(c.Made.Unix()))
	b = binary.BigEndian.AppendUint64(b, c.Generation)
	b = appendLong(b, []byte(c.KEK.String()))
	return append(b, c.Path...)
}

func decodeCopy(instance string, b []byte) (c Copy, err error) {
	if len(b) > 0 && b[0] != copyVersion {
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
	return Copy{
		Instance: instance, Path: string(b[n:]), KEK: id,
		Made:       time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0).UTC(),
		Generation: binary.BigEndian.Uint64(b[9:]),
	}, nil
}

// Copies returns the checkpoints that the store remembers, with the KEK that each
// was last known to need. It needs no access.
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
// none of the store's concern any more.
func (s *Store) ForgetCopy(ctx context.Context, instance string) error {
	s.usage.RLock()
	defer s.usage.RUnlock()
	if s.closed {
		return fmt.Errorf("block: forget copy: %w", ErrClosed)
	}
	if s.opts.ReadOnly {
		return fmt.Errorf("block: forget copy: %w", ErrReadOnly)
	}
	return s.writeMeta(s.copyRecord(instance), nil)
}

// writeMeta sets a meta record durably, or deletes it if value is nil.
func (s *Store) writeMeta(name string, value []byte) error {
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

// register remembers a copy that was just made. Reading the document back from the
// copy shows which KEK it needs, whatever was rotated meanwhile, and that the copy
// opens.
func (s *Store) register(dir string, instance instanceID) error {
	in, err := s.copyDocument(dir)
	if err != nil || s.opts.ReadOnly {
		return err
	}
	c := Copy{Path: dir, Made: s.keys.Now(), KEK: in.KEK, Generation: in.Generation}
	return s.writeMeta(s.copyRecord(instance.String()), c.encode())
}

// copyDocument reads the clear part of a copy's keyring document.
func (s *Store) copyDocument(dir string) (in keyring.Info, err error) {
	lock, err := engine.LockDir(dir, s.opts.FS)
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
// If from is gone or refused the error names the key version that the copy needs.
func RewrapCheckpoint(ctx context.Context, dir string, from, to *kek.KEK, opts *Options) error {
	var o Options
	if opts != nil {
		o = *opts
	}
	o.ReadOnly, o.ManualRewrap = false, true
	o.Keyring.AwaitRevalidate, o.Keyring.OnEvent = true, nil
	id, found, err := readIdentity(o.fs(), dir)
	if err != nil || !found {
		return errors.Join(err, fmt.Errorf("block: rewrap checkpoint %s: %w", dir, ErrNotStore))
	}
	s, err := Open(ctx, dir, from, &o)
	if errors.Is(err, keyring.ErrWrongKEK) {
		// Perhaps it was moved before, and cut off before its records were.
		o.Keyring.OtherKEKs = append(slices.Clone(o.Keyring.OtherKEKs), from)
		if again, errTo := Open(ctx, dir, to, &o); errTo == nil {
			s, err = again, nil
		}
	}
	if err != nil {
		return fmt.Errorf("block: rewrap checkpoint: %w", err)
	}
	if err = s.keys.Revalidate(ctx); err == nil {
		if err = s.keys.ChangeKEK(ctx, to); err == nil {
			err = s.rewrapDEKs(ctx, nil, false)
		}
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("block: rewrap checkpoint %s (instance %v, wrapped by %s): %w", dir, id.instance, s.keys.State().KEK, err)
	}
	return nil
}

// rewrapCopies moves the copies that can be reached to the KEK that wraps the store
// now, and says of the others what they need.
func (s *Store) rewrapCopies(ctx context.Context) error {
	copies, err := s.copies()
	if err != nil {
		return err
	}
	keks, active := s.keys.KEKs()
	now := keks[active]
	to, ok := s.keys.KEKFor(now)
	if !ok {
		return nil // changed meanwhile: whoever did that looks at the copies next
	}
	for _, c := range copies {
		if c.KEK == now {
			continue
		}
		err := s.rewrapCopy(ctx, c, to)
		if err != nil {
			s.keys.Emit(keyring.Event{Kind: keyring.CopyNotRewrapped, Key: c.KEK, Detail: c.Path, Err: err})
			continue
		}
		c.KEK = now
		if err := s.writeMeta(s.copyRecord(c.Instance), c.encode()); err != nil {
			return err
		}
		s.keys.Emit(keyring.Event{Kind: keyring.CopyRewrapped, Key: now, Detail: c.Path})
	}
	return nil
}

func (s *Store) rewrapCopy(ctx context.Context, c Copy, to *kek.KEK) error {
	id, found, err := readIdentity(s.opts.FS, c.Path)
	if err != nil {
		return err
	}
	if !found || id.instance.String() != c.Instance {
		return fmt.Errorf("block: copy %s is not at %s any more; where it is, it needs %s", c.Instance, c.Path, c.KEK)
	}
	// A crash may have come between moving the copy and writing that down.
	in, err := s.copyDocument(c.Path)
	if err != nil {
		return err
	}
	if in.KEK == to.ID() && len(in.KEKs) == 1 {
		return nil
	}
	from, ok := s.keys.KEKFor(in.KEK)
	if !ok {
		return fmt.Errorf("block: copy %s is wrapped by %s, for which no KEK was given; move it with RewrapCheckpoint: %w",
			c.Instance, in.KEK, keyring.ErrWrongKEK)
	}
	o := Options{FS: s.opts.FS, Fatal: s.opts.Fatal, MemTable: 1 << 20, RecordCache: -1}
	o.Keyring.Clock, o.Keyring.VaultTimeout, o.VaultRate = s.opts.Keyring.Clock, s.opts.Keyring.VaultTimeout, s.opts.VaultRate
	for _, id := range in.KEKs {
		if k, ok := s.keys.KEKFor(id); ok {
			o.Keyring.OtherKEKs = append(o.Keyring.OtherKEKs, k)
		}
	}
	return RewrapCheckpoint(ctx, c.Path, from, to, &o)
}
