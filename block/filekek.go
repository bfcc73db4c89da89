package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/engine/pause"
	"github.com/blockseal/blockseal/internal/engine/pebble"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/place"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

// sealedFiles is what a DB has whose engine's files are sealed (DBOptions.FileKEK): their keyring, and an
// engine that is closed while that has no access. docs/adr/0023-file-kek.md has the argument.
type sealedFiles struct {
	db      *DB
	keys    *keyring.Keyring
	storage *place.FilesStorage
	engine  *pause.Engine

	look    chan struct{} // something may have changed
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	session *fileSession // that of the engine which is being opened, or is open; nil: none
	since   time.Time    // when it was closed
	failed  error        // why it could not be opened the last time
	retry   time.Duration
	wait    time.Duration
	begun   bool // OpenDB has tried to open it: later on the watch does
	settled bool // what an earlier DB left unfinished was finished
}

// fileSession is the files from one opening of the engine to its closing. A sealfs.FS that was stopped
// is not used again.
type fileSession struct {
	sealed *sealfs.FS
	fs     *pebble.SeverFS
	lost   error // why the access that it was begun with was lost
	open   bool  // the engine is open
}

// cut cuts the engine off from its files. What has begun and waits for access fails, which nobody notices
// any more.
func (s *fileSession) cut(why error) {
	s.fs.Sever()
	s.sealed.Stop(why)
}

// fileKEKError is why nothing of a DB can be used: access to its file KEK was lost.
type fileKEKError struct{ cause error }

func (e *fileKEKError) Error() string {
	return fmt.Sprintf("the engine is closed: %v: %v", ErrFileKEK, e.cause)
}

// Is matches inner.ErrUnchanged too: the DB has the lock of its directory, so that the document of a store
// is in it as the store knows it. What another keyring does is not this one's affair: an error that is
// none of access is matched by none of its own sentinels, which would be taken for the store's.
func (e *fileKEKError) Is(target error) bool {
	return target == ErrFileKEK || target == ErrInaccessible || target == inner.ErrUnchanged
}

func (e *fileKEKError) Unwrap() error {
	if errors.Is(e.cause, ErrInaccessible) {
		return e.cause
	}
	return nil
}

// explainFiles says of an error of the engine that its files had no access.
func explainFiles(err error) error {
	if errors.Is(err, ErrInaccessible) && !errors.Is(err, ErrFileKEK) {
		return &fileKEKError{err}
	}
	return err
}

// withoutFiles is the error of closing a store: that the engine is closed already is none, because
// everything that was acknowledged is on disk.
func withoutFiles(err error) error {
	if errors.Is(err, ErrFileKEK) {
		return nil
	}
	return err
}

// filesPartition is the number by which the instance of the files' keyring is told from those of the
// stores' (place.StoreInstance): no store has it.
const filesPartition = math.MaxUint32

// openSealed opens or makes a directory whose engine's files are sealed.
func (d *DB) openSealed(ctx context.Context, found bool) error {
	d.place.SealFiles()
	f := &sealedFiles{db: d, look: make(chan struct{}, 1), since: d.opts.Clock.Now()}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	var err error
	if found {
		err = f.openKeyring(ctx)
	} else {
		err = f.createKeyring(ctx)
	}
	if err != nil {
		f.cancel()
		if f.keys != nil {
			err = errors.Join(err, f.keys.Close())
		}
		return err
	}
	f.engine = pause.New(&fileKEKError{errors.New("it is being opened")}, f.ready, explainFiles)
	d.files = f
	d.attach(f.engine)
	f.running.Go(f.watch)
	err = f.open(ctx)
	f.mu.Lock()
	f.begun = true
	f.mu.Unlock()
	if err != nil && f.ready() == nil {
		return err
	}
	if err := f.ready(); err != nil {
		f.engine.Because(err)
	}
	return ctx.Err()
}

func (f *sealedFiles) options() *keyring.Options {
	o := f.db.opts.FileKeyring
	o.ReadOnly = o.ReadOnly || f.db.opts.ReadOnly
	// By the KEK itself each opening of a file would ask the vault, and each write of a new log.
	o.Wrapping = keyring.ByKeyring
	o.For(inner.Block{}).Instance = place.StoreInstance(f.db.place.Instance(), filesPartition)
	given := o.OnEvent
	o.OnEvent = func(e keyring.Event) {
		f.wake()
		if given != nil {
			given(e)
		}
	}
	return &o
}

func (f *sealedFiles) wake() {
	select {
	case f.look <- struct{}{}:
	default:
	}
}

// openKeyring opens the keyring of a directory that there is. Its creation may have been cut off before
// there was one.
func (f *sealedFiles) openKeyring(ctx context.Context) (err error) {
	p := f.db.place
	if err := p.Lock(); err != nil {
		return err
	}
	if err := p.Read(); err != nil {
		return err
	}
	f.storage = p.FilesStorage(false)
	f.keys, err = keyring.Open(ctx, f.storage, f.db.opts.FileKEK, f.options())
	if errors.Is(err, keyring.ErrNoDocument) && p.Phase() == pebble.Creating && !f.db.opts.ReadOnly {
		f.storage = p.FilesStorage(true)
		if f.keys, err = keyring.Create(ctx, f.storage, f.db.opts.FileKEK, f.options()); err == nil {
			err = f.storage.Attach()
		}
	}
	if err != nil {
		return fmt.Errorf("block: open %s: %w: %w", p.Dir(), ErrFileKEK, err)
	}
	return nil
}

// createKeyring makes the keyring, and then the directory with its document: a vault that refuses leaves
// nothing behind. The identity file is there before the document, and that before the engine's files. So
// a directory whose creation was cut off is one, and is sealed if it has anything to seal.
func (f *sealedFiles) createKeyring(ctx context.Context) (err error) {
	p := f.db.place
	if f.db.opts.ReadOnly {
		return f.db.createDir()
	}
	f.storage = p.FilesStorage(true)
	if f.keys, err = keyring.Create(ctx, f.storage, f.db.opts.FileKEK, f.options()); err != nil {
		return fmt.Errorf("block: create %s: %w: %w", p.Dir(), ErrFileKEK, err)
	}
	if err := f.db.createDir(); err != nil {
		return err
	}
	return f.storage.Attach()
}

// ready returns why the files may not be used at this moment: nothing begins after access was lost, also
// before the engine is closed.
func (f *sealedFiles) ready() error {
	h, err := f.keys.Acquire()
	if err != nil {
		return &fileKEKError{err}
	}
	h.Release()
	return nil
}

// filesReady is sealedFiles.ready, or nil for a DB whose files are not sealed.
func (d *DB) filesReady() func() error {
	if d.files == nil {
		return nil
	}
	return d.files.why
}

// why returns why nothing of the DB can be used; nil: it can.
func (f *sealedFiles) why() error {
	if err := f.ready(); err != nil {
		return err
	}
	return f.engine.Paused()
}

// watchEvery is how often, on the keyring's clock, access is compared with what is open, beside when an
// event of the keyring says that it has changed: events may be dropped.
const watchEvery = time.Second

// watch closes the engine when access is lost, and opens it when that is back.
func (f *sealedFiles) watch() {
	for f.ctx.Err() == nil {
		timer := make(chan struct{})
		stop := f.keys.For(inner.Block{}).AfterFunc(watchEvery, func() { close(timer) })
		select {
		case <-f.look:
		case <-timer:
		case <-f.ctx.Done():
		}
		stop()
		if why := f.ready(); why != nil {
			f.lose(why)
		} else if f.due() {
			// Not here: access may be lost meanwhile.
			f.running.Go(func() { _ = f.open(f.ctx) })
		}
	}
}

// due reports whether the engine is to be opened.
func (f *sealedFiles) due() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun && f.session == nil && f.ctx.Err() == nil && (f.failed == nil || f.keys.For(inner.Block{}).Elapsed() >= f.retry)
}

// lose closes the engine, cut off from its files, because access was lost.
func (f *sealedFiles) lose(why error) {
	f.mu.Lock()
	s := f.session
	if s == nil {
		f.failed, f.wait = nil, 0 // it is tried as soon as access is back
		f.mu.Unlock()
		f.engine.Because(why)
		return
	}
	s.lost = why
	if !s.open { // who opens it closes it
		f.mu.Unlock()
		s.cut(why)
		return
	}
	f.mu.Unlock()
	f.tell(slog.LevelWarn, "access to the KEK of the files was lost; the engine is closed until it is back", why)
	// First what is called is refused, and then nothing is written any more: what was acknowledged was
	// written.
	err := f.engine.Pause(why, func() { s.cut(why) })
	f.db.common.Clear()
	if err != nil {
		f.tell(slog.LevelInfo, "the engine was closed, cut off from its files", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.session, f.since, f.failed, f.wait = nil, f.db.opts.Clock.Now(), nil, 0
	f.wake()
}

func (f *sealedFiles) tell(level slog.Level, msg string, err error) {
	if l := f.db.opts.Logger; l != nil {
		l.Log(context.Background(), level, "blockseal: "+msg, slog.Any("error", err))
	}
}

// reopenWait is the least time, on the keyring's clock, between two attempts to open the engine, which
// doubles up to reopenMost.
const (
	reopenWait = time.Second
	reopenMost = time.Minute
)

// open opens the engine, if nobody does and none is open.
func (f *sealedFiles) open(ctx context.Context) error {
	if err := f.ready(); err != nil {
		return err
	}
	sealed, err := sealfs.New(f.db.place.Beneath(), f.keys, nil)
	if err != nil {
		return err
	}
	s := &fileSession{sealed: sealed, fs: pebble.NewSeverFS(sealed)}
	f.mu.Lock()
	if f.session != nil || f.ctx.Err() != nil {
		f.mu.Unlock()
		return nil
	}
	f.session = s
	f.mu.Unlock()

	e, err := f.beneath(ctx, s)

	f.mu.Lock()
	if err == nil && s.lost == nil {
		if err = f.engine.Resume(e); err == nil {
			s.open, f.failed, f.wait = true, nil, 0
			f.mu.Unlock()
			return nil
		}
	}
	lost := s.lost
	f.mu.Unlock()
	if lost == nil {
		lost = f.ready() // what was refused for that is no failure, also if the watch did not see it yet
	}
	if lost != nil {
		err = lost
	}
	s.cut(err)
	if e != nil {
		_ = e.Close() // of what is cut off it says nothing
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.session = nil
	if lost == nil && f.ctx.Err() == nil {
		f.wait = min(max(reopenWait, 2*f.wait), reopenMost)
		f.failed, f.retry = err, f.keys.For(inner.Block{}).Elapsed()+f.wait
		f.engine.Because(&fileKEKError{fmt.Errorf("access is there, and the engine cannot be opened: %w", err)})
		f.tell(slog.LevelError, "the engine could not be opened; it is tried again", err)
	}
	f.wake()
	return err
}

// beneath opens the engine in the files of a session. With an error it may return one to be closed.
func (f *sealedFiles) beneath(ctx context.Context, s *fileSession) (engine.Engine, error) {
	d := f.db
	d.place.SetFiles(s.fs)
	e, err := d.beneath()
	if err != nil || f.settled {
		return e, err
	}
	// What was left unfinished is finished before anybody else has the engine; later on what is
	// unfinished is under way.
	o := d.opts
	o.RecordCache, o.RowCache = -1, -1
	first := unopenedDB(o)
	first.place, first.files = d.place, f
	first.attach(e)
	err = first.finish(ctx)
	first.tasks.cancel()
	if err = errors.Join(err, first.stores.Close()); err != nil {
		return e, err
	}
	f.mu.Lock()
	lost := s.lost // it is set before the files are cut off, after which a write that is none succeeds
	f.settled = lost == nil
	f.mu.Unlock()
	if lost != nil {
		return e, lost
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watch.finished = append(d.watch.finished, first.watch.finished...)
	return e, nil
}

// engineFS is the file system of the engine's files.
func (d *DB) engineFS() vfs.FS {
	f := d.files
	if f == nil {
		return d.opts.Pebble.FS
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session == nil {
		none := pebble.NewSeverFS(d.opts.Pebble.FS)
		none.Sever()
		return none
	}
	return f.session.fs
}

// overlay says in the state of a store that the files are closed.
func (f *sealedFiles) overlay(st *keyring.State) {
	if st.Status == keyring.Inaccessible || st.Status == keyring.Closed {
		return
	}
	if why := f.why(); why != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		st.Status, st.Cause, st.Since = keyring.Inaccessible, why, f.since
	}
}

// left is the error of who has closed the engine: once access was lost the directory is left as by a
// process that died, which is no error.
func (f *sealedFiles) left(err error) error {
	if errors.Is(err, ErrFileKEK) || errors.Is(err, pebble.ErrSevered) || f.ready() != nil {
		return nil
	}
	return err
}

// close ends the watch and closes the keyring. The engine is closed.
func (f *sealedFiles) close() error {
	f.cancel()
	f.mu.Lock()
	s := f.session
	f.mu.Unlock()
	if s != nil {
		s.cut(ErrClosed)
	}
	f.running.Wait()
	_ = f.engine.Close()
	return f.keys.Close()
}
