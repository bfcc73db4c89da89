package block

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Receipt says what Erase has done, and what it cannot have done.
type Receipt struct {
	Version    int             `json:"version"` // 3
	Store      keyring.StoreID `json:"store"`
	Instance   string          `json:"instance"`
	Time       time.Time       `json:"time"`
	Generation uint64          `json:"generation"` // of the keyring document that is left
	Epochs     []uint32        `json:"epochs"`     // whose keys were destroyed
	// Name is the store's in its DB, and Dropped is whether the whole store was removed (DB.Drop):
	// then Epochs are not named, because it takes the keys to know them, and nothing is kept.
	Name    string `json:"name,omitempty"`
	Dropped bool   `json:"dropped,omitempty"`
	Kept    uint64 `json:"kept"` // DEK records that are left, all under a newer epoch

	// Keys are the KEK versions that ever wrapped a keyring document of the store, oldest first,
	// with what the vault said of each. Whoever copied the store's files before can open what was
	// erased while one of these exists and serves them: purge those that nothing else needs; see
	// KeyUsage. A version that the vault has not found for a year is not listed.
	Keys []ReceiptKey `json:"keys"`
	// FileKEKs are the versions of DBOptions.FileKEK that the keyring document of the engine's files
	// names, in the order of their ids: a copy of the files that was made under one of them takes that
	// too. Earlier copies take the version of then, which is not listed. Empty: the files are not sealed.
	FileKEKs []vault.KeyID `json:"fileKEKs,omitempty"`
	// Incomplete says that versions may be missing from Keys, or copies from Copies: there were
	// more than 1,024 versions, or the store's register of both was once missing or not authentic, or
	// full when a DB.Checkpoint was made.
	Incomplete bool `json:"incomplete,omitempty"`
	// Copies are the registered checkpoints, which still hold what they held. One with a Doubt may
	// not be the store's.
	Copies []Copy `json:"copies"`
	// Pinned says that snapshots, scans or batches which began during Erase kept it from its end.
	// What they see may be in the files until the next Erase, and in memory while they are open.
	// One that was closed in time does not count: Erase then went through the files once more.
	Pinned bool `json:"pinned"`
	// Remains says, for people, where what was erased may still be as it was, sealed, because the
	// engine is no directory's and cannot promise that its files forget: an engine of a
	// database. Whoever has that and is served by one of Keys opens it. Empty: the engine's files have
	// forgotten what could open it; of its sealed blocks see Erase and DB.Drop.
	Remains []string `json:"remains,omitempty"`
	// Until is when other processes that have the store open have destroyed the keys as well: each looks
	// at every check, and serves nothing once it could not look for its Lease, if that is not longer than
	// this store's (Dropped: than keyring.MaxLease). What a snapshot or scan there has
	// pinned stays until it is closed. Zero: no other process can have had them.
	Until time.Time `json:"until,omitzero"`
	// Hash is the SHA-256 of the receipt's JSON with an empty hash.
	Hash string `json:"hash"`
}

const receiptVersion = 3

// ReceiptKey is a KEK version with which copies of the files may open.
type ReceiptKey struct {
	Key   vault.KeyID `json:"key"`
	State KeyState    `json:"state,omitempty"`
	// PublicKey is the SHA-256 of the version's public key (SubjectPublicKeyInfo, DER), 64
	// hexadecimal digits; empty: not known. Versions with the same PublicKey are the same key.
	PublicKey string `json:"publicKey,omitempty"`
}

// KeyState is what the vault said of a KEK version.
type KeyState string

const (
	// KeyExists says that the version exists, usable or not. A key that the vault calls deleted
	// exists: it can be recovered until it is purged.
	KeyExists KeyState = "exists"
	// KeyNotFound says that the vault has no such version: it was purged. Some vaults, such as Key
	// Vault, say the same of a deleted key, which can be recovered until it is purged. Who has a
	// backup of a purged key can restore it.
	KeyNotFound KeyState = "notFound"
	// KeyElsewhere says that the vault has no such version, but that another version in the receipt
	// exists and has the same public key: it is the same key and opens the same.
	KeyElsewhere KeyState = "elsewhere"
	// KeyUnknown says that the vault gave no certain answer, or that the store has no client for
	// it. It also says so of a version that is not found, if another with the same key is unknown.
	KeyUnknown KeyState = "unknown"
)

// seal sets the hash.
func (r *Receipt) seal() error {
	r.Hash = ""
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	r.Hash = hex.EncodeToString(sum[:])
	return nil
}

// Erase makes all that was deleted or overwritten so far unreadable. It rotates the epoch, destroys
// the earlier epoch keys, and compacts the DEK records and keyring documents that could open it out
// of the store's files. It does not rewrite blocks; the ciphertext of deleted ones goes with the
// engine's own compactions, and nothing opens it.
//
// It refuses with [ErrPinned] while snapshots, scans or batches are open, even those from before
// the store went Inaccessible: until they are closed the engine keeps what they saw.
//
// On an engine that cannot promise that its files forget, the keys are destroyed all the same, and
// the receipt says where what they had sealed remains ([Receipt].Remains). One that says nothing
// of that either is errors.ErrUnsupported.
//
// After a crash it can be called again; the receipt of one that had ended is kept, see
// [Store.LastReceipt]. Earlier copies of the files, made by whomever, still open what was erased,
// with the KEK versions that the receipt names; see docs/threat-model.md. Whether the file system
// or the medium forgets the bytes of deleted files is up to them.
//
// Erase makes one vault call, GetKey, for each KEK version that the receipt names, to say whether
// it exists; it goes on without an answer. It waits for walks over the store that are under way,
// such as KeyUsage, and for a Checkpoint. On a full disk ctx and Close end it, and it can be called
// again.
func (s *Store) Erase(ctx context.Context, p Progress) (Receipt, error) {
	if err := s.rewriter.AcquireTurn(ctx, "erase"); err != nil {
		return Receipt{}, err
	}
	defer s.rewriter.ReleaseTurn()
	r, err := s.erase(ctx, p)
	if err != nil {
		return Receipt{}, fmt.Errorf("block: erase: %w", err)
	}
	return r, nil
}

func (s *Store) erase(ctx context.Context, p Progress) (r Receipt, err error) {
	// Before anything is destroyed: without it a receipt cannot be made, whatever is done.
	remains, err := s.db.keeps(s.part)
	if err != nil {
		return r, err
	}
	// The engine keeps what an open snapshot or scan sees, in its files too. Purge finds those that
	// begin after this look, if they are still open at its end or were counted meanwhile.
	if n := s.keys.For(inner.Block{}).Pins(); n > 0 {
		return r, fmt.Errorf("%w: %d of them; close them and erase again", ErrPinned, n)
	}
	dropped, err := s.rewriter.RotateEpoch(ctx, p.report())
	if err != nil {
		return r, err
	}
	ctx, cancel := s.whileOpen(ctx)
	defer cancel()
	defer func() { err = s.ending(err) }()
	keys := s.askForKEKs(ctx, s.storage.Past().IDs())
	if err := s.use.Begin(); err != nil {
		return r, ErrClosed
	}
	defer s.use.End()
	touch := func() error {
		return engine.SetMeta(ctx, s.part, metaErased, []byte(s.keys.For(inner.Block{}).Now().UTC().Format(time.RFC3339)))
	}
	if purger, ok := s.part.(engine.Purger); ok {
		err = purger.Purge(ctx, touch, s.db.pinned) // of any store: the engine keeps what they see
	} else {
		err = touch()
	}
	held := errors.Is(err, engine.ErrHeld)
	if err != nil && !held {
		return r, row.Damage(err)
	}
	s.wrote() // touch has written
	// A version that has come to wrap the document since the vault was asked exists.
	past := s.storage.Past()
	for _, id := range past.IDs() {
		if !slices.ContainsFunc(keys, func(k ReceiptKey) bool { return k.Key == id }) {
			keys = append(keys, ReceiptKey{Key: id, State: KeyExists})
		}
	}
	tell(past.PublicKeys(s.keys.For(inner.Block{}).PublicKeys()), keys)
	st := s.keys.State()
	r = Receipt{
		Version: receiptVersion, Store: s.StoreID(), Instance: s.Instance(), Time: s.keys.For(inner.Block{}).Now().UTC(), Generation: st.Generation,
		Epochs: dropped, Keys: keys, FileKEKs: s.db.fileKEKs(), Pinned: held || s.keys.For(inner.Block{}).Pins() > 0, Remains: remains,
	}
	if s.db.shared {
		r.Until = r.Time.Add(s.lease())
	}
	// A copy that is being made has the files of before, and is registered next.
	if err := s.acquireTurn(ctx, s.copying); err != nil {
		return r, err
	}
	copies, whole := s.copies()
	<-s.copying
	r.Copies, r.Incomplete = copies, past.Incomplete || !whole
	if r.Kept, err = row.Count(ctx, s.part, nil, nil); err != nil {
		return r, err
	}
	if err := r.seal(); err != nil {
		return r, err
	}
	if err := s.writeReceipt(ctx, r); err != nil {
		return r, err
	}
	said := map[vault.KeyID]register.Answer{}
	for _, k := range keys {
		switch k.State {
		case KeyExists:
			said[k.Key] = register.Exists
		case KeyNotFound:
			said[k.Key] = register.NotFound
		}
	}
	// Without access the next Erase asks again.
	t, err := s.taggerFor(register.Name)
	if err == nil {
		err = s.storage.NoteKEKs(ctx, t, said, s.keys.For(inner.Block{}).Now())
		t.Destroy()
	}
	if err != nil && !cannotWrite(err) {
		return r, err
	}
	s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.Progressed, Detail: "erased what was deleted or overwritten; receipt " + r.Hash})
	return r, nil
}

const (
	// metaReceipt is the receipt of the last Erase, as JSON. It is saved before any KEK version
	// that it names is forgotten.
	metaReceipt = "receipt"
	// metaErased is when Erase last ran, RFC 3339, for people.
	metaErased = "erased"
)

func (s *Store) writeReceipt(ctx context.Context, r Receipt) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.writeMeta(ctx, metaReceipt, b)
}

// LastReceipt returns the receipt of the last Erase, if there was one: for a program that was cut
// off before it could keep what Erase returned. The receipt is not authenticated. A copy has its
// source's until its own first Erase. LastReceipt needs no access.
func (s *Store) LastReceipt(ctx context.Context) (r Receipt, found bool, err error) {
	if err := s.use.Begin(); err != nil {
		return r, false, fmt.Errorf("block: last receipt: %w", ErrClosed)
	}
	defer s.use.End()
	b, err := engine.ReadMeta(ctx, s.part, metaReceipt)
	if errors.Is(err, engine.ErrNotFound) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("block: last receipt: %w", row.Damage(err))
	}
	if r, err = readReceipt(b); err != nil {
		return Receipt{}, false, fmt.Errorf("block: last receipt: %w", err)
	}
	return r, true, nil
}

// readReceipt reads a receipt that was kept as JSON. Errors: ErrVersion, ErrCorrupt.
func readReceipt(b []byte) (r Receipt, err error) {
	var is struct{ Version int } // the version says how to read the rest
	if err = json.Unmarshal(b, &is); err == nil && is.Version != receiptVersion {
		return Receipt{}, ErrVersion
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	want := r.Hash
	if err := r.seal(); err != nil || r.Hash != want {
		return Receipt{}, fmt.Errorf("its hash is not the hash of what it says: %w", ErrCorrupt)
	}
	return r, nil
}
