package keyvaulttest

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Fault is something that goes wrong with requests that carry a token. The first
// fields say with which, the others what.
type Fault struct {
	Op      string // get, wrapKey, unwrapKey, create and so on; "" is any
	Key     string // by name; "" is any
	Version string // "" is any
	Times   int    // how many requests; 0 is all until it is removed

	Delay time.Duration // before anything else
	Hang  bool          // no answer until the fault is removed or the client gives up
	Cut   bool          // the connection is closed without an answer

	Status     int    // an answer with this status in place of the right one
	Code       string // its error.code
	Inner      string // its error.innererror.code; "" is none
	Message    string // its error.message
	Body       string // its body as it is, in place of the three above
	RetryAfter string // its Retry-After header; "" is none

	Mutate   func(body map[string]any) // changes the right answer's JSON
	Replace  string                    // the right answer's body, replaced
	Truncate int                       // the right answer's body, cut to this size; 0 is whole
	Drop     int                       // the connection is cut after so many bytes of the right body; 0 is not
}

type fault struct {
	Fault
	left int
	done chan struct{}
	once sync.Once
}

func (f *fault) end() { f.once.Do(func() { close(f.done) }) }

// Inject adds a fault. The first that fits is the one that happens. remove ends it.
func (s *Server) Inject(f Fault) (remove func()) {
	in := &fault{Fault: f, left: f.Times, done: make(chan struct{})}
	s.mu.Lock()
	s.faults = append(s.faults, in)
	s.mu.Unlock()
	return in.end
}

// arrive counts a request and returns its fault, or nil: whoever sees the count may rely
// on the fault being that request's, and not a later one's.
func (s *Server) arrive(op, key, version string) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[op]++
	for _, f := range s.faults {
		select {
		case <-f.done:
			continue
		default:
		}
		if f.Op != "" && f.Op != op || f.Key != "" && f.Key != key || f.Version != "" && f.Version != version {
			continue
		}
		if f.Times > 0 {
			if f.left == 0 {
				continue
			}
			f.left-- // its last request may hang until it is removed
		}
		return f
	}
	return nil
}

// before does what a fault does to a request before it is looked at, and reports
// whether that was all. A client that gives up gets no answer: it says over TLS that it
// closes before it closes, and until then would take an empty one with status 200.
func (f *fault) before(w http.ResponseWriter, r *http.Request) (over bool) {
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			hangUp(w)
			return true
		}
	}
	if f.Hang {
		select {
		case <-f.done:
		case <-r.Context().Done():
			hangUp(w)
			return true
		}
	}
	if f.Cut {
		hangUp(w)
		return true
	}
	if f.Status == 0 {
		return false
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	if f.Body != "" {
		w.WriteHeader(f.Status)
		w.Write([]byte(f.Body))
		return true
	}
	(&failure{status: f.Status, code: f.Code, inner: f.Inner, message: f.Message}).write(w)
	return true
}

// around does what a fault does to an answer.
func (f *fault) around(w http.ResponseWriter, r *http.Request, h http.HandlerFunc) {
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	h(rec, r)
	body := rec.body.Bytes()
	if f.Mutate != nil {
		var m map[string]any
		if json.Unmarshal(body, &m) == nil {
			f.Mutate(m)
			if b, err := json.Marshal(m); err == nil {
				body = b
			}
		}
	}
	if f.Replace != "" {
		body = []byte(f.Replace)
	}
	if f.Truncate > 0 {
		body = body[:min(f.Truncate, len(body))]
	}
	maps.Copy(w.Header(), rec.header)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(rec.status)
	if f.Drop > 0 {
		w.Write(bytes.Clone(body[:min(f.Drop, len(body))]))
		if fl, ok := w.(http.Flusher); ok {
			fl.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// hangUp closes a request's connection.
func hangUp(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if c, _, err := h.Hijack(); err == nil {
			c.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}
