package block

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// A store is dropped in steps, each durable before the next one:
//
//	1  its entry in the catalogue is marked, and with it a draft of the receipt is written: from here
//	   on nobody opens the store, and the next OpenDB goes on where this one was cut off
//	2  its document, its records and its blocks are deleted, in one write
//	3  the engine writes them out of its files, but for sealed blocks in files that have others' too
//	4  its entry is removed, and with it the receipt is written
//
// Before the first step nothing has happened. The number of its partition is not given again.

// receiptPrefix begins the names of the meta records, in the catalogue's partition, that hold the
// receipts of stores that were dropped, by the number of their partition.
const receiptPrefix = "receipt/"

func receiptName(number uint32) string { return fmt.Sprintf("%s%08x", receiptPrefix, number) }

// KeptReceipts is how many receipts of Drop a DB keeps, the latest ones.
const KeptReceipts = 1024

// Drop removes a store and everything that it has from the engine, and returns a receipt, as
// [Store.Erase] does. What could open the store, its keyring document and its DEK records, and the ids
// of its blocks are gone from the engine's files then. Sealed blocks of PebbleOptions.ValueSeparation
// bytes and more, which nothing there opens any more, lie beside those of other stores until the engine
// rewrites those files. A store that is open is closed first. It takes no key. It takes
// one vault call, GetKey, for each KEK version that the receipt names if the store is open, and says
// nothing of them if it is not.
//
// The engine's list of its tables (MANIFEST) may go on naming ids of the store's blocks, such as began
// or ended a table, until the directory has been opened twice more: Pebble keeps the list of before.
//
// After a crash the next OpenDB finishes it, and [DB.Dropped] has the receipt. On a full disk ctx and
// Close end it, and it can be called again. Errors: [ErrNoStore], [ErrForeign],
// [ErrReadOnly], [ErrClosed].
func (d *DB) Drop(ctx context.Context, name string) (Receipt, error) {
	r, err := d.drop(ctx, name)
	if err != nil {
		return Receipt{}, fmt.Errorf("block: drop store %s: %w", row.Shown([]byte(name)), err)
	}
	return r, nil
}

func (d *DB) drop(ctx context.Context, name string) (r Receipt, err error) {
	if err := catalogue.CheckName(name); err != nil {
		return r, err
	}
	if err := d.use.Begin(); err != nil {
		return r, ErrClosed
	}
	defer d.use.End()
	ctx, cancel := d.tasks.whileOpen(ctx)
	defer cancel()
	defer func() { err = d.tasks.ending(err) }()
	if d.opts.ReadOnly {
		return r, ErrReadOnly
	}
	if _, err := d.keeps(d.engine.Partition(catalogue.Partition)); err != nil {
		return r, err
	}
	since := d.opts.Clock.Now()
	keys := d.askForKEKsOf(ctx, name)
	again, err := d.stores.Evict(ctx, name)
	if err != nil {
		return r, inDB(err)
	}
	defer again()
	e, err := d.catalogue.Find(ctx, name)
	if err != nil {
		return r, row.Damage(err)
	}
	if err := d.named(ctx, e); err != nil && !errors.Is(err, ErrCorrupt) {
		return r, err // what is damaged can be dropped, and another store cannot
	}
	if e.State != catalogue.Dropping {
		if e.State == catalogue.Creating {
			if there, err := d.there(ctx, e); err != nil {
				return r, row.Damage(err)
			} else if !there && d.shared { // somebody may be making it
				return r, ErrNoStore
			} else if !there {
				return r, errors.Join(ErrNoStore, d.abandon(ctx, e))
			}
		}
		draft, err := d.draft(ctx, e, keys)
		if err != nil {
			return r, err
		}
		d.dropBegins(name, since)
		if e, err = d.catalogue.Advance(ctx, e, catalogue.Dropping, engine.Swap{Name: receiptName(e.Number), Revision: engine.AnyRevision, Value: draft}); err != nil {
			d.dropNotBegun(name)
			return r, err
		}
	} else {
		d.dropBegins(name, since)
	}
	defer func() { d.dropEnded(name, err) }()
	r, err = d.finishDrop(ctx, e)
	if errors.Is(err, catalogue.ErrMoved) {
		return d.droppedByOther(ctx, e, err)
	}
	return r, err
}

// askForKEKsOf asks for the KEK versions of a store that is open.
func (d *DB) askForKEKsOf(ctx context.Context, name string) (keys []ReceiptKey) {
	s := d.isOpen(name)
	if s == nil || s.use.Begin() != nil {
		return nil
	}
	defer s.use.End()
	ctx, cancel := s.whileOpen(ctx) // whoever closes the store does not wait for a vault
	defer cancel()
	keys = s.askForKEKs(ctx, s.storage.Past().IDs())
	tell(s.storage.Past().PublicKeys(s.keys.For(inner.Block{}).PublicKeys()), keys)
	return keys
}

// finishDrop removes what is left of a store whose entry is marked.
func (d *DB) finishDrop(ctx context.Context, e catalogue.Entry) (r Receipt, err error) {
	meta := d.catalogue.Meta()
	if r, err = d.readDraft(ctx, e); err != nil {
		return r, err
	}
	p := d.engine.Partition(e.Number)
	defer p.Release()
	if err := p.Clear(ctx); err != nil {
		return r, err
	}
	if purger, ok := p.(engine.Purger); ok {
		err = purger.Purge(ctx, func() error {
			return engine.SetMeta(ctx, meta, metaErased, []byte(d.opts.Clock.Now().UTC().Format(time.RFC3339)))
		}, d.pinned)
	} else {
		r.Remains, err = d.keeps(p)
	}
	if err != nil && !errors.Is(err, engine.ErrHeld) {
		return r, row.Damage(err)
	}
	r.Pinned = err != nil
	r.FileKEKs = d.fileKEKs()
	r.Time = d.opts.Clock.Now().UTC()
	if d.shared {
		r.Until = r.Time.Add(keyring.MaxLease)
	}
	if err := r.seal(); err != nil {
		return r, err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	swaps, err := d.oldReceipts(ctx)
	if err != nil {
		return r, row.Damage(err)
	}
	swaps = append(swaps, engine.Swap{Name: receiptName(e.Number), Revision: engine.AnyRevision, Value: b})
	return r, d.catalogue.Remove(context.WithoutCancel(ctx), e, swaps...)
}

// oldReceipts returns what removes the receipts that are too many once there is another one: the
// oldest, and before them those that cannot be read.
func (d *DB) oldReceipts(ctx context.Context) (remove []engine.Swap, err error) {
	type kept struct {
		name string
		time time.Time
	}
	var all []kept
	err = d.catalogue.Meta().ListMeta(ctx, receiptPrefix, func(name string, value []byte) error {
		if when, draft := receiptTime(value); !draft {
			all = append(all, kept{name, when})
		}
		return nil
	})
	slices.SortFunc(all, func(a, b kept) int { return a.time.Compare(b.time) })
	for len(all) >= KeptReceipts {
		remove = append(remove, engine.Swap{Name: all[0].name, Revision: engine.AnyRevision})
		all = all[1:]
	}
	return remove, err
}

// receiptTime returns when a receipt was made, zero if that cannot be read, and whether it is the
// draft of a drop that is not finished.
func receiptTime(b []byte) (when time.Time, draft bool) {
	var r struct {
		Hash string
		Time time.Time
	}
	err := json.Unmarshal(b, &r)
	return r.Time, err == nil && r.Hash == "" && r.Time.IsZero()
}

// Dropped walks the receipts of the stores that were dropped, in the order in which the stores were
// made: for a program that was cut off before it could keep what [DB.Drop] returned. The latest
// [KeptReceipts] are kept. One of a drop that is not finished is not among them. They are not
// authenticated. Of one that cannot be read it gives an error and goes on. A checkpoint has those of
// its source.
func (d *DB) Dropped(ctx context.Context) iter.Seq2[Receipt, error] {
	return func(yield func(Receipt, error) bool) {
		type kept struct {
			name  string
			value []byte
		}
		var all []kept // at once, so that nothing of the engine is in use while the caller has a turn
		if err := d.whileUsed(func() error {
			return d.catalogue.Meta().ListMeta(ctx, receiptPrefix, func(name string, value []byte) error {
				all = append(all, kept{name, slices.Clone(value)})
				return ctx.Err()
			})
		}); err != nil {
			yield(Receipt{}, fmt.Errorf("block: dropped: %w", row.Damage(err)))
			return
		}
		for _, k := range all {
			if _, draft := receiptTime(k.value); draft {
				continue
			}
			r, err := readReceipt(k.value)
			if err != nil {
				err = fmt.Errorf("block: dropped: meta record %s: %w", k.name, err)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

// pinned reports whether anything of any store keeps the engine from forgetting.
func (d *DB) pinned() bool {
	return slices.ContainsFunc(d.openStores(), func(s *Store) bool { return s.keys.For(inner.Block{}).Pins() > 0 })
}

func (d *DB) instanceOf(number uint32) inner.InstanceID {
	return place.StoreInstance(d.place.Instance(), number)
}

// The draft of a drop's receipt is written with the mark that begins the drop, and read back by whoever
// finishes it, perhaps in another process. It is authenticated by nothing, as the receipt is not. So it is
// taken for one only if it is what a drop of that very store writes.

// maxDraft is the size of the longest draft in bytes. That of a store with 4,096 copies at paths of 200 bytes
// has three million.
const maxDraft = 64 << 20

// maxDraftKeys is how many KEK versions a register names (register.PastKEKs), and those of a keyring
// document beside them.
const maxDraftKeys = 2 * 1024

// emptyDraft is a receipt that knows nothing of the store.
func emptyDraft(name string, instance inner.InstanceID) Receipt {
	return Receipt{Version: receiptVersion, Name: name, Dropped: true, Instance: instance.String(), Incomplete: true, Copies: []Copy{}, Epochs: []uint32{}}
}

// draft returns the receipt of a store that is there, with what is known before it is removed. What
// cannot be read, of a store that is damaged, is missing in it.
func (d *DB) draft(ctx context.Context, e catalogue.Entry, keys []ReceiptKey) ([]byte, error) {
	p := d.engine.Partition(e.Number)
	defer p.Release()
	own := d.instanceOf(e.Number)
	r := emptyDraft(e.Name, own)
	r.Keys = keys
	storage := &register.Storage{Own: own, StoreName: e.Name}
	doc, err := register.Document(ctx, p)
	if err == nil {
		err = storage.Attach(ctx, p)
	}
	var in keyring.Info
	if err == nil {
		in, err = keyring.Inspect(doc)
	}
	if err == nil {
		reg, _ := storage.View()
		r.Store, r.Generation, r.Incomplete = in.StoreID, in.Generation, reg.Lost || reg.Past.Incomplete
		for _, c := range reg.Copies {
			r.Copies = append(r.Copies, asWritten(c.Copy))
		}
		if keys == nil {
			for _, id := range reg.Past.IDs() {
				r.Keys = append(r.Keys, ReceiptKey{Key: id, State: KeyUnknown})
			}
		}
	} else if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxDraft {
		r.Copies, r.Incomplete = []Copy{}, true
		b, err = json.Marshal(r)
	}
	return b, err
}

// asWritten is a copy as JSON has it: with a path that is text, and a time that there is, which those of a
// damaged register need not be.
func asWritten(c register.Copy) Copy {
	c.Path = strings.ToValidUTF8(c.Path, "\uFFFD")
	if y := c.Made.Year(); y < 0 || y > 9999 {
		c.Made = time.Time{}
	}
	return Copy(c)
}

// readDraft returns the draft that was written when the drop of a store began. If that is missing or
// damaged it is made, and written, again, with what of the store is still there.
func (d *DB) readDraft(ctx context.Context, e catalogue.Entry) (Receipt, error) {
	name, own := receiptName(e.Number), d.instanceOf(e.Number)
	b, err := engine.ReadMeta(ctx, d.catalogue.Meta(), name)
	if err == nil {
		if r, err := decodeDraft(b, e.Name, own); err == nil {
			return r, nil
		}
	} else if !errors.Is(err, engine.ErrNotFound) && !errors.Is(err, engine.ErrCorrupt) {
		return Receipt{}, err // it is there, and has what nobody knows once the store is gone
	}
	r := emptyDraft(e.Name, own)
	if b, err = d.draft(ctx, e, nil); err != nil {
		return r, err
	}
	if again, err := decodeDraft(b, e.Name, own); err == nil {
		r = again
	}
	r.Incomplete = true
	if b, err = json.Marshal(r); err != nil {
		return r, err
	}
	return r, engine.SetMeta(ctx, d.catalogue.Meta(), name, b)
}

// decodeDraft reads the draft of the receipt of a store that is dropped. Errors: ErrCorrupt, ErrVersion.
func decodeDraft(b []byte, name string, own inner.InstanceID) (Receipt, error) {
	if len(b) > maxDraft {
		return Receipt{}, fmt.Errorf("the draft has %d bytes, the most is %d: %w", len(b), maxDraft, ErrCorrupt)
	}
	var is struct{ Version int } // the version says how to read the rest
	if err := json.Unmarshal(b, &is); err == nil && is.Version != receiptVersion {
		return Receipt{}, ErrVersion
	}
	var r Receipt
	err := json.Unmarshal(b, &r)
	if err == nil {
		err = checkDraft(r, name, own)
	}
	if err == nil {
		// Nothing else says the same: no field twice, unknown, or spelled otherwise.
		if again, _ := json.Marshal(r); !bytes.Equal(again, b) {
			err = errors.New("it is not written as a drop writes it")
		}
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("the draft of a receipt: %w: %w", ErrCorrupt, err)
	}
	return r, nil
}

func checkDraft(r Receipt, name string, own inner.InstanceID) error {
	switch {
	case !r.Dropped || r.Name != name || r.Instance != own.String():
		return fmt.Errorf("it is of store %q, instance %s, and that of %q, instance %v, was expected", r.Name, r.Instance, name, own)
	case r.Hash != "" || !r.Time.IsZero() || !r.Until.IsZero() || r.Pinned || r.Kept != 0 || len(r.Remains) > 0 || len(r.FileKEKs) > 0 || len(r.Epochs) > 0:
		return errors.New("it says what is known at the end of a drop only")
	case len(r.Keys) > maxDraftKeys || len(r.Copies) > register.MaxCopies:
		return fmt.Errorf("it names %d KEK versions and %d copies, the most are %d and %d", len(r.Keys), len(r.Copies), maxDraftKeys, register.MaxCopies)
	}
	for _, k := range r.Keys {
		if err := checkVersion(k.Key); err != nil {
			return err
		}
		if k.PublicKey != "" && !isHex(k.PublicKey, 32) {
			return fmt.Errorf("the public key of %v is not the hash of one", k.Key)
		}
		switch k.State {
		case KeyExists, KeyNotFound, KeyElsewhere, KeyUnknown:
		default:
			return fmt.Errorf("the state of %v is %q", k.Key, k.State)
		}
	}
	last := ""
	for _, c := range r.Copies {
		if !isHex(c.Instance, len(own)) || c.Instance <= last {
			return fmt.Errorf("its copies are not in the order of their instances at %q", c.Instance)
		}
		last = c.Instance
		for _, id := range append(c.KEKs, c.KEK) {
			if err := checkVersion(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkVersion(id vault.KeyID) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if id.Version == "" {
		return fmt.Errorf("the key identifier %v has no version", id)
	}
	return nil
}

// isHex reports whether a text is so many bytes in lower-case hexadecimal digits.
func isHex(text string, bytes int) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == bytes && hex.EncodeToString(b) == text
}
