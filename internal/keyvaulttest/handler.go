package keyvaulttest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// maxRequest bounds a request's body in bytes; a backup is the largest.
const maxRequest = 1 << 20

// request is one that has a token, on its way.
type request struct {
	*http.Request
	op            string
	name, version string
	body          []byte
	who           *identity
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("x-ms-request-id", s.requestID())
	w.Header().Set("x-ms-keyvault-service-version", "1.9.0.0")
	if s.opts.Clock != nil { // else net/http goes by the system's
		w.Header().Set("Date", s.opts.Clock.Now().UTC().Format(http.TimeFormat))
	}
	if s.authority(w, r) {
		return
	}
	op, name, version := route(r)
	if r.Header.Get("Authorization") == "" {
		s.challenge(w)
		_, f := s.caller(r)
		f.write(w)
		return
	}
	// Read at once: only then does the server notice when the client gives up.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		hangUp(w)
		return
	}
	f := s.arrive(op, name, version)
	req := &request{Request: r, op: op, name: name, version: version, body: body}
	serve := func(w http.ResponseWriter, _ *http.Request) { s.serve(w, req) }
	if f != nil {
		if f.before(w, r) {
			return
		}
		f.around(w, r, serve)
		return
	}
	serve(w, r)
}

// serve answers a request that nothing is the matter with.
func (s *Server) serve(w http.ResponseWriter, r *request) {
	who, f := s.caller(r.Request)
	if f != nil {
		s.challenge(w)
		f.write(w)
		return
	}
	r.who = who
	if got := r.URL.Query().Get("api-version"); !slices.Contains(APIVersions(), got) {
		badParameter("The specified version (" + got + ") is not recognized. Consider using the latest supported version (" + APIVersion + ").").write(w)
		return
	}
	if s.throttled(r.name) {
		if s.opts.RetryAfter != "" {
			w.Header().Set("Retry-After", s.opts.RetryAfter)
		}
		(&failure{status: 429, code: "Throttled", message: "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"}).write(w)
		return
	}
	handle := s.handlers()[r.op]
	if handle == nil {
		(&failure{status: 405, code: "MethodNotAllowed", message: "The test server does not have " + r.Method + " " + r.URL.Path + "."}).write(w)
		return
	}
	answer, err := handle(r)
	switch f := (*failure)(nil); {
	case errors.As(err, &f):
		f.write(w)
	case err != nil:
		s.failureOf(err, r.op, r.name, who).write(w)
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

func (f *failure) Error() string { return f.message }

// route returns what a request is for: the name of the operation is that of the
// permission which it needs.
func route(r *http.Request) (op, name, version string) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	for len(parts) < 4 {
		parts = append(parts, "")
	}
	name = parts[1]
	m := r.Method
	switch {
	case parts[0] == "deletedkeys" && name == "" && m == http.MethodGet:
		return "listdeleted", "", ""
	case parts[0] == "deletedkeys" && m == http.MethodGet:
		return "getdeleted", name, ""
	case parts[0] == "deletedkeys" && m == http.MethodDelete:
		return "purge", name, ""
	case parts[0] == "deletedkeys" && m == http.MethodPost && parts[2] == "recover":
		return "recover", name, ""
	case parts[0] != "keys":
		return "", "", ""
	case m == http.MethodPost && name == "restore" && parts[2] == "":
		return "restore", "", ""
	case m == http.MethodPost && (parts[3] == "wrapkey" || parts[3] == "unwrapkey"):
		return strings.TrimSuffix(parts[3], "key") + "Key", name, parts[2]
	case m == http.MethodPost && parts[3] == "" && (parts[2] == "wrapkey" || parts[2] == "unwrapkey"): // the current version
		return strings.TrimSuffix(parts[2], "key") + "Key", name, ""
	case m == http.MethodPost && parts[3] == "":
		return map[string]string{"create": "create", "rotate": "rotate", "backup": "backup"}[parts[2]], name, ""
	case parts[2] == "rotationpolicy":
		return map[string]string{http.MethodGet: "getrotationpolicy", http.MethodPut: "setrotationpolicy"}[m], name, ""
	case m == http.MethodGet && name == "":
		return "list", "", ""
	case m == http.MethodGet && parts[2] == "versions":
		return "versions", name, ""
	case m == http.MethodGet:
		return "get", name, parts[2]
	case m == http.MethodPut:
		return "import", name, ""
	case m == http.MethodPatch:
		return "update", name, parts[2]
	case m == http.MethodDelete:
		return "delete", name, ""
	}
	return "", "", ""
}

func (s *Server) handlers() map[string]func(*request) (any, error) {
	return map[string]func(*request) (any, error){
		"get": s.get, "wrapKey": s.wrap, "unwrapKey": s.unwrap,
		"create": s.create, "import": s.importKey, "update": s.update, "rotate": s.rotate,
		"backup": s.backup, "restore": s.restore, "delete": s.delete, "recover": s.recover, "purge": s.purge,
		"list": s.list, "versions": s.versions, "getdeleted": s.getDeleted, "listdeleted": s.listDeleted,
		"getrotationpolicy": s.getPolicy, "setrotationpolicy": s.setPolicy,
	}
}

func (r *request) key() vault.KeyID { return vault.KeyID{Name: r.name, Version: r.version} }

func (r *request) read(v any) error {
	err := json.Unmarshal(r.body, v)
	if _, ok := errors.AsType[base64.CorruptInputError](err); ok {
		return badParameter("Content of 'value' is not base64url.")
	}
	if err != nil {
		return badParameter("The request body is not valid JSON.")
	}
	return nil
}

func (s *Server) get(r *request) (any, error) {
	k, err := s.vault.As(r.who.name).GetKey(r.Context(), r.key())
	if err != nil {
		return nil, err
	}
	return s.bundle(k), nil
}

func (r *request) operation() (operation, error) {
	var o operation
	if err := r.read(&o); err != nil {
		return o, err
	}
	if o.Algorithm != "RSA-OAEP-256" {
		return o, badParameter("Algorithm " + o.Algorithm + " is not supported.")
	}
	return o, nil
}

func (s *Server) wrap(r *request) (any, error) {
	o, err := r.operation()
	if err != nil {
		return nil, err
	}
	w, err := s.vault.As(r.who.name).WrapKey(r.Context(), r.key(), o.Value)
	if err != nil {
		return nil, err
	}
	return operation{KID: s.kid(w.KeyID), Value: w.Ciphertext}, nil
}

func (s *Server) unwrap(r *request) (any, error) {
	o, err := r.operation()
	if err != nil {
		return nil, err
	}
	id := r.key()
	if id.Version == "" { // the current one, as at Key Vault
		current, err := s.vault.Versions(context.Background(), id.Name)
		if err != nil {
			return nil, err
		}
		id = current[len(current)-1].ID
	}
	secret, err := s.vault.As(r.who.name).UnwrapKey(r.Context(), vault.Wrapped{KeyID: s.full(id), Ciphertext: o.Value})
	if err != nil {
		return nil, err
	}
	return operation{KID: s.kid(id), Value: secret}, nil
}

// full returns id with the file vault's name for itself.
func (s *Server) full(id vault.KeyID) vault.KeyID {
	id.Vault = s.vault.ID()
	return id
}

// stamp is a moment at which something was served, and what it counted for.
type stamp struct {
	at     time.Time
	weight int
}

// throttled notes a request, unless that is one more than the limit permits.
func (s *Server) throttled(name string) bool {
	if s.opts.Limit == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	weight, now := 1, time.Now()
	if s.hsm[name] {
		weight = 2
	}
	sum := weight
	for len(s.served) > 0 && now.Sub(s.served[0].at) >= s.opts.LimitWindow {
		s.served = s.served[1:]
	}
	for _, t := range s.served {
		sum += t.weight
	}
	if sum > s.opts.Limit {
		return true
	}
	s.served = append(s.served, stamp{now, weight})
	return false
}
