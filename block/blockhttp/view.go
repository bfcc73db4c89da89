package blockhttp

import (
	"errors"
	"strings"
	"time"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// view is what the page shows, and its JSON. Names are stable; times are RFC 3339 in UTC, and
// absent if there is none.
type view struct {
	Time     time.Time `json:"time"`
	Name     string    `json:"name"`
	Store    string    `json:"store"`
	Instance string    `json:"instance"`

	Process processView `json:"process"`

	State  stateView   `json:"state"`
	Lease  leaseView   `json:"lease"`
	Key    keyView     `json:"key"`
	Check  checkView   `json:"check"`
	Epochs epochsView  `json:"epochs"`
	Anchor *anchorView `json:"anchor,omitempty"` // left out if the store has none
	Work   []workView  `json:"work"`
	Blocks blocksView  `json:"blocks"`
	Calls  []callView  `json:"vaultCalls"`
	Engine engineView  `json:"engine"`
	Audit  *auditView  `json:"audit,omitempty"`

	Events  []eventView `json:"events"` // the latest first
	Dropped uint64      `json:"eventsDropped"`
}

type stateView struct {
	Status string    `json:"status"`
	Since  time.Time `json:"since"`
	For    float64   `json:"forSeconds"`
	Cause  string    `json:"cause,omitempty"`

	Kind     string `json:"kind,omitempty"` // of the cause; see causes and headline. Empty: nothing to do
	Headline string `json:"headline"`       // the status and the cause in plain words
	Do       string `json:"do"`             // what to do about it
	Runbook  string `json:"runbook,omitempty"`
	Link     string `json:"runbookLink,omitempty"`
	Short    string `json:"-"` // Cause with its ids cut
}

type leaseView struct {
	Left   float64   `json:"leftSeconds"`
	Length float64   `json:"lengthSeconds"`
	End    time.Time `json:"end,omitzero"`
}

// Low and High are where the page's meter changes its colour: below half a lease several checks
// have had no answer.
func (l leaseView) Low() float64  { return l.Length / 4 }
func (l leaseView) High() float64 { return l.Length / 2 }

type keyView struct {
	Vault   string    `json:"vault"`
	Name    string    `json:"name"`
	Version string    `json:"version"`
	ID      string    `json:"-"` // vault, name and version
	Created time.Time `json:"created,omitzero"`
	Known   bool      `json:"known"` // the vault has told the next two since Open
	Expires time.Time `json:"expires,omitzero"`
	Left    *float64  `json:"leftSeconds,omitempty"` // to the expiry; negative after it
}

// Past is the time since the key's expiry, or nil.
func (k keyView) Past() *float64 {
	if k.Left == nil || *k.Left > 0 {
		return nil
	}
	past := -*k.Left
	return &past
}

type checkView struct {
	Last        time.Time `json:"last,omitzero"`
	Error       string    `json:"error,omitempty"`
	Short       string    `json:"-"`                 // Error with its ids cut; empty if the state's cause says the same
	Unknown     bool      `json:"unknown,omitempty"` // the error is no answer
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	Next        time.Time `json:"next,omitzero"` // at the latest; absent if none comes by itself
	Every       float64   `json:"everySeconds"`
	OK          uint64    `json:"ok"`
	Denied      uint64    `json:"denied"`
	Unanswered  uint64    `json:"unanswered"`
	Other       uint64    `json:"other"`
}

type epochsView struct {
	Count      int       `json:"count"`
	Current    uint32    `json:"current"`
	Began      time.Time `json:"began,omitzero"`
	DEKs       uint64    `json:"deks"` // counted in advance: at least as many as were wrapped
	MaxDEKs    uint64    `json:"deksLimit"`
	Generation uint64    `json:"keyringGeneration"`
}

type workView struct {
	Name    string    `json:"name"`
	Running bool      `json:"running"`
	Done    uint64    `json:"done"`
	Total   uint64    `json:"total,omitempty"`
	Ratio   *float64  `json:"ratio,omitempty"`
	Elapsed float64   `json:"elapsedSeconds"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Failed  string    `json:"failed,omitempty"` // the kind of error: its text may name a block
}

type blocksView struct {
	Puts     uint64            `json:"puts"`
	Written  uint64            `json:"writtenBytes"`
	Deletes  uint64            `json:"deletes"`
	Gets     uint64            `json:"gets"`
	Read     uint64            `json:"readBytes"`
	NotFound uint64            `json:"notFound"`
	Scanned  uint64            `json:"scanned"`
	Failed   map[string]uint64 `json:"failed"` // by kind, without zeros
}

type callView struct {
	Operation string            `json:"operation"`
	Ended     uint64            `json:"ended"`
	Mean      float64           `json:"meanSeconds"`
	Outcomes  map[string]uint64 `json:"outcomes"` // without zeros
}

type engineView struct {
	Disk       uint64 `json:"diskBytes"`
	Debt       uint64 `json:"compactionDebtBytes"`
	ReadAmp    int    `json:"readAmplification"`
	Compacting int    `json:"compactionsRunning"`
}

type auditView struct {
	Head    string `json:"head"`
	Pending int    `json:"pending"`
	Lost    uint64 `json:"lost"`
}

type eventView struct {
	Time  time.Time `json:"time"`
	First time.Time `json:"first,omitzero"`
	Times int       `json:"times"`
	Kind  string    `json:"kind"`
	Grade string    `json:"grade"` // "error", "warning" or "info"
	Text  string    `json:"text,omitempty"`
	Short string    `json:"-"` // Text with its ids cut, and without an error that is above it
}

// anchorView is what the anchor holds, as far as the store knows.
type anchorView struct {
	Lags       bool   `json:"lags"`
	Error      string `json:"error,omitempty"` // why, at the last attempt
	Short      string `json:"-"`               // Error with its ids cut; empty if it stands above
	Generation uint64 `json:"generation"`
	Sequence   uint64 `json:"sequence"`
}

// Used is the part of the current epoch that is used up.
func (e epochsView) Used() *float64 {
	f := float64(e.DEKs) / float64(max(e.MaxDEKs, 1))
	return &f
}

func (h *handler) look() view {
	st := h.s.Stats()
	v := view{
		Time: utc(st.Time), Name: h.name, Store: st.StoreID.String(), Instance: st.Instance, Process: viewProcess(st.Shared), Dropped: st.State.DroppedEvents,
		State: stateView{Status: st.State.Status.String(), Since: utc(st.State.Since), For: max(0, st.Time.Sub(st.State.Since).Seconds()),
			Cause: text(st.State.Cause), Short: shortened(text(st.State.Cause), st.State.KEK.Vault)},
		Lease: leaseView{Left: st.Keys.LeaseLeft.Seconds(), Length: st.Keys.Lease.Seconds(), End: utc(st.State.LeaseEnd)},
		Key: keyView{Vault: st.State.KEK.Vault, Name: st.State.KEK.Name, Version: st.State.KEK.Version, ID: st.State.KEK.String(),
			Created: utc(st.Keys.KEKCreated), Known: st.State.KEKKnown, Expires: utc(st.State.KEKExpires)},
		Check: checkView{Last: utc(st.State.LastCheck), Error: text(st.State.LastCheckErr), Unknown: vault.Transient(st.State.LastCheckErr), LastSuccess: utc(st.State.LastSuccess),
			Next: utc(st.State.NextCheck), Every: st.Keys.CheckEvery.Seconds(), OK: st.Keys.Checks.OK, Denied: st.Keys.Checks.Denied,
			Unanswered: st.Keys.Checks.Unanswered, Other: st.Keys.Checks.Other},
		Epochs: epochsView{Count: st.State.Epochs, Current: st.State.Epoch, Began: utc(st.Keys.Epoch.Created),
			DEKs: st.Keys.Epoch.DEKs, MaxDEKs: st.Keys.Epoch.MaxDEKs, Generation: st.State.Generation},
		Blocks: blocksView{Puts: st.Puts, Written: st.WrittenBytes, Deletes: st.Deletes, Gets: st.Gets, NotFound: st.NotFound,
			Read: st.ReadBytes + st.ScannedBytes, Scanned: st.Scanned, Failed: failed(st.Failures)},
		Engine: viewEngine(st.Engine),
		Work:   []workView{}, Events: []eventView{},
	}
	a := headline(st.State, st.Time)
	v.State.Kind, v.State.Headline, v.State.Do, v.State.Runbook = a.kind, v.State.Status+": "+a.says+".", a.do+".", a.runbook
	if h.runbooks != "" && a.runbook != "" {
		v.State.Link = h.runbooks + "#" + anchor(a.runbook)
	}
	if !st.State.KEKExpires.IsZero() {
		left := st.KEKLeft.Seconds()
		v.Key.Left = &left
	}
	for _, c := range st.Keys.Calls {
		v.Calls = append(v.Calls, viewCall(c))
	}
	for _, w := range append(st.Running, st.Last...) {
		v.Work = append(v.Work, viewWork(w))
	}
	said := telling{vault: st.State.KEK.Vault}
	said.once(st.State.Cause)
	v.Check.Short, _ = said.once(st.State.LastCheckErr)
	if at := st.State.Anchor; at != (keyring.Point{}) || st.State.AnchorErr != nil {
		v.Anchor = &anchorView{Lags: st.State.AnchorErr != nil, Error: text(st.State.AnchorErr), Generation: at.Generation, Sequence: at.Sequence}
		v.Anchor.Short, _ = said.once(st.State.AnchorErr)
		said.anchor = st.State.AnchorErr
	}
	for _, e := range h.s.RecentEvents() {
		v.Events = append(v.Events, viewEvent(e, &said))
	}
	if h.audit != nil {
		a := auditView(h.audit())
		v.Audit = &a
	}
	return v
}

// failed returns failures by kind, without zeros.
func failed(failures map[string]map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for _, kinds := range failures {
		for kind, n := range kinds {
			if n > 0 {
				out[kind] += n
			}
		}
	}
	return out
}

func viewEngine(e block.EngineStats) engineView {
	return engineView{Disk: e.DiskBytes, Debt: e.CompactionDebt, ReadAmp: e.ReadAmplification, Compacting: e.CompactionsRunning}
}

func viewCall(c keyring.CallStats) callView {
	v := callView{Operation: string(c.Operation), Ended: c.Ended(), Outcomes: map[string]uint64{}}
	if c.Latency.Count > 0 {
		v.Mean = c.Latency.Sum.Seconds() / float64(c.Latency.Count)
	}
	for outcome, n := range c.Outcomes {
		if n > 0 {
			v.Outcomes[outcome] = n
		}
	}
	return v
}

func viewWork(w block.Work) workView {
	v := workView{Name: w.Name, Running: w.Ended.IsZero(), Done: w.Done, Total: w.Total, Elapsed: w.Elapsed.Seconds(),
		Started: utc(w.Started), Ended: utc(w.Ended)}
	if f, ok := w.Fraction(); ok {
		v.Ratio = &f
	}
	if w.Err != nil {
		v.Failed = block.FailureKind(w.Err)
	}
	return v
}

// telling shows each error once on a page, however many parts of the page have it: a reader who
// sees the same line four times looks for the difference.
type telling struct {
	vault  string
	anchor error // why the anchor lags; it stands above
	told   []string
}

// once returns an error with its ids cut, or false if the page shows it above, alone or as part of
// another.
func (t *telling) once(err error) (string, bool) {
	if err == nil {
		return "", false
	}
	for _, before := range t.told {
		if strings.Contains(before, err.Error()) {
			return "", false
		}
	}
	t.told = append(t.told, err.Error())
	return shortened(err.Error(), t.vault), true
}

// inAnchorEvent is inEvent for an anchor that was not advanced. How far it was to come is another
// number at each attempt; what hinders it is not.
func (t *telling) inAnchorEvent(err error) string {
	if cause := errors.Unwrap(err); cause != nil && t.anchor != nil && errors.Is(t.anchor, cause) {
		return "as above"
	}
	return t.inEvent(err)
}

// inEvent returns an error for an event's line: in plain words if the page shows it above.
func (t *telling) inEvent(err error) string {
	if text, ok := t.once(err); ok {
		return text
	}
	if says := adviceOn(err).says; says != "" {
		return says + " (above)"
	}
	return "as above"
}

func viewEvent(e block.RecentEvent, said *telling) eventView {
	told := said.inEvent
	if e.Kind == keyring.AnchorNotAdvanced {
		told = said.inAnchorEvent
	}
	v := eventView{Time: utc(e.Time), Times: e.Times, Kind: e.Kind.String(), Grade: "info", Text: eventText(e.Event, error.Error),
		Short: shortened(eventText(e.Event, told), said.vault)}
	if e.Times > 1 {
		v.First = utc(e.First)
	}
	switch {
	case e.Kind == keyring.StateChanged && e.To == keyring.Inaccessible:
		v.Grade = "error"
	case e.Err != nil, e.Kind == keyring.KeyNearExpiry, e.Kind == keyring.StateChanged && e.To == keyring.Degraded:
		v.Grade = "warning"
	}
	return v
}

// utc returns t in UTC, without more digits than people can use.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Millisecond)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
