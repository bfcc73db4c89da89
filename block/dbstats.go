package block

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/internal/catalogue"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
)

// MaxTroubles is how many troubles [DBStats] names; it counts the others.
const MaxTroubles = 20

const (
	// countEvery is the least time between two countings of a DB's stores, which read the
	// catalogue: some microseconds a store.
	countEvery = 10 * time.Second
	// nearExpiry is the time before the expiry of a store's KEK version at which it is a trouble,
	// that of the first KeyNearExpiry.
	nearExpiry = 30 * 24 * time.Hour
	// slowDrop is how long a drop may take before somebody looks at it.
	slowDrop = 10 * time.Minute
)

// TroubleKind is what is wrong with a store of a DB, so that a person has to look at it.
type TroubleKind string

// The kinds of troubles, the gravest first. All but those of drops are of a store that is open, or
// that could not be opened the last time that it was tried in this process.
const (
	// TroubleFilesClosed says that access to DBOptions.FileKEK is lost, or that the engine could not be
	// opened again since, so that all stores are Inaccessible. It has no name of a store; of the stores that
	// are Inaccessible for that alone there is no trouble.
	TroubleFilesClosed TroubleKind = "files_closed"
	// TroubleDamaged says that something of the store is not what it wrote: blocks that did not
	// authenticate since it was opened, a document or register that is damaged, older than it may
	// be, or another store's. Without a name it is an entry of the catalogue.
	TroubleDamaged TroubleKind = "damaged"
	// TroubleNotOpened says that the store could not be opened for another reason, such as the wrong
	// KEK, or a Resolve that fails.
	TroubleNotOpened TroubleKind = "not_opened"
	// TroubleInaccessible says that the store is Inaccessible: Trouble.State has the cause.
	TroubleInaccessible TroubleKind = "inaccessible"
	// TroubleAnchorLags says that the anchor could not be advanced, so that an older copy of the
	// store would be accepted.
	TroubleAnchorLags TroubleKind = "anchor_lags"
	// TroubleKeyNearExpiry says that the KEK version expires within 30 days. The store still serves.
	// Without a name it is DBOptions.FileKEK's; of anchor_lags likewise.
	TroubleKeyNearExpiry TroubleKind = "key_near_expiry"
	// TroubleDropUnfinished says that a Drop has begun and failed, takes more than 10 minutes, or
	// was begun by another process. Nobody opens the store. Drop, and OpenDB, go on with it.
	TroubleDropUnfinished TroubleKind = "drop_unfinished"
	// TroubleDropFinished says that OpenDB has finished a Drop that was cut off, so that nobody was
	// given its receipt, which [DB.Dropped] has. It is told until the DB is closed.
	TroubleDropFinished TroubleKind = "drop_finished"
)

// TroubleKinds returns all kinds, the gravest first.
func TroubleKinds() []TroubleKind {
	return []TroubleKind{TroubleFilesClosed, TroubleDamaged, TroubleNotOpened, TroubleInaccessible, TroubleAnchorLags, TroubleKeyNearExpiry, TroubleDropUnfinished, TroubleDropFinished}
}

// Trouble is what is wrong with a store of a DB.
type Trouble struct {
	Store string      `json:"store"` // its name, which is any UTF-8, control characters too
	Kind  TroubleKind `json:"kind"`
	Since time.Time   `json:"since,omitzero"` // zero: not known
	// Err is why the store could not be opened or dropped, or what State has of it; nil if there is
	// none. Its text may name a block; [FailureKind] does not.
	Err error `json:"error"`
	// State is the state of a store that is open.
	State keyring.State `json:"state,omitzero"`
}

// MarshalJSON implements [json.Marshaler].
func (t Trouble) MarshalJSON() ([]byte, error) {
	type plain Trouble
	return json.Marshal(struct {
		plain
		Err string `json:"error,omitempty"`
	}{plain(t), errorText(t.Err)})
}

// DBStats is a DB at one moment: how many stores are in which state, those that need a person by
// name, and what all of them have done together since OpenDB, those too that are closed by now. Its
// size does not grow with the number of stores. It has no secrets.
type DBStats struct {
	Time     time.Time `json:"time"` // by DBOptions.Clock
	Instance string    `json:"instance"`
	Shared   bool      `json:"shared"` // as Stats.Shared
	Closed   bool      `json:"closed"` // Close was called

	// Stores is how many there are, open or not, without those that are being dropped, and
	// Unreadable how many entries of the catalogue could not be read, as of Counted, which is at most
	// 10 seconds before Time.
	Stores     int       `json:"stores"`
	Unreadable int       `json:"unreadable"`
	Counted    time.Time `json:"counted,omitzero"`

	// Open is how many are open, and States how many of those are "available", "degraded" and
	// "inaccessible". MaxOpen is DBOptions.MaxOpen.
	Open    int            `json:"open"`
	States  map[string]int `json:"states"`
	MaxOpen int            `json:"maxOpen"`
	// Opening is how many Acquire is opening, and Waiting how many others wait for their turn.
	Opening int `json:"opening"`
	Waiting int `json:"waiting"`
	// Dropping is how many are being dropped: begun and not finished.
	Dropping int `json:"dropping"`

	// TroubleCounts is how many troubles there are of each kind; all kinds are there. Troubles are at
	// most MaxTroubles of them, some of each kind if there are too many: the gravest kind first, and
	// of a kind those that began first.
	TroubleCounts map[TroubleKind]int `json:"troubleCounts"`
	Troubles      []Trouble           `json:"troubles"`

	// What the stores have counted together, as in Stats. A store that is not open any more counts
	// as of when it was closed.
	Gets         uint64                       `json:"gets"`
	ReadBytes    uint64                       `json:"readBytes"`
	NotFound     uint64                       `json:"notFound"`
	Scanned      uint64                       `json:"scanned"`
	ScannedBytes uint64                       `json:"scannedBytes"`
	Puts         uint64                       `json:"puts"`
	WrittenBytes uint64                       `json:"writtenBytes"`
	Deletes      uint64                       `json:"deletes"`
	Commits      uint64                       `json:"commits"`
	Failures     map[string]map[string]uint64 `json:"failures"`
	Checks       keyring.CheckCounts          `json:"checks"`
	Calls        []keyring.CallStats          `json:"calls"`
	// InFlight and Stuck are vault calls of the stores that are open.
	InFlight int `json:"inFlight"`
	Stuck    int `json:"stuck"`

	// Files is what is known of DBOptions.FileKEK; nil: the files are not sealed.
	Files *FilesStats `json:"files,omitempty"`

	// RecordCache and Rows are the caches that the stores share, and Engine is the engine beneath
	// them; it is zero when the DB is closed.
	RecordCache CacheStats  `json:"recordCache"`
	Rows        CacheStats  `json:"rows"`
	Engine      EngineStats `json:"engine"`
}

// Stats returns the DB's statistics. It asks no vault and opens no store. It reads the catalogue, every
// 10 seconds at the most; if that fails, the rest is there all the same. Beside that it takes about 15
// microseconds for each store that is open. It works after Close too.
func (d *DB) Stats(ctx context.Context) (DBStats, error) {
	all, open := d.openNow()
	blocks := all.blocks.Sums()
	st := DBStats{
		Time: d.opts.Clock.Now(), Instance: d.place.Instance().String(), Shared: d.shared, Open: len(open), MaxOpen: d.opts.MaxOpen,
		States: map[string]int{}, TroubleCounts: map[TroubleKind]int{}, Troubles: []Trouble{},
		Gets: blocks.Gets, ReadBytes: blocks.ReadBytes, NotFound: blocks.NotFound, Scanned: blocks.Scanned, ScannedBytes: blocks.ScannedBytes,
		Puts: blocks.Puts, WrittenBytes: blocks.WrittenBytes, Deletes: blocks.Deletes, Commits: blocks.Commits, Failures: blocks.Failures,
		Checks: all.checks, Calls: all.calls, InFlight: all.inFlight, Stuck: all.stuck,
	}
	for _, s := range []keyring.Status{keyring.Available, keyring.Degraded, keyring.Inaccessible} {
		st.States[strings.ToLower(s.String())] = 0
	}
	troubles := []Trouble{}
	isOpen := map[string]bool{}
	for _, s := range open {
		isOpen[s.name] = true
		if s.state.Status != keyring.Closed { // it is being closed
			st.States[strings.ToLower(s.state.Status.String())]++
			troubles = append(troubles, troublesOf(s, st.Time)...)
		}
	}
	for name, f := range d.notOpened() {
		if !isOpen[name] {
			troubles = append(troubles, Trouble{Store: name, Kind: kindOfOpening(f.err), Since: f.since, Err: f.err})
		}
	}
	if d.files != nil {
		st.Files = new(d.FileKEK())
		troubles = append(troubles, troublesOfFiles(*st.Files, st.Time)...)
	}
	st.Opening, st.Waiting = d.stores.Waiting()
	more, err := d.statsBeneath(ctx, &st)
	if err != nil {
		err = fmt.Errorf("block: stats: %w", row.Damage(err))
	}
	st.tell(append(troubles, more...))
	return st, err
}

// statsBeneath fills in what the engine knows, and returns the troubles of stores that are not open.
func (d *DB) statsBeneath(ctx context.Context, st *DBStats) (troubles []Trouble, err error) {
	if d.use.Begin() != nil {
		st.Closed = true
		d.mu.Lock()
		c := d.watch.census
		d.mu.Unlock()
		st.Stores, st.Unreadable, st.Counted = c.stores, c.unreadable, c.counted
		return nil, nil
	}
	defer d.use.End()
	if m, ok := d.engine.(engine.Meter); ok {
		st.Engine = EngineStats(m.Stats())
	}
	records, rows := d.common.Stats()
	st.RecordCache, st.Rows = CacheStats(records), CacheStats(rows)
	c, err := d.takeCensus(ctx)
	if errors.Is(err, ErrFileKEK) {
		err = nil // Files says why the count is old
	}
	st.Stores, st.Unreadable, st.Counted = c.stores, c.unreadable, c.counted
	for range c.unreadable {
		troubles = append(troubles, Trouble{Kind: TroubleDamaged, Err: fmt.Errorf("an entry of the list of stores: %w", row.Damage(c.err))})
	}
	drops, finished := d.dropsNow()
	troubles = append(troubles, finished...)
	left, unread := d.catalogue.Unfinished(ctx)
	if errors.Is(unread, ErrFileKEK) {
		unread = nil
	}
	for _, e := range left {
		if e.State != catalogue.Dropping {
			continue
		}
		st.Dropping++
		u, ours := drops[e.Name]
		if !ours || u.err != nil || st.Time.Sub(u.since) > slowDrop {
			troubles = append(troubles, Trouble{Store: e.Name, Kind: TroubleDropUnfinished, Since: u.since, Err: u.err})
		}
	}
	return troubles, errors.Join(err, unread)
}

// troublesOf returns what is wrong with a store that is open.
func troublesOf(s openNow, now time.Time) (out []Trouble) {
	st := s.state
	add := func(kind TroubleKind, since time.Time, err error) {
		out = append(out, Trouble{Store: s.name, Kind: kind, Since: since, Err: err, State: st})
	}
	if errors.Is(st.Cause, ErrFileKEK) {
		return nil
	}
	locked := st.Status == keyring.Inaccessible
	switch {
	case locked && notItsOwn(st.Cause):
		add(TroubleDamaged, st.Since, st.Cause)
	case s.damaged:
		add(TroubleDamaged, time.Time{}, fmt.Errorf("%w: blocks did not authenticate", ErrCorrupt))
		fallthrough
	default:
		if locked {
			add(TroubleInaccessible, st.Since, st.Cause)
		}
	}
	if st.AnchorErr != nil {
		add(TroubleAnchorLags, time.Time{}, st.AnchorErr)
	}
	if at := st.KEKExpires; !locked && !at.IsZero() && at.Sub(now) <= nearExpiry {
		add(TroubleKeyNearExpiry, at.Add(-nearExpiry), nil)
	}
	return out
}

// notItsOwn reports whether an error says that something on disk is not what the store wrote.
func notItsOwn(err error) bool {
	for _, is := range []error{ErrCorrupt, ErrForeign, keyring.ErrUnexpected, keyring.ErrNoDocument} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

func kindOfOpening(err error) TroubleKind {
	if notItsOwn(err) {
		return TroubleDamaged
	}
	return TroubleNotOpened
}

// tell counts troubles, and names some of them. Of each kind some are named, so that a hundred that
// are Inaccessible do not hide the one that is damaged.
func (st *DBStats) tell(troubles []Trouble) {
	byKind := map[TroubleKind][]Trouble{}
	for _, t := range troubles {
		byKind[t.Kind] = append(byKind[t.Kind], t)
	}
	for _, kind := range TroubleKinds() {
		st.TroubleCounts[kind] = len(byKind[kind])
		slices.SortFunc(byKind[kind], func(a, b Trouble) int {
			return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Store, b.Store))
		})
	}
	named := map[TroubleKind]int{}
	for left, round := min(MaxTroubles, len(troubles)), 0; left > 0; round++ {
		for _, kind := range TroubleKinds() {
			if left > 0 && round < len(byKind[kind]) {
				named[kind]++
				left--
			}
		}
	}
	for _, kind := range TroubleKinds() {
		st.Troubles = append(st.Troubles, byKind[kind][:named[kind]]...)
	}
}

// UnfinishedStore is a store whose creation or drop is not finished: it is under way, or was cut off.
type UnfinishedStore struct {
	Name     string `json:"name"`
	Dropping bool   `json:"dropping"` // false: it is being created
}

// Unfinished returns the stores whose creation or drop is not finished, sorted by their names. OpenDB
// finishes what was cut off, so that they are seen in a DB that is read only, and while it is done.
func (d *DB) Unfinished(ctx context.Context) ([]UnfinishedStore, error) {
	if d.use.Begin() != nil {
		return nil, fmt.Errorf("block: unfinished: %w", ErrClosed)
	}
	defer d.use.End()
	left, err := d.catalogue.Unfinished(ctx)
	if err != nil {
		return nil, fmt.Errorf("block: unfinished: %w", row.Damage(err))
	}
	out := map[string]UnfinishedStore{}
	for _, e := range left {
		out[e.Name] = UnfinishedStore{e.Name, e.State == catalogue.Dropping}
	}
	return slices.SortedFunc(maps.Values(out), func(a, b UnfinishedStore) int { return cmp.Compare(a.Name, b.Name) }), nil
}
