package keyring

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/secret"
)

// session is one stretch of access, from the unwrap that opened the document to
// the lock that ends it. What is opened in one session does not go on in the next.
type session struct {
	// What each operation looks at comes first, and together; see Keyring. The set and the current epoch are those
	// that epochs points to until there are others.
	deadline atomic.Int64 // Clock.Elapsed at which use ends, in nanoseconds
	epochs   atomic.Pointer[epochSet]
	first    struct {
		epochSet
		epoch
	}

	id       uint64
	cache    *dekCache
	ending   atomic.Bool // somebody found the deadline passed and is locking
	fullTold atomic.Bool // see tellTooManyEpochs
	byAge    atomic.Bool // an epoch is being begun because of the age of the one before
	ageTold  atomic.Bool // that this failed

	// ctx ends when the session does: what waits for a vault outside of any hold is not
	// waited for. away counts those operations, until they have ended; see Hold.outside.
	ctx    context.Context
	cancel context.CancelCauseFunc
	away   inFlight

	// Epochs that were dropped stay readable, in memory alone, for the snapshots
	// and scans that began before: as long as there are pins.
	pinMu   sync.Mutex
	pins    int
	retired atomic.Pointer[[]*epoch]
	// unfound are those of them that nobody finds any more and whose keys are to be
	// overwritten when nobody can be using them either. Guarded by pinMu.
	unfound []*epoch

	secret [secretSize]byte // the document's; guarded by Keyring.docMu, as is opening
	// opening is the documents that were opened in the session and are not the keyring's yet.
	opening map[*opening]struct{}
}

// epochSet is the epochs at one moment; never changed once published.
type epochSet struct {
	current *epoch
	all     []*epoch // by ascending id
}

// epoch is an epoch key ready for use.
type epoch struct {
	id      uint32
	aead    dek.AEAD
	left    atomic.Int64 // how many DEKs this keyring may wrap of what it has reserved; 0 or less: none
	created time.Time
	sum     [sha256.Size]byte // of the key: that it is the same in every document
	took    uint64            // all that this keyring has reserved; docMu or, of one that is not published, its maker's
	idle    atomic.Int64      // what it has reserved and will not use
	counted atomic.Uint64     // what the document that was taken last says that all keyrings have reserved
	shared  atomic.Bool       // Share was called, and the next DEK begins another epoch
}

func (s *epochSet) find(id uint32) *epoch {
	if s.current.id == id {
		return s.current
	}
	i, ok := slices.BinarySearchFunc(s.all, id, func(e *epoch, id uint32) int { return int(int64(e.id) - int64(id)) })
	if !ok {
		return nil
	}
	return s.all[i]
}

// epoch returns the epoch with the given id, or nil.
func (s *session) epoch(id uint32) *epoch {
	if e := s.epochs.Load().find(id); e != nil {
		return e
	}
	if retired := s.retired.Load(); retired != nil {
		for _, e := range *retired {
			if e.id == id {
				return e
			}
		}
	}
	return nil
}

// newEpoch makes an epoch key ready. The expanded key is allocated inside
// secret.Do, so that it is erased when the session lets go of it. Nothing of what the
// document says was reserved is this session's: the first DEK goes by reserve.
func newEpoch(k *epochKey) (e *epoch, err error) {
	e = new(epoch)
	return e, e.begin(k)
}

func (e *epoch) begin(k *epochKey) (err error) {
	e.id, e.created = k.id, k.created
	secret.Do(func() { e.aead, err = dek.NewAEAD(k.key[:]) })
	e.sum = k.sum()
	e.counted.Store(k.reserved)
	return err
}

// names returns what tells the epochs from others.
func (s *epochSet) names() (names []epochName) {
	for _, e := range s.all {
		names = append(names, epochName{e.id, e.sum})
	}
	return names
}

// with returns the set with one more epoch, the new current one.
func (s *epochSet) with(e *epoch) *epochSet {
	return &epochSet{all: append(slices.Clone(s.all), e), current: e}
}

// newSession returns a session with the epochs of a body.
func newSession(b *body, cache *dekCache) (*session, error) {
	s := &session{cache: cache}
	set := &s.first.epochSet
	for i := range b.epochs {
		e := &s.first.epoch
		if i < len(b.epochs)-1 {
			e = new(epoch)
		}
		if err := e.begin(&b.epochs[i]); err != nil {
			return nil, err
		}
		set.all = append(set.all, e)
	}
	set.current = &s.first.epoch
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.away.Wake = make(chan struct{}, 1)
	s.epochs.Store(set)
	return s, nil
}

// destroy forgets the session's keys. Nobody holds the session any more.
func (s *session) destroy() {
	s.cancel(errLockedMeanwhile)
	clear(s.secret[:])
	for o := range s.opening {
		o.destroy()
	}
	s.pinMu.Lock()
	gone := append(s.unfound, s.epochs.Swap(nil).all...)
	s.unfound = nil
	if retired := s.retired.Swap(nil); retired != nil {
		gone = append(gone, *retired...)
	}
	s.pinMu.Unlock()
	for _, e := range gone {
		e.aead.Destroy()
	}
	s.cache.destroy()
}

// errLockedMeanwhile is why a call to a vault was given up.
var errLockedMeanwhile = errors.New("keyring: it was locked meanwhile")

// inFlight counts operations that are under way.
type inFlight inner.InFlight

// end counts one operation less.
func (c *inFlight) end() {
	c.N.Add(-1)
	if c.Wake != nil {
		c.tell()
	}
}

func (c *inFlight) tell() {
	select {
	case c.Wake <- struct{}{}:
	default: // it is to look once more already
	}
}

// Hold keeps a keyring from locking while an operation uses its keys: a lock
// waits for all holds, and none is given once it has begun. The zero Hold is
// not valid. A Hold belongs to one goroutine, which must Release it soon, must
// not wait for a vault or another goroutine's hold meanwhile, and must not
// acquire a second one.
type Hold struct {
	r *Keyring
	s *session
	c *inFlight
}

// Acquire returns a Hold if the keys may be used now, or an error that matches
// [ErrInaccessible], with its cause, or [ErrClosed].
//
// The order of the two steps is what makes it safe: the hold is counted, then
// the session is looked at. A lock does the reverse, so that either it sees the
// count or this sees no session. The first look is for those who are refused anyway:
// however many they are, a lock that is waiting does not see them.
func (r *Keyring) Acquire() (Hold, error) {
	if r.session.Load() == nil {
		return Hold{}, r.refusal(nil)
	}
	return r.look(r.count())
}

// count counts one more operation, which is not allowed to do anything yet.
func (r *Keyring) count() *inFlight {
	c := (*inFlight)(r.inFlight.Mine())
	c.N.Add(1)
	return c
}

// look makes a hold of an operation that has been counted, or takes the count back. What it
// looks at last is the session, so that a lock which began at any moment since the count is
// seen. (The clock is read in between the two, where a test can stop it.)
func (r *Keyring) look(c *inFlight) (Hold, error) {
	now := int64(r.clock.Elapsed())
	s := r.session.Load()
	if s != nil && now < s.deadline.Load() {
		return Hold{r, s, c}, nil
	}
	c.N.Add(-1)
	return Hold{}, r.refusal(s)
}

// inTime looks at the deadline again, for an operation that has waited in its hold: the lock that
// would have ended that may be late, as after the machine was suspended.
func (h *Hold) inTime() error {
	if int64(h.r.clock.Elapsed()) < h.s.deadline.Load() {
		return nil
	}
	return h.r.refusal(h.s)
}

// AcquireSession is Acquire for an operation of several steps, such as a scan,
// that must end when the keyring locked in between, even if it is available
// again: it refuses if the session is not the given one.
func (f *forBlock) AcquireSession(id uint64) (Hold, error) {
	r := (*Keyring)(f)
	h, err := r.Acquire()
	if err != nil {
		return h, err
	}
	if h.s.id != id {
		h.Release()
		return Hold{}, r.endedSession()
	}
	return h, nil
}

// Session identifies the stretch of access that the hold belongs to.
func (f *holdForBlock) Session() uint64 {
	h := (*Hold)(f)
	return h.s.id
}

// CurrentEpoch is the epoch that new DEKs are wrapped by.
func (f *holdForBlock) CurrentEpoch() uint32 {
	h := (*Hold)(f)
	return h.s.epochs.Load().current.id
}

// HasEpoch reports whether the keyring has an epoch in memory: records that name it open without a look
// at the storage.
func (f *holdForBlock) HasEpoch(id uint32) bool {
	h := (*Hold)(f)
	return h.s.epoch(id) != nil
}

// Wrapping is how new DEKs are wrapped. While a keyring is open only another keyring on the
// same document changes it.
func (f *holdForBlock) Wrapping() Wrapping {
	h := (*Hold)(f)
	if h.r.wrapsByKEK.Load() {
		return ByKEK
	}
	return ByKeyring
}

// Release ends the hold, and with it the operation, also if a method of the hold has
// said that the keyring locked: until then a lock waits, so that what the operation has of
// keys can be destroyed before.
func (h Hold) Release() {
	if h.c != nil {
		h.c.end()
		runtime.KeepAlive(h.r) // whose counter it is
	}
}

// drain waits until no hold of the session s is left, which was taken away before. From
// then on no hold is given, so that a counter that was at zero once counts none any more
// that matters: each is waited for alone, and not until all are at zero at once. Last come
// those that wait for a vault without a hold: they get none again.
func (r *Keyring) drain(s *session) {
	for c := range r.inFlight.All() {
		(*inFlight)(c).drain()
	}
	s.away.drain()
}

// drain waits until the counter is at zero. Operations in a hold are short and many, so
// that they tell nobody when they end.
func (c *inFlight) drain() {
	for c.Wake != nil && c.N.Load() != 0 {
		<-c.Wake
	}
	for wait := 10 * time.Microsecond; c.N.Load() != 0; wait = min(2*wait, time.Millisecond) {
		time.Sleep(wait)
	}
}

// refusal explains why there is no hold to be had. s is the session that was
// found, nil or past its deadline.
func (r *Keyring) refusal(s *session) error {
	if s != nil {
		// The timer that locks may come late, after a pause of the process; the
		// deadline does not. The lock follows without holding up this caller,
		// which may be the one that the lock would have to wait for.
		if s.ending.CompareAndSwap(false, true) {
			go r.expire(s)
		}
		return &lockedError{since: r.clock.Now(), cause: r.deadlineCause()}
	}
	if r.closed.Load() {
		return fmt.Errorf("keyring: %w", ErrClosed)
	}
	return r.locked.Load()
}

// endedSession is the error of a step that belongs to an earlier session.
func (r *Keyring) endedSession() error {
	if le := r.locked.Load(); le != nil {
		return le
	}
	return fmt.Errorf("keyring: %w", ErrInaccessible)
}
