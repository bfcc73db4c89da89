package block

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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

// Checkpoint makes a copy of the directory in dir, which must not exist, with all stores and with every
// write to them that was acknowledged before the call, while they serve. Each store in it is a copy,
// as [Store.Checkpoint] says of one: it has an instance of its own, waits for Revalidate, and does not
// have the epochs that its source begins from then on. Each store remembers its copy. One that is not
// open cannot sign that: its copy is in doubt ([Copy].Doubt), and is not moved to another KEK by
// itself.
//
// A store that cannot remember its copy is copied all the same, which is told to DBOptions.Logger: one
// that is damaged, and one that remembers as many copies as it can (keyring.ErrLimit). The latter says
// from then on that it may have copies which it does not list ([ErrIncomplete], [Receipt].Incomplete).
// So forget copies that are gone ([Store.ForgetCopy]) before there are 4,096. A DB that [Open] made
// for one store refuses instead.
//
// Meanwhile no store is opened or made: that waits. It waits for no vault and no anchor, whatever a store
// has under way. Checkpoint itself waits for a store that is being closed, with which nobody else waits;
// and until memory is written out: on a full disk ctx and Close end it. Errors: [ErrReadOnly],
// [ErrClosed], fs.ErrExist.
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
	c := &copyOfAll{db: d, dir: dir, directory: place.NewInstance(), joined: map[*Store]bool{}}
	defer c.letGo()
	for {
		leaving, err := c.make(ctx, checkpointer)
		if err != nil {
			return err
		}
		if leaving == nil {
			break
		}
		select { // until nobody has its partition any more
		case <-leaving.gone:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), c.takeBack())
		}
	}
	c.tell(ctx)
	return nil
}

// copyOfAll is a checkpoint of all stores that is being made.
type copyOfAll struct {
	db        *DB
	dir       string
	directory inner.InstanceID // of the copy
	open      []*Store         // stores that are open, and stay it until letGo
	joined    map[*Store]bool  // those, and whether they remember the copy
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

// make makes the copy, while no store is opened or made, or returns a store that is being closed: then
// nothing is made yet, and make is called again when that is gone. It waits for the disk, and for
// nothing that a store waits for.
func (c *copyOfAll) make(ctx context.Context, engine engine.Checkpointer) (leaving *Store, err error) {
	d := c.db
	// A store that is being opened begins anew when this is over: see enlist.
	d.listing.Lock()
	defer d.listing.Unlock()
	d.copies.Add(1)
	defer d.copies.Add(1)
	if leaving, err = c.announce(ctx); err == nil && leaving == nil {
		err = engine.Checkpoint(ctx, c.dir, c.apart)
		c.made = err == nil
		if err == nil {
			err = c.register(ctx)
		}
		if err == nil {
			err = c.leave()
		}
	}
	if err != nil {
		return nil, errors.Join(err, c.undo())
	}
	return leaving, nil
}

// takeBack is undo for who is not inside of make.
func (c *copyOfAll) takeBack() error {
	c.db.listing.Lock()
	defer c.db.listing.Unlock()
	return c.undo()
}

// announce has each store remember the copy that is about to be made, or returns one that is being
// closed, which is neither open nor closed.
func (c *copyOfAll) announce(ctx context.Context) (leaving *Store, err error) {
	open := c.db.openStores()
	for _, s := range open {
		if _, ok := c.joined[s]; !ok && s.ctx.Err() != nil {
			return s, nil
		}
	}
	for _, s := range open {
		if _, ok := c.joined[s]; ok {
			continue
		}
		if joins, err := c.join(ctx, s); err != nil {
			return nil, fmt.Errorf("store %q: %w", s.name, err)
		} else if !joins {
			return s, nil // it has begun to close since
		}
	}
	opened := map[string]bool{}
	for _, s := range c.open {
		opened[s.name] = true
	}
	turns := make(chan struct{}, announcing)
	var all sync.WaitGroup
	var failed []error
	err = c.db.catalogue.Each(ctx, func(e catalogue.Entry, err error) error {
		if err != nil || opened[e.Name] || e.State == catalogue.Dropping {
			return ctx.Err() // an entry that cannot be read is nobody's store
		}
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			name, err := c.db.announceClosed(ctx, e, c.dir, place.StoreInstance(c.directory, e.Number))
			c.mu.Lock()
			defer c.mu.Unlock()
			if name != "" {
				c.closed = append(c.closed, closedStore{e, name})
			}
			switch {
			case err == nil:
			case ctx.Err() != nil:
				failed = append(failed, ctx.Err())
			case isDamage(err) || errors.Is(err, keyring.ErrLimit):
				c.db.log(slog.LevelWarn, doesNotRemember, e.Name, err)
			default:
				failed = append(failed, fmt.Errorf("store %q: %w", e.Name, err))
			}
		})
		return nil
	})
	all.Wait()
	return nil, errors.Join(append(failed, err)...)
}

const doesNotRemember = "a store does not remember its copy"

// isDamage reports whether an error is about what a store has, and not about writing to it now.
func isDamage(err error) bool {
	err = row.Damage(err)
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, ErrForeign)
}

// join has a store that is open announce its copy, and stay open. It reports false for one that is being
// closed.
func (c *copyOfAll) join(ctx context.Context, s *Store) (joins bool, err error) {
	if err := s.acquireTurn(ctx, s.copying); errors.Is(err, ErrClosed) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err = s.noteSequence(ctx); err != nil || !s.use.TryBegin() {
		<-s.copying
		return false, err
	}
	c.open = append(c.open, s)
	entry := s.aboutToBe(c.dir, place.StoreInstance(c.directory, s.number))
	err = s.announce(ctx, entry)
	c.joined[s] = err == nil
	if errors.Is(err, keyring.ErrLimit) && !c.db.one {
		c.db.log(slog.LevelWarn, doesNotRemember, s.name, err)
		err = s.storage.Announce(ctx, entry)
		s.wrote()
	}
	return true, err
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
		if !c.joined[s] {
			continue
		}
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

// tell tells of the copy, when the anchors of the stores have followed, or have told why not. Nothing
// is held that anybody waits for but who copies or closes one of these stores.
func (c *copyOfAll) tell(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range c.open {
		if s.sequence.anchor != nil {
			all.Go(func() { s.keys.For(inner.Block{}).AwaitAnchor(ctx) })
		}
	}
	all.Wait()
	for _, s := range c.open {
		e := keyring.Event{Kind: keyring.CopyMade, Detail: c.dir}
		if !c.joined[s] {
			e.Err = tooManyCopies(register.MaxCopies)
		}
		s.keys.For(inner.Block{}).Emit(e)
	}
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
// access, and returns the name of the announcement; "" for an entry that is no store. With
// keyring.ErrLimit the store will know that there is a copy which it does not list.
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
	c := newEntry(dir, instance, d.opts.Clock.Now())
	c.Document = sha256.Sum256(doc)
	c.KEK, c.Generation = in.KEK, in.Generation
	c.Need(slices.Collect(maps.Values(in.KEKs))...)
	if err := storage.Announce(ctx, c); err != nil {
		return "", err
	}
	name, _ := storage.Announced(c.Instance)
	if reg, _ := storage.View(); !reg.Has(c.Instance) {
		return name, tooManyCopies(len(reg.Copies))
	}
	return name, nil
}

func (d *DB) log(level slog.Level, msg, store string, err error) {
	if d.opts.Logger != nil {
		d.opts.Logger.Log(context.Background(), level, "blockseal: "+msg, slog.String("name", store), slog.Any("error", err))
	}
}
