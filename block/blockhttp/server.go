package blockhttp

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"strconv"
	"strings"
)

// server answers with a page, or with the same as JSON.
type server struct {
	look   func(r *http.Request) any      // what there is to see
	data   func(seen any, still bool) any // the same for the page
	page   *template.Template
	policy string // Content-Security-Policy
}

func newServer(name, text string, look func(*http.Request) any, data func(seen any, still bool) any) *server {
	sum := sha256.Sum256([]byte(styleText))
	return &server{look: look, data: data, page: template.Must(template.New(name).Funcs(pageFuncs()).Parse(text)),
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
}

// ServeHTTP implements [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", s.policy)
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
	v := s.look(r)
	var body bytes.Buffer
	var err error
	if wantsJSON(r, last) {
		head.Set("Content-Type", "application/json; charset=utf-8")
		e := json.NewEncoder(&body)
		e.SetIndent("", "  ")
		err = e.Encode(v)
	} else {
		head.Set("Content-Type", "text/html; charset=utf-8")
		err = s.page.Execute(&body, s.data(v, r.URL.Query().Has("still")))
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
