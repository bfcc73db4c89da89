// Package blockhttp serves a page about a store to the people who operate it, and the same as JSON.
//
//	mux.Handle("/", blockhttp.Handler(store, nil)) // where only operators get
//
// docs/metrics.md says more, and has a picture.
package blockhttp

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/blockseal/blockseal/block"
)

//go:embed page/page.html
var pageText string

//go:embed page/style.css
var styleText string

// Options configure [Handler]. Nil means the defaults.
type Options struct {
	// Audit returns the status of the audit log for the page. It is called for each page,
	// concurrently, and the page waits for it. Default: the page has no audit log.
	Audit func() AuditStatus
	// Name is the store's name in the title and the heading, which tells the pages of several
	// stores apart. Default: the first 8 digits of the store's instance.
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
// can be loaded as often as one likes.
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
	h.page = template.Must(template.New("page.html").Funcs(pageFuncs()).Parse(pageText))
	sum := sha256.Sum256([]byte(styleText))
	h.policy = "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return h
}

// linkable reports whether following an address only loads a page.
func linkable(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "" || u.Scheme == "http" || u.Scheme == "https")
}

type handler struct {
	s      *block.Store
	audit  func() AuditStatus
	name   string
	page   *template.Template
	policy string // Content-Security-Policy

	runbooks string // their address; empty: not known
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", h.policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Frame-Options", "DENY")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cache-Control", "no-store")
	head.Set("Vary", "Accept")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "this page is read-only", http.StatusMethodNotAllowed)
		return
	}
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if unasked(last) {
		http.NotFound(w, r)
		return
	}
	v := h.look()
	var body bytes.Buffer
	var err error
	if wantsJSON(r, last) {
		head.Set("Content-Type", "application/json; charset=utf-8")
		e := json.NewEncoder(&body)
		e.SetIndent("", "  ")
		err = e.Encode(v)
	} else {
		head.Set("Content-Type", "text/html; charset=utf-8")
		err = h.page.Execute(&body, pageData{view: v, Style: template.CSS(styleText), Still: r.URL.Query().Has("still")})
	}
	if err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	head.Set("Content-Length", strconv.Itoa(body.Len()))
	if r.Method == http.MethodGet {
		w.Write(body.Bytes())
	}
}

type pageData struct {
	view
	Style template.CSS
	Still bool // it does not reload
}

// unasked reports whether a path's last element is what browsers and crawlers ask for by
// themselves, which comes here if the page is mounted at the root. Other names with a dot may be a
// mount's.
func unasked(last string) bool {
	return last == "favicon.ico" || last == "robots.txt" ||
		strings.HasPrefix(last, "apple-touch-icon") && strings.HasSuffix(last, ".png")
}

func wantsJSON(r *http.Request, last string) bool {
	switch r.URL.Query().Get("format") {
	case "json":
		return true
	case "html":
		return false
	}
	accept := r.Header.Get("Accept")
	return last == "status.json" || strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}
