// Package blockhttp serves a page about a store, or about a DB of many, to the people who operate it,
// and the same as JSON.
//
//	mux.Handle("/", blockhttp.Handler(store, nil)) // where only operators get
//	mux.Handle("/", blockhttp.DBHandler(db, nil))
//
// docs/metrics.md says more, and has a picture.
package blockhttp

import (
	_ "embed" // the page and its style
	"html/template"
	"net/http"
	"net/url"

	"github.com/blockseal/blockseal/block"
)

//go:embed page/page.html
var pageText string

//go:embed page/style.css
var styleText string

// Options configure [Handler] and [DBHandler]. Nil means the defaults.
type Options struct {
	// Audit returns the status of the audit log for the page. It is called for each page,
	// concurrently, and the page waits for it. Default: the page has no audit log.
	Audit func() AuditStatus
	// Name is the store's name, or the DB's, in the title and the heading, which tells pages apart.
	// Default: the first 8 digits of the instance.
	Name string
	// Runbooks is the address of docs/operations.md, without a fragment: the page links to the
	// section that the state is about, as Runbooks + "#an-expired-key". Default, and if the address
	// is neither relative nor of http or https: the page has the section's name and no link.
	Runbooks string
}

// AuditStatus is what [Handler] shows of an audit log, such as vault/audit's.
type AuditStatus struct {
	Head    string `json:"head"`    // of the last record that was written
	Pending int    `json:"pending"` // records that wait to be written
	Lost    uint64 `json:"lost"`    // records that were lost
}

// Handler returns a page about a store for the people who operate it: the state and what to do
// about it, lease, key, checks, epochs, long operations, counters and recent events. It is
// read-only, shows no secrets, contents or block ids, and asks neither vault nor disk, so that it
// can be loaded as often as one likes. Of a store that other processes may have open as well, which
// have leases of their own, it says that it is of this process alone, and which one that is.
//
// It answers GET and HEAD with HTML that reloads every 10 seconds, unless the query has "still". It
// answers with JSON at a path that ends with "/status.json", with "?format=json", or to a client
// that accepts application/json and no HTML. The page needs no script and loads nothing. The status
// is 200 in every state; a load balancer uses [block.Store.State]. Icons that browsers ask for by
// themselves are 404.
//
// It authenticates nobody: mount it where only operators get. It may be called concurrently, and
// answers even after the store was closed.
func Handler(s *block.Store, opts *Options) http.Handler {
	h := &handler{s: s}
	if opts != nil {
		h.audit, h.name = opts.Audit, opts.Name
		if linkable(opts.Runbooks) {
			h.runbooks = opts.Runbooks
		}
	}
	if h.name == "" {
		h.name = cut(s.Instance())
	}
	h.server = newServer("page.html", pageText, func(*http.Request) any { return h.look() }, func(v any, still bool) any {
		return pageData{view: v.(view), Style: template.CSS(styleText), Still: still}
	})
	return h
}

// linkable reports whether following an address only loads a page.
func linkable(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "" || u.Scheme == "http" || u.Scheme == "https")
}

type handler struct {
	*server
	s     *block.Store
	audit func() AuditStatus
	name  string

	runbooks string // their address; empty: not known
}

type pageData struct {
	view
	Style template.CSS
	Still bool // it does not reload
}
