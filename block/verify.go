package block

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/rewrite"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// maxProblems is the most problems that a Report describes; it counts all of them.
const maxProblems = 100

// Report is what Verify found.
type Report struct {
	Blocks uint64 `json:"blocks"` // that authenticated
	Bytes  uint64 `json:"bytes"`  // of their plaintext
	// DEKs counts the DEK records by the epoch that wraps them.
	DEKs map[uint32]uint64 `json:"deks"`
	// ByKEK counts the DEK records that the vault wraps, by KEK id; see keyring.Info.
	ByKEK map[uint32]uint64 `json:"byKEK"`
	// Problems describes the first 100 things that are wrong, and Damaged counts all of them.
	Problems []Problem `json:"problems"`
	Damaged  uint64    `json:"damaged"`
}

// Problem is one thing that Verify found wrong.
type Problem struct {
	ID  []byte `json:"id"`    // of the block
	Err error  `json:"error"` // matches ErrCorrupt or ErrVersion
}

// Verify opens every DEK record and authenticates every block, as they are when it begins, while
// the store serves. If anything is wrong, it returns an error that matches [ErrCorrupt] and all of
// it in the report; any other error says that it could not finish. Records that the vault wraps
// cost a call each.
func (s *Store) Verify(ctx context.Context, p Progress) (rep Report, err error) {
	rep = Report{DEKs: map[uint32]uint64{}, ByKEK: map[uint32]uint64{}}
	h, err := s.keys.Acquire()
	if err != nil {
		return rep, fmt.Errorf("block: verify: %w", err)
	}
	session := h.For(inner.Block{}).Session()
	defer h.Pin()()
	begin := context.WithoutCancel(ctx) // a ctx that has ended ends Verify below, where it is measured
	view, err := s.part.View(begin)
	if err != nil {
		h.Release()
		return rep, fmt.Errorf("block: verify: %w", row.Damage(err))
	}
	s.use.Track(view)
	defer s.use.Finish(view)
	c, err := s.table.Cursor(begin, view, nil, nil, false)
	h.Release()
	if err != nil {
		return rep, fmt.Errorf("block: verify: %w", err)
	}
	defer c.Finish()

	m := s.board.Meter(workVerify, p.report(), 0, func(ctx context.Context) (uint64, error) { return s.table.Count(ctx, nil, nil) })
	defer func() { m.End(err) }()
	for {
		more, err := s.verifyNext(ctx, session, c, m, &rep)
		if err != nil {
			return rep, fmt.Errorf("block: verify: %w", err)
		}
		if !more {
			break
		}
		m.Between()
	}
	m.Done()
	if rep.Damaged > 0 {
		return rep, fmt.Errorf("block: verify: %w: %d of %d blocks, the first is %s: %w",
			ErrCorrupt, rep.Damaged, rep.Damaged+rep.Blocks, row.Shown(rep.Problems[0].ID), rep.Problems[0].Err)
	}
	return rep, nil
}

// verifyNext verifies the next block, in a hold of its own.
func (s *Store) verifyNext(ctx context.Context, session uint64, c *row.Cursor, m *progress.Meter, rep *Report) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	h, err := s.keys.For(inner.Block{}).AcquireSession(session)
	if err != nil {
		return false, err
	}
	defer func() { h.Release() }()
	pair, ok, err := c.Pair()
	if err != nil || !ok {
		return false, err
	}
	var data []byte
	if err = c.Whole(); err == nil {
		data, err = c.Open(ctx, &h, pair)
	}
	switch {
	case err == nil:
		rep.Blocks++
		rep.Bytes += uint64(len(data))
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrVersion):
		s.counts.Fail(tally.Verify, err)
		if rep.Damaged++; len(rep.Problems) < maxProblems {
			rep.Problems = append(rep.Problems, Problem{ID: bytes.Clone(pair.ID), Err: err})
		}
	default:
		return false, err
	}
	if in, err := keyring.ParseRecord(pair.Record); err == nil {
		rep.DEKs[in.Epoch]++
		if in.Wrapping == keyring.ByKEK {
			rep.ByKEK[in.KEK]++
		}
	}
	m.Add(1, uint64(len(data)))
	return true, nil
}

// MarshalJSON implements [json.Marshaler].
func (p Problem) MarshalJSON() ([]byte, error) {
	type plain Problem
	return json.Marshal(struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain(p), errorText(p.Err)})
}

// Inspection is what a store's files say without any of its keys. Nothing of it is authenticated; that
// would take opening the keyring document and the DEK records.
type Inspection struct {
	Instance string `json:"instance"` // tells the store from its copies, 32 hexadecimal digits
	CopyOf   string `json:"copyOf"`   // the instance that it is a copy of, until it is revalidated; or ""

	// Keyring is what the document says: the store's id, its generation, the KEK version that wraps
	// it, all KEK versions that wrap something, its size.
	Keyring keyring.Info `json:"keyring"`

	// Sequence is the sequence number that was saved last; see [Store.Sequence].
	Sequence uint64 `json:"sequence"`

	Records     uint64            `json:"records"`     // DEK records, one for each block
	RecordBytes uint64            `json:"recordBytes"` // of them together
	Epochs      map[uint32]uint64 `json:"epochs"`      // DEK records by the epoch that wraps them

	// Keys says what each KEK version is needed for, as [Store.KeyUsage] does, except for the
	// number of epochs, which is not in clear.
	Keys []KeyUse `json:"keys"`
	// PastKEKs are the KEK versions that ever wrapped a keyring document, oldest first, without
	// those that have been gone for so long that no vault can recover them; see [Receipt].
	PastKEKs []vault.KeyID `json:"pastKEKs"`
	// Incomplete says that copies or KEK versions may be missing from Keys and PastKEKs: the
	// store's register of them is missing or damaged, does not belong to this keyring document, or
	// says so itself. False proves nothing: only an open store knows whether the register is its
	// own ([Store.KeyUsage]).
	Incomplete bool `json:"incomplete"`
	// Unfinished names the rewriting operations that were cut off: "rekey" goes on with its next
	// call, the next RotateEpoch finishes "rotate-epoch", and "renew" (Options.Keyring.RekeyAfter)
	// begins anew by itself.
	Unfinished []string `json:"unfinished"`

	Files uint64 `json:"files"` // in the directory
	Bytes uint64 `json:"bytes"` // of them together
}

// Inspect reads what the store in dir says in clear, without a key or a vault and in every state.
// It reads every DEK record and no block. It changes nothing, but makes the file LOCK if that is
// missing. Of opts only Name, FS, Fatal and FileKEK matter, and with FileKEK what Keyring has for that: where
// the files are sealed nothing is in clear until that has opened them, and an error is [ErrFileKEK].
//
// The store may be open elsewhere if that is read only (see [Options].ReadOnly). A store that is
// open for writing says more itself ([Store.KeyUsage], [Store.State]). Errors: [ErrNotStore],
// [ErrLocked], [ErrVersion], [ErrForeign], [ErrCorrupt].
func Inspect(ctx context.Context, dir string, opts *Options) (in Inspection, err error) {
	s, info, err := openClear(ctx, dir, opts)
	if err != nil {
		return in, err
	}
	defer func() {
		if e := s.release(); err == nil && e != nil {
			in, err = Inspection{}, fmt.Errorf("block: inspect %s: %w", dir, row.Damage(e))
		}
	}()
	in = Inspection{Instance: s.Instance(), Keyring: info, PastKEKs: s.storage.Past().IDs(), Epochs: map[uint32]uint64{}}
	reg, _ := s.storage.View()
	in.Incomplete = reg.Lost || reg.Past.Incomplete
	if err := s.findSequence(ctx); err != nil {
		return Inspection{}, fmt.Errorf("block: inspect %s: %w", dir, err)
	}
	in.Sequence, _, _, _ = decodeSequence(s.sequence.found)
	if of, is := s.storage.IsCopy(); is {
		in.CopyOf = of.String()
	}
	if err := errors.Join(in.count(ctx, s), in.measure(s)); err != nil {
		return Inspection{}, fmt.Errorf("block: inspect %s: %w", dir, err)
	}
	for _, name := range rewrite.Markers() {
		found, err := rewrite.HasMarker(ctx, s.part, name)
		if err != nil {
			return Inspection{}, fmt.Errorf("block: inspect %s: %w", dir, err)
		}
		if found {
			in.Unfinished = append(in.Unfinished, name)
		}
	}
	return in, nil
}

// InspectKeyring reads what the keyring document of the store in dir says in clear, such as which
// KEK opens the store. It is [Inspect] without the walk over the DEK records. With FileKEK it waits for
// the vault, at the most as long as Keyring.VaultTimeout for each of two calls.
func InspectKeyring(dir string, opts *Options) (keyring.Info, error) {
	s, info, err := openClear(context.Background(), dir, opts)
	if err != nil {
		return keyring.Info{}, err
	}
	if err := s.release(); err != nil {
		return keyring.Info{}, fmt.Errorf("block: inspect %s: %w", dir, row.Damage(err))
	}
	return info, nil
}

// openClear opens an existing store's engine for reading, without a keyring. The caller releases
// the store and calls nothing that needs a keyring.
func openClear(ctx context.Context, dir string, opts *Options) (*Store, keyring.Info, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, keyring.Info{}, err
	}
	o.ReadOnly, o.Pebble.MemTable, o.Pebble.BlockCache = true, 1<<20, 1<<20
	o.RecordCache, o.RowCache = -1, -1
	do, err := o.alone().withDefaults()
	if err != nil {
		return nil, keyring.Info{}, err
	}
	d, found, err := newDB(dir, do)
	if err == nil && !found {
		err = fmt.Errorf("block: inspect %s: there is no store: %w", dir, ErrNotStore)
	}
	if err != nil {
		return nil, keyring.Info{}, err
	}
	s, info, err := d.openClear(ctx, o)
	if err != nil {
		return nil, keyring.Info{}, errors.Join(err, d.release())
	}
	return s, info, nil
}

// openClear opens the engine, and of the only store, or that of the name in o, what is in clear.
func (d *DB) openClear(ctx context.Context, o Options) (s *Store, info keyring.Info, err error) {
	dir := d.place.Dir()
	cutOff := fmt.Errorf("block: inspect %s: the creation of the store was cut off: %w", dir, keyring.ErrNoDocument)
	if err := d.openToInspect(ctx); d.place.Phase() == pebble.Creating && errors.Is(err, pebble.ErrNone) {
		return nil, info, cutOff
	} else if err != nil {
		return nil, info, err
	}
	name, some, err := d.only(ctx, o.Name)
	if err != nil {
		return nil, info, err
	}
	if !some {
		return nil, info, cutOff
	}
	e, err := d.find(ctx, name)
	if err != nil {
		return nil, info, err
	}
	s = &Store{readOnly: o.ReadOnly, writes: new(appliedCount), cold: &cold{opts: o, db: d, alone: true, gone: make(chan struct{}), name: name, number: e.Number, storage: &register.Storage{StoreName: name}}}
	s.counts.Begin(nil)
	s.storage.Own = place.StoreInstance(d.place.Instance(), e.Number)
	s.part = d.engine.Partition(e.Number)
	doc, err := register.Document(ctx, s.part)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, info, fmt.Errorf("block: inspect %s: the keyring document is missing: %w: %w", dir, ErrCorrupt, keyring.ErrNoDocument)
	}
	if err != nil {
		return nil, info, fmt.Errorf("block: inspect %s: %w", dir, row.Damage(err))
	}
	if err := register.CheckStoreID(ctx, s.part, doc); err != nil {
		return nil, info, err
	}
	if err := s.storage.Attach(ctx, s.part); err != nil {
		return nil, info, fmt.Errorf("block: inspect %s: %w", dir, row.Damage(err))
	}
	info, err = keyring.Inspect(doc)
	return s, info, err
}

// openToInspect opens the engine of a directory that there is, for reading. What comes before that says
// itself what it was about.
func (d *DB) openToInspect(ctx context.Context) error {
	if d.opts.FileKEK != nil {
		err := d.openSealed(ctx, true)
		if d.files == nil {
			return err
		}
		return d.inspecting(cmp.Or(err, d.files.why()))
	}
	if err := d.survey(ctx); err != nil {
		return err
	}
	return d.inspecting(d.openEngine())
}

func (d *DB) inspecting(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("block: inspect %s: %w", d.place.Dir(), row.Damage(err))
}

// count walks the DEK records and the registered copies.
func (in *Inspection) count(ctx context.Context, s *Store) error {
	uses := map[vault.KeyID]*KeyUse{in.Keyring.KEK: {Key: in.Keyring.KEK, Document: true}}
	use := func(id vault.KeyID) *KeyUse {
		if uses[id] == nil {
			uses[id] = &KeyUse{Key: id}
		}
		return uses[id]
	}
	err := s.eachRecord(ctx, func(id, record []byte, r keyring.RecordInfo) (bool, error) {
		in.Records++
		in.RecordBytes += uint64(len(record))
		in.Epochs[r.Epoch]++
		if r.Wrapping != keyring.ByKEK {
			return true, nil
		}
		key, ok := in.Keyring.KEKs[r.KEK]
		if !ok {
			return false, fmt.Errorf("block %s names KEK %d, which the keyring does not list: %w", row.Shown(id), r.KEK, ErrCorrupt)
		}
		use(key).Records++
		return true, nil
	})
	if err != nil {
		return err
	}
	copies, _ := s.copies()
	for _, c := range copies {
		for _, id := range c.KEKs {
			use(id).Copies = append(use(id).Copies, c)
		}
	}
	in.Keys = sortUses(s.storage.Past().PublicKeys(in.Keyring.PublicKeys), uses)
	return nil
}

// measure adds up the directory's files.
func (in *Inspection) measure(s *Store) error {
	names, err := s.opts.Pebble.FS.List(s.db.place.Dir())
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := s.opts.Pebble.FS.Stat(s.opts.Pebble.FS.PathJoin(s.db.place.Dir(), name))
		if err != nil {
			return err
		}
		if !f.IsDir() {
			in.Files++
			in.Bytes += uint64(f.Size())
		}
	}
	return nil
}
