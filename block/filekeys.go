package block

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault"
)

// errNoFileKEK is why there is nothing to do for a DB whose files are not sealed.
var errNoFileKEK = fmt.Errorf("%w: it is not set", ErrFileKEK)

// RotateFileKEK wraps the keyring of the engine's files with the newest version of DBOptions.FileKEK:
// three vault calls and one write, whatever the data. Checkpoints keep the document that they were made
// with, and take the version that wrapped it when they are opened; see [DB.FileKEK] for the version in
// use. Errors: [ErrFileKEK] if the files are not sealed, and those of [Store.RotateKEK].
func (d *DB) RotateFileKEK(ctx context.Context) error {
	return d.onFiles("rotate file KEK", func(f *sealedFiles) error { return f.keys.RotateKEK(ctx) })
}

// ChangeFileKEK is RotateFileKEK to another key, of this vault or another. The next OpenDB takes that
// key as DBOptions.FileKEK.
func (d *DB) ChangeFileKEK(ctx context.Context, k *kek.KEK) error {
	return d.onFiles("change file KEK", func(f *sealedFiles) error {
		if err := inner.RequireKEK(k); err != nil {
			return err
		}
		return f.keys.ChangeKEK(ctx, k)
	})
}

// RevalidateFileKEK asks the vault of DBOptions.FileKEK now, as [Store.Revalidate] does that of a store.
// When it returns nil access is back, and the engine is being opened.
func (d *DB) RevalidateFileKEK(ctx context.Context) error {
	return d.onFiles("revalidate file KEK", func(f *sealedFiles) error {
		err := f.keys.Revalidate(ctx)
		f.wake()
		return err
	})
}

// RotateFileEpoch begins a new epoch of the files' keyring, gives each of the engine's files a DEK record
// under it, and destroys the epochs before, whose ids it returns. It rewrites 328 bytes of each
// file's head and no contents, calls no vault, and the stores serve meanwhile. What the medium keeps of
// files that were removed before, and of heads that were overwritten, opens no more. Checkpoints keep the
// document that they were made with, which has the epochs of then: they open as before, also where they
// share files with this directory. But a checkpoint beside it must not rotate at the same time. It waits
// for a Checkpoint that is under way. What was cut off, by a crash, by ctx or because access was lost,
// is finished by the next call. Errors: [ErrFileKEK], [ErrReadOnly], [ErrClosed].
func (d *DB) RotateFileEpoch(ctx context.Context) (dropped []uint32, err error) {
	err = d.onFiles("rotate file epoch", func(f *sealedFiles) error {
		if d.opts.ReadOnly {
			return ErrReadOnly
		}
		select {
		case d.copying <- struct{}{}:
			defer func() { <-d.copying }()
		case <-ctx.Done():
			return ctx.Err()
		}
		return f.engine.Do(ctx, func(ctx context.Context) (err error) {
			f.mu.Lock()
			sealed := f.session.sealed // the session does not end before this
			f.mu.Unlock()
			dropped, err = sealed.RotateEpoch(ctx, d.place.Dir())
			return err
		})
	})
	return dropped, err
}

// survey locks a directory and checks its files, of which none is opened for good.
func (d *DB) survey(ctx context.Context) error {
	if d.opts.FileKEK == nil {
		if err := d.place.Lock(); err != nil {
			return err
		}
		return d.place.Survey()
	}
	d.place.SealFiles()
	f := &sealedFiles{db: d, look: make(chan struct{}, 1)}
	if err := f.openKeyring(ctx); err != nil {
		return err
	}
	err := f.ready()
	if err == nil {
		var sealed *sealfs.FS
		if sealed, err = sealfs.New(d.place.Beneath(), f.keys, nil); err == nil {
			d.place.SetFiles(sealed)
			err = d.place.Survey()
			sealed.Stop(ErrClosed)
		}
	}
	return errors.Join(err, f.keys.Close())
}

// kekOf returns the KEK of the files of a copy, which is another one than DBOptions.FileKEK where either changed
// since the copy was made; nil if it is not known, or none of those that were given. What the copy's document
// says in clear chooses among these, and no more.
func (f *sealedFiles) kekOf(ctx context.Context, dir string) *kek.KEK {
	doc, _, err := place.New(f.db.opts.Pebble.FS, dir, true).FilesStorage(false).Load(ctx)
	if err != nil {
		return nil
	}
	in, err := keyring.Inspect(doc)
	if err != nil {
		return nil
	}
	k, _ := f.keys.For(inner.Block{}).KEKFor(in.KEK)
	return k
}

// onFiles calls op, unless the DB is closed or its files are not sealed.
func (d *DB) onFiles(what string, op func(f *sealedFiles) error) error {
	err := d.use.Begin()
	if err == nil {
		defer d.use.End()
		if d.files == nil {
			err = errNoFileKEK
		} else {
			err = op(d.files)
		}
	}
	if err != nil {
		return fmt.Errorf("block: %s: %w", what, err)
	}
	return nil
}

// copyTo puts the document into a checkpoint that is being made. Both go on from it: the copy has an
// instance of its own, and so an epoch of its own before it seals anything; here one begins with the
// next file, as with the next block of a store. Where the files are not sealed there is none.
func (f *sealedFiles) copyTo(dir string) error {
	if f == nil {
		return nil
	}
	f.keys.For(inner.Block{}).Share()
	return f.storage.CopyTo(dir)
}

// FilesStats is what is known of the KEK of the engine's files.
type FilesStats struct {
	// State is that of the files' keyring: status, cause, since when, last check, KEK version, epoch.
	State keyring.State `json:"state"`
	// Open is whether the engine is open. It is not while access is lost, and for a moment after that
	// is back; if the engine cannot be opened then, Err is why. Since is when it was closed.
	Open  bool      `json:"open"`
	Since time.Time `json:"since,omitzero"`
	Err   error     `json:"error"`
	// Calls are those to the vault since OpenDB.
	Calls keyring.Calls `json:"calls"`
}

// MarshalJSON implements [json.Marshaler].
func (s FilesStats) MarshalJSON() ([]byte, error) {
	type plain FilesStats
	return json.Marshal(struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain(s), errorText(s.Err)})
}

// FileKEK returns what is known of DBOptions.FileKEK; the zero FilesStats if the files are not sealed. It
// asks no vault.
func (d *DB) FileKEK() FilesStats {
	f := d.files
	if f == nil {
		return FilesStats{}
	}
	st := FilesStats{State: f.keys.State(), Open: f.engine.Paused() == nil, Calls: f.keys.VaultCalls()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !st.Open {
		st.Since, st.Err = f.since, f.failed
	}
	return st
}

// fileKEKs returns the KEK versions that the document of the files' keyring names, for receipts.
func (d *DB) fileKEKs() (ids []vault.KeyID) {
	if d.files == nil {
		return nil
	}
	keks, _ := d.files.keys.KEKs()
	for _, id := range slices.Sorted(maps.Keys(keks)) {
		ids = append(ids, keks[id])
	}
	return ids
}

// troublesOfFiles returns what is wrong with the file KEK.
func troublesOfFiles(s FilesStats, now time.Time) (out []Trouble) {
	st := s.State
	add := func(kind TroubleKind, since time.Time, err error) {
		out = append(out, Trouble{Kind: kind, Since: since, Err: err, State: st})
	}
	switch {
	case st.Status == keyring.Closed:
		return nil
	case st.Status == keyring.Inaccessible:
		add(TroubleFilesClosed, st.Since, st.Cause)
		return out
	case !s.Open && s.Err != nil:
		add(TroubleFilesClosed, s.Since, s.Err)
	case !s.Open:
		add(TroubleFilesClosed, s.Since, errors.New("the engine is being opened"))
	}
	if st.AnchorErr != nil {
		add(TroubleAnchorLags, time.Time{}, st.AnchorErr)
	}
	if at := st.KEKExpires; !at.IsZero() && at.Sub(now) <= nearExpiry {
		add(TroubleKeyNearExpiry, at.Add(-nearExpiry), nil)
	}
	return out
}
