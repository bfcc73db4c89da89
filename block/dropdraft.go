package block

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

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
