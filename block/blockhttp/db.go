package blockhttp

import (
	"context"
	_ "embed" // the page
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/storename"
	"github.com/blockseal/blockseal/keyring"
)

//go:embed page/db.html
var dbPageText string

// countWithin bounds how long a page waits for the catalogue to be read.
const countWithin = 5 * time.Second

// DBHandler returns a page about a DB for the people who operate it: how many stores are in which
// state, those that need a person, by name and with what to do about each (at most
// [block.MaxTroubles]; the others are counted), and what all stores have done together. A page about
// one store is by [Handler]. On a database that other processes may have open as well it is of this
// process alone, and says which that is.
//
// It answers as Handler does, and JSON has the same. It asks no vault; it reads the catalogue every 10
// seconds at the most, and waits 5 seconds for that. It authenticates nobody, and shows the names of
// stores and keys: mount it where only operators get.
func DBHandler(d *block.DB, opts *Options) http.Handler {
	h := &dbHandler{d: d}
	if opts != nil {
		h.audit, h.name = opts.Audit, opts.Name
		if linkable(opts.Runbooks) {
			h.runbooks = opts.Runbooks
		}
	}
	return newServer("db.html", dbPageText, func(r *http.Request) any { return h.look(r.Context()) }, func(v any, still bool) any {
		return dbPageData{dbView: v.(dbView), Style: template.CSS(styleText), Still: still}
	})
}

type dbHandler struct {
	d        *block.DB
	audit    func() AuditStatus
	name     string
	runbooks string // their address; empty: not known
}

type dbPageData struct {
	dbView
	Style template.CSS
	Still bool
}

// dbView is what the page of a DB shows, and its JSON.
type dbView struct {
	Time     time.Time `json:"time"`
	Name     string    `json:"name"`
	Instance string    `json:"instance"`

	Process processView `json:"process"`

	State    dbStateView   `json:"state"`
	Stores   storesView    `json:"stores"`
	Troubles []troubleView `json:"troubles"`
	Others   []othersView  `json:"otherTroubles"` // that are not named
	Check    dbCheckView   `json:"checks"`
	Blocks   blocksView    `json:"blocks"`
	Calls    []callView    `json:"vaultCalls"`
	Engine   engineView    `json:"engine"`
	Files    *filesView    `json:"files,omitempty"` // nil: they are not sealed
	Audit    *auditView    `json:"audit,omitempty"`
}

// filesView is what is known of the KEK of the engine's files.
type filesView struct {
	Status    string    `json:"status"` // as state.status of the page of a store
	Open      bool      `json:"open"`   // the engine is
	Since     time.Time `json:"since,omitzero"`
	LeaseEnd  time.Time `json:"leaseEnd,omitzero"`
	LastCheck time.Time `json:"lastCheck,omitzero"`
	KEK       string    `json:"kek"`
	Short     string    `json:"-"`
	Expires   time.Time `json:"kekExpires,omitzero"`
	Epoch     uint32    `json:"epoch"`
	Error     string    `json:"error,omitempty"`
}

func viewFiles(s *block.FilesStats) *filesView {
	if s == nil {
		return nil
	}
	st := s.State
	v := &filesView{Status: st.Status.String(), Open: s.Open, Since: utc(st.Since), LeaseEnd: utc(st.LeaseEnd), LastCheck: utc(st.LastCheck),
		KEK: st.KEK.String(), Short: shortened(st.KEK.String(), ""), Expires: utc(st.KEKExpires), Epoch: st.Epoch, Error: text(st.Cause)}
	if v.Error == "" {
		v.Error = text(s.Err)
	}
	return v
}

type dbStateView struct {
	Status   string `json:"status"` // ok, warning, error or closed
	Headline string `json:"headline"`
	Do       string `json:"do"`
	Error    string `json:"error,omitempty"` // why the stores could not be counted
}

// Class is the colour of the state's card.
func (s dbStateView) Class() string {
	return map[string]string{"ok": "available", "warning": "degraded", "error": "inaccessible"}[s.Status]
}

type storesView struct {
	Total        int       `json:"total"`
	Counted      time.Time `json:"counted,omitzero"`
	Unreadable   int       `json:"unreadable"` // entries of the list of stores
	Open         int       `json:"open"`
	Available    int       `json:"available"`
	Degraded     int       `json:"degraded"`
	Inaccessible int       `json:"inaccessible"`
	NotOpen      int       `json:"notOpen"`
	Opening      int       `json:"opening"`
	Waiting      int       `json:"waiting"`
	Dropping     int       `json:"dropping"`
	MaxOpen      int       `json:"maxOpen"`
}

type troubleView struct {
	Store   string    `json:"store"` // as it is
	Shown   string    `json:"-"`     // as people can read it
	Kind    string    `json:"kind"`
	Cause   string    `json:"causeKind,omitempty"` // as state.kind of the store's own page
	Since   time.Time `json:"since,omitzero"`
	Says    string    `json:"says"`
	Do      string    `json:"do"`
	Runbook string    `json:"runbook,omitempty"`
	Link    string    `json:"runbookLink,omitempty"`
	KEK     string    `json:"kek,omitempty"`
	Error   string    `json:"error,omitempty"`
	Short   string    `json:"-"` // Error and KEK with their ids cut
	ShortID string    `json:"-"`
	Grade   string    `json:"grade"` // "error" or "warning"
}

type othersView struct {
	Kind   string `json:"kind"`
	Says   string `json:"-"`
	Stores int    `json:"stores"`
}

type dbCheckView struct {
	OK         uint64 `json:"ok"`
	Denied     uint64 `json:"denied"`
	Unanswered uint64 `json:"unanswered"`
	Other      uint64 `json:"other"`
}

func (h *dbHandler) look(ctx context.Context) dbView {
	ctx, cancel := context.WithTimeout(ctx, countWithin)
	defer cancel()
	st, err := h.d.Stats(ctx)
	v := dbView{
		Time: utc(st.Time), Name: h.name, Instance: st.Instance, Process: viewProcess(st.Shared),
		Stores: storesView{Total: st.Stores, Counted: utc(st.Counted), Unreadable: st.Unreadable, Open: st.Open, Available: st.States["available"],
			Degraded: st.States["degraded"], Inaccessible: st.States["inaccessible"], NotOpen: max(0, st.Stores-st.Open),
			Opening: st.Opening, Waiting: st.Waiting, Dropping: st.Dropping, MaxOpen: st.MaxOpen},
		Troubles: []troubleView{}, Others: []othersView{},
		Check: dbCheckView(st.Checks),
		Blocks: blocksView{Puts: st.Puts, Written: st.WrittenBytes, Deletes: st.Deletes, Gets: st.Gets, NotFound: st.NotFound,
			Read: st.ReadBytes + st.ScannedBytes, Scanned: st.Scanned, Failed: failed(st.Failures)},
		Engine: viewEngine(st.Engine), Files: viewFiles(st.Files),
	}
	if v.Name == "" {
		v.Name = cut(st.Instance)
	}
	for _, c := range st.Calls {
		v.Calls = append(v.Calls, viewCall(c))
	}
	named := map[block.TroubleKind]int{}
	for _, t := range st.Troubles {
		named[t.Kind]++
		v.Troubles = append(v.Troubles, h.viewTrouble(t, st.Time))
	}
	for _, kind := range block.TroubleKinds() {
		if n := st.TroubleCounts[kind] - named[kind]; n > 0 {
			v.Others = append(v.Others, othersView{string(kind), troubleSays(kind).says, n})
		}
	}
	v.State = dbState(st, err)
	if h.audit != nil {
		a := auditView(h.audit())
		v.Audit = &a
	}
	return v
}

// grave reports whether a trouble keeps somebody from his blocks, or from what he was promised.
func grave(kind block.TroubleKind) bool {
	switch kind {
	case block.TroubleAnchorLags, block.TroubleKeyNearExpiry, block.TroubleDropFinished:
		return false
	}
	return true
}

// dbState returns the headline.
func dbState(st block.DBStats, err error) dbStateView {
	if st.Closed {
		return dbStateView{Status: "closed", Headline: "Closed: the program closed the DB.", Do: "Nothing is to be done."}
	}
	v := dbStateView{Status: "ok", Error: text(err)}
	troubles := 0
	for kind, n := range st.TroubleCounts {
		troubles += n
		if n > 0 && grave(kind) {
			v.Status = "error"
		} else if n > 0 && v.Status == "ok" {
			v.Status = "warning"
		}
	}
	switch {
	case err != nil:
		v.Status, v.Headline, v.Do = "error", "The list of the stores cannot be read.", "Look at the disk, or at what the engine is kept on."
	case troubles == 1:
		v.Headline, v.Do = "One thing needs a person.", "What it is, and what to do about it, is below."
	case troubles > 1:
		v.Headline, v.Do = fmt.Sprintf("%s things need a person.", number(uint64(troubles))), "What they are, and what to do about each, is below."
	case st.States["degraded"] > 0:
		v.Status, v.Headline = "warning", fmt.Sprintf("A vault does not answer: %s of %s open stores are Degraded.", number(uint64(st.States["degraded"])), number(uint64(st.Open)))
		v.Do = "They serve until their leases end. Look at the vault, and at what is between it and the program."
	default:
		v.Headline, v.Do = "All open stores serve.", "Nothing is to be done."
	}
	return v
}

// troubleSays is what is known of a kind of trouble alone.
func troubleSays(kind block.TroubleKind) advice {
	switch kind {
	case block.TroubleFilesClosed:
		return advice{says: "the engine's files are closed, and all stores are Inaccessible", do: "Have access to the KEK of the files (DBOptions.FileKEK) restored; the DB opens them by itself", runbook: "The file KEK is lost"}
	case block.TroubleDamaged:
		return advice{says: "something of it is damaged, or not what it wrote", do: "Keep the files as they are, have Verify name what is damaged, and restore the store", runbook: "Restore from a checkpoint"}
	case block.TroubleNotOpened:
		return advice{says: "it could not be opened", do: "Look at what the program gives for its KEK, and at the program's log", runbook: "States"}
	case block.TroubleInaccessible:
		return advice{says: "it is Inaccessible", do: "Read the cause", runbook: "A customer who revoked"}
	case block.TroubleAnchorLags:
		return advice{says: "its anchor lags, so that an older copy of it would be accepted", do: "Make the anchor writable again; the store advances it by itself", runbook: "A lagging anchor"}
	case block.TroubleKeyNearExpiry:
		return advice{says: "its key expires soon", do: "Have the key rotated in its vault before", runbook: "Rotation"}
	case block.TroubleDropUnfinished:
		return advice{says: "its drop is not finished", do: "Call Drop again, or open the DB anew", runbook: "A customer who leaves"}
	case block.TroubleDropFinished:
		return advice{says: "its drop was cut off, and was finished when the DB was opened", do: "Give the receipt, which the DB keeps (Dropped), to whoever waits for it", runbook: "A customer who leaves"}
	}
	return advice{says: string(kind)}
}

func (h *dbHandler) viewTrouble(t block.Trouble, now time.Time) troubleView {
	a := troubleSays(t.Kind)
	v := troubleView{Store: t.Store, Shown: storename.Shown(t.Store), Kind: string(t.Kind), Since: utc(t.Since), Grade: "error"}
	switch {
	case t.Store != "":
	case t.Kind == block.TroubleDamaged:
		v.Shown, a.says = "an entry of the list of stores", "it cannot be read"
	default:
		v.Shown = "the engine's files"
	}
	if !grave(t.Kind) {
		v.Grade = "warning"
	}
	switch on := adviceOn(t.Err); {
	case t.Kind == block.TroubleInaccessible:
		a = headline(t.State, now)
	case t.Kind == block.TroubleKeyNearExpiry:
		a.says = "its key expires in " + span(max(0, t.State.KEKExpires.Sub(now)).Seconds())
		v.Since = time.Time{}
	case t.Kind == block.TroubleFilesClosed && on.kind != "":
		a.kind, a.says = on.kind, on.says // what to do is about the key of the files, and no store's
	case t.Kind == block.TroubleNotOpened && on.kind != "", t.Kind == block.TroubleDamaged && errors.Is(t.Err, keyring.ErrUnexpected):
		a = on
	}
	v.Cause, v.Says, v.Do, v.Runbook = a.kind, a.says+".", a.do+".", a.runbook
	if h.runbooks != "" && a.runbook != "" {
		v.Link = h.runbooks + "#" + anchor(a.runbook)
	}
	// The texts of these may name a block.
	if t.Kind != block.TroubleDamaged && !errors.Is(t.Err, block.ErrVersion) {
		v.Error, v.Short = text(t.Err), shortened(text(t.Err), t.State.KEK.Vault)
	}
	if t.State.Status != 0 {
		v.KEK = t.State.KEK.String()
		v.ShortID = shortened(v.KEK, "")
	}
	return v
}
