package block

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/internal/register"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// Checkpoint makes a copy of the store in dir, which must not exist, with every write that was
// acknowledged before the call, while the store serves. It links files that do not change any more
// where the file system can, so that a copy beside the store costs little. It copies them to
// another file system, and writes wait for as long: make the copy beside the store, and copy it
// from there (see [HoldCheckpoint]). Checkpoint needs no access: an Inaccessible store can be
// copied.
//
// The copy is a store with the same keys and an instance of its own. It opens Inaccessible and
// waits for [Store.Revalidate] with the vault client that its Open was given; from then on
// [Store.ChangeKEK] can give it another KEK, so that the source's can be destroyed.
//
// What either of the two writes from then on is wrapped by an epoch that the other does not have:
// one begins here with the next write, and there with Revalidate. Each epoch is 52 bytes of the
// keyring document until RotateEpoch. When there are nearly keyring.MaxEpochs, none begins any
// more: an event says so, and the copy can open what is written here until one of the two rotates.
//
// The store remembers the copy and the absolute path where it was made ([Store.Copies]), at most
// 4,096 copies (keyring.ErrLimit). Without access it cannot sign that: if it is closed before
// access comes back, the copy is in doubt and is not moved to another KEK.
//
// Checkpoint waits until memory is written out. While that fails, as on a full disk, ctx and Close
// end it. It refuses a store that was opened read only ([ErrReadOnly]), whose log the engine would
// have to write out: open that for writing.
//
// It is [DB.Checkpoint] of a directory with one store. Of a directory with several, the files of a
// copy would be those of all of them: of a store that a DB has opened, Checkpoint is
// errors.ErrUnsupported. DB.Checkpoint copies all, and [DB.Export] writes one and nothing of the
// others.
func (s *Store) Checkpoint(ctx context.Context, dir string) error {
	if err := s.checkpoint(ctx, dir); err != nil {
		return fmt.Errorf("block: checkpoint: %w", s.ending(row.Damage(err)))
	}
	return nil
}

func (s *Store) checkpoint(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return fmt.Errorf("%w: the store was opened read only, and a copy of it takes writing out its log and remembering the copy; open it for writing", ErrReadOnly)
	}
	// Who has the store for itself has the DB for as long.
	if err := s.use.Begin(); err != nil {
		return ErrClosed
	}
	defer s.use.End()
	if err := s.onlyOne(ctx); err != nil {
		return err
	}
	return s.db.checkpoint(ctx, dir)
}

// onlyOne refuses to copy a directory in which there are other stores too, as one store's.
func (s *Store) onlyOne(ctx context.Context) error {
	if s.alone {
		_, _, err := s.db.only(ctx, "")
		if err == nil || !errors.Is(err, ErrNoStore) {
			return err
		}
	}
	return fmt.Errorf("the files of a copy would be those of all stores: copy all of them with DB.Checkpoint, or write out this one with DB.Export: %w", errors.ErrUnsupported)
}

// apart is called when a copy has its files, before anything else is applied. From then on all that
// is applied is wrapped by an epoch that the copy does not have, even by an operation that already
// has its DEK (see judge). The document says that the store shares its epochs when the copy is
// registered, before the copy is whole.
func (s *Store) apart(raise func(partition, epoch uint32)) {
	if epoch := s.keys.For(inner.Block{}).Share(); epoch > 0 {
		raise(s.number, epoch+1)
	}
}

// isFree refuses a directory that exists, and says what is in it if a store that is open knows that.
func (d *DB) isFree(dir string) error {
	if _, err := d.opts.Pebble.FS.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, s := range d.openStores() {
		copies, _ := s.copies()
		for _, c := range copies {
			if c.Path != dir {
				continue
			}
			if found, err := place.Has(d.opts.Pebble.FS, dir); err != nil || !found {
				return fmt.Errorf("%s: %w: a checkpoint to it was cut off; remove the directory and forget copy %s, or name another directory", dir, fs.ErrExist, c.Instance)
			}
		}
	}
	return fmt.Errorf("%s: %w: name a directory that does not exist", dir, fs.ErrExist)
}

// HoldCheckpoint keeps the files of a copy, or of any store that is closed, unchanged until release
// is called, while somebody copies them elsewhere. Meanwhile nobody can open it for writing. A
// store that would move the copy to another KEK gets [ErrLocked], and tries again later. Other
// readers are not affected. Of opts only FS matters.
//
// It refuses a copy that is not whole. So what arrives elsewhere is whole if every file but LOCK
// was copied; Open, [Inspect] and [InspectKeyring] check that. Copy the identity file, BLOCKSEAL,
// last: without it the directory is not a store.
//
// To release twice does nothing. Errors: [ErrNotStore], [ErrLocked], [ErrVersion], [ErrCorrupt],
// and one for a store that was not closed.
func HoldCheckpoint(dir string, opts *Options) (release func() error, err error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	found, err := place.Has(o.Pebble.FS, dir)
	if err == nil && !found {
		err = fmt.Errorf("block: hold %s: there is no store: %w", dir, ErrNotStore)
	}
	if err != nil {
		return nil, err
	}
	p := place.New(o.Pebble.FS, dir, true)
	if err := p.Lock(); err != nil {
		return nil, err
	}
	if err = p.Survey(); err == nil && p.Phase() != pebble.Closed {
		err = fmt.Errorf("block: hold %s: it was not closed; open it and close it again", dir)
	}
	if err != nil {
		return nil, errors.Join(err, p.Unlock())
	}
	return sync.OnceValue(p.Unlock), nil
}

// Checkpoint makes a copy of the directory in dir, which must not exist, with all stores and with every
// write to them that was acknowledged before the call, while they serve. Each store in it is a copy,
// as [Store.Checkpoint] says of one: it has an instance of its own, waits for Revalidate, and does not
// have the epochs that its source begins from then on. Each store remembers its copy. One that is not
// open cannot sign that: its copy is in doubt ([Copy].Doubt), and is not moved to another KEK by
// itself. A store that is damaged so that it cannot remember it is copied all the same, which is told
// to DBOptions.Logger.
//
// Meanwhile no store is opened or made: that waits. Checkpoint waits until memory is written out; on
// a full disk ctx and Close end it. Errors: [ErrReadOnly], [ErrClosed], fs.ErrExist.
func (d *DB) Checkpoint(ctx context.Context, dir string) error {
	if err := d.checkpoint(ctx, dir); err != nil {
		return fmt.Errorf("block: checkpoint: %w", row.Damage(err))
	}
	return nil
}

func (d *DB) checkpoint(ctx context.Context, dir string) (err error) {
	ctx, cancel := d.tasks.whileOpen(ctx)
	defer cancel()
	defer func() { err = d.tasks.ending(err) }()
	if d.opts.ReadOnly {
		return ErrReadOnly
	}
	fsys := d.opts.Pebble.FS
	if dir, err = place.Absolute(fsys, dir); err != nil {
		return err
	}
	select {
	case d.copying <- struct{}{}:
		defer func() { <-d.copying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := d.use.Begin(); err != nil {
		return ErrClosed
	}
	defer d.use.End()
	checkpointer, ok := d.engine.(engine.Checkpointer)
	if !ok {
		return fmt.Errorf("the engine makes no copies of itself: make them with its database's own tools, or of a store with DB.Export: %w", errors.ErrUnsupported)
	}
	if err := d.isFree(dir); err != nil {
		return err
	}
	c := &copyOfAll{db: d, dir: dir, directory: place.NewInstance()}
	// From here on a store that is being opened begins anew when this is over: see enlist.
	d.listing.Lock()
	defer d.listing.Unlock()
	d.copies.Add(1)
	defer d.copies.Add(1)
	defer c.letGo()
	if err = c.announce(ctx); err == nil {
		err = checkpointer.Checkpoint(ctx, dir, c.apart)
		c.made = err == nil
	}
	if err == nil {
		err = c.register(ctx)
	}
	if err == nil {
		err = c.leave()
	}
	if err != nil {
		return errors.Join(err, c.undo())
	}
	for _, s := range c.open {
		s.keys.For(inner.Block{}).Emit(keyring.Event{Kind: keyring.CopyMade, Detail: dir})
	}
	return nil
}

// copyOfAll is a checkpoint of all stores that is being made.
type copyOfAll struct {
	db        *DB
	dir       string
	directory inner.InstanceID // of the copy
	open      []*Store         // stores that are open, and stay it until letGo
	mu        sync.Mutex
	closed    []closedStore // the others
	made      bool          // the engine's part of it is there
}

// closedStore is a store that is not open, with the name of what announces its copy.
type closedStore struct {
	entry        catalogue.Entry
	announcement string
}

// announcing is how many stores that are not open have their copies announced at once: each is a
// synced write, of which the engine makes one where they come together.
const announcing = 64

// announce has each store remember the copy that is about to be made. Stores are not opened
// meanwhile.
func (c *copyOfAll) announce(ctx context.Context) error {
	for _, s := range c.db.openStores() {
		if err := c.join(ctx, s); errors.Is(err, ErrClosed) {
			select { // until nobody has its partition any more
			case <-s.gone:
			case <-ctx.Done():
				return ctx.Err()
			}
		} else if err != nil {
			return fmt.Errorf("store %q: %w", s.name, err)
		}
	}
	opened := map[string]bool{}
	for _, s := range c.open {
		opened[s.name] = true
	}
	turns := make(chan struct{}, announcing)
	var all sync.WaitGroup
	var failed []error
	err := c.db.catalogue.Each(ctx, func(e catalogue.Entry, err error) error {
		if err != nil || opened[e.Name] || e.State == catalogue.Dropping {
			return ctx.Err() // an entry that cannot be read is nobody's store
		}
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			name, err := c.db.announceClosed(ctx, e, c.dir, place.StoreInstance(c.directory, e.Number))
			c.mu.Lock()
			defer c.mu.Unlock()
			switch {
			case err == nil && name != "":
				c.closed = append(c.closed, closedStore{e, name})
			case err != nil && ctx.Err() != nil:
				failed = append(failed, ctx.Err())
			case err != nil && !isDamage(err):
				failed = append(failed, fmt.Errorf("store %q: %w", e.Name, err))
			case err != nil:
				c.db.log(slog.LevelWarn, "a store does not remember its copy", e.Name, err)
			}
		})
		return nil
	})
	all.Wait()
	return errors.Join(append(failed, err)...)
}

// isDamage reports whether an error is about what a store has, and not about writing to it now.
func isDamage(err error) bool {
	err = row.Damage(err)
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, ErrForeign)
}

// join has a store that is open announce its copy, and stay open.
func (c *copyOfAll) join(ctx context.Context, s *Store) error {
	if err := s.acquireTurn(ctx, s.copying); err != nil {
		return err
	}
	err := s.noteSequence(ctx)
	if err == nil {
		err = s.use.Begin()
	}
	if err != nil {
		<-s.copying
		return err
	}
	c.open = append(c.open, s)
	return s.announce(ctx, c.dir, place.StoreInstance(c.directory, s.number))
}

// letGo lets the open stores go.
func (c *copyOfAll) letGo() {
	for _, s := range c.open {
		s.use.End()
		<-s.copying
	}
}

// apart is [Store.apart] for all of them. The others begin an epoch of their own when they are opened,
// because of what was announced.
func (c *copyOfAll) apart(raise func(partition, epoch uint32)) {
	for _, s := range c.open {
		s.apart(raise)
	}
}

// register has each open store remember what its copy has, by what is read from there.
func (c *copyOfAll) register(ctx context.Context) error {
	lock, err := pebble.LockDir(c.dir, c.db.opts.Pebble.FS, true)
	if err != nil {
		return err
	}
	defer lock.Close()
	e, err := pebble.Open(c.dir, lock, pebble.Options{FS: c.db.engineFS(), ReadOnly: true, Fatal: c.db.opts.Pebble.Fatal})
	if err != nil {
		return err
	}
	documents := make([][]byte, len(c.open))
	for i, s := range c.open {
		if documents[i], err = e.Peek(ctx, s.number, register.DocumentName); err != nil {
			break
		}
	}
	if err := errors.Join(err, e.Close()); err != nil {
		return err
	}
	for i, s := range c.open {
		if err := s.registerCopy(ctx, c.dir, place.StoreInstance(c.directory, s.number), documents[i]); err != nil {
			return fmt.Errorf("store %q: %w", s.name, err)
		}
	}
	return nil
}

// leave makes the copy whole: the identity file, which lists the others, comes last. Without it the copy
// is no directory of stores, so that one that was cut off cannot pass for a whole one.
func (c *copyOfAll) leave() error {
	taggers := map[uint32]*inner.Tagger{}
	for _, s := range c.open {
		t := s.tagger()
		defer t.Destroy()
		taggers[s.number] = t
	}
	if err := c.db.files.copyTo(c.dir); err != nil {
		return err
	}
	return c.db.place.LeaveCopy(c.dir, c.directory, taggers)
}

// undo removes what was made, and has the stores forget it. What cannot be removed they go on
// remembering.
func (c *copyOfAll) undo() error {
	if c.made {
		if err := c.db.opts.Pebble.FS.RemoveAll(c.dir); err != nil {
			return err
		}
	}
	ctx := context.Background()
	var errs []error
	for _, s := range c.open {
		errs = append(errs, s.forget(ctx, place.StoreInstance(c.directory, s.number).String()))
	}
	for _, s := range c.closed {
		p := c.db.engine.Partition(s.entry.Number)
		errs = append(errs, engine.SetMeta(ctx, p, s.announcement, nil))
		p.Release()
	}
	return errors.Join(errs...)
}

// announceClosed announces a copy of a store that is not open, as the store itself does without
// access, and returns the name of the announcement; "" for an entry that is no store.
func (d *DB) announceClosed(ctx context.Context, e catalogue.Entry, dir string, instance inner.InstanceID) (string, error) {
	if err := d.named(ctx, e); err != nil {
		return "", err
	}
	if e.State == catalogue.Creating {
		// Until its document is there, which waits for this Checkpoint, the partition is of who makes it.
		if there, err := d.there(ctx, e); err != nil || !there {
			return "", row.Damage(err)
		}
	}
	p := d.engine.Partition(e.Number)
	defer p.Release()
	doc, err := register.Document(ctx, p)
	if errors.Is(err, engine.ErrNotFound) {
		err = fmt.Errorf("its keyring document is missing: %w", ErrCorrupt)
	}
	var in keyring.Info
	if err == nil {
		in, err = keyring.Inspect(doc)
	}
	storage := &register.Storage{Own: d.instanceOf(e.Number), StoreName: e.Name}
	if err == nil {
		err = storage.Attach(ctx, p)
	}
	if err != nil {
		return "", err
	}
	if reg, _ := storage.View(); len(reg.Copies) >= register.MaxCopies {
		return "", tooManyCopies(len(reg.Copies))
	}
	c := newEntry(dir, instance, d.opts.Clock.Now())
	c.Document = sha256.Sum256(doc)
	c.KEK, c.Generation = in.KEK, in.Generation
	c.Need(slices.Collect(maps.Values(in.KEKs))...)
	if err := storage.Announce(ctx, c); err != nil {
		return "", err
	}
	name, _ := storage.Announced(c.Instance)
	return name, nil
}

func (d *DB) log(level slog.Level, msg, store string, err error) {
	if d.opts.Logger != nil {
		d.opts.Logger.Log(context.Background(), level, "blockseal: "+msg, slog.String("name", store), slog.Any("error", err))
	}
}
