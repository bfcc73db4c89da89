package azure

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/blockseal/blockseal/internal/quota"
	"github.com/blockseal/blockseal/vault"
)

// call is one operation on its way through the client: what it costs, and what came
// back. It travels in the context of the operation. The client works on a call from
// one goroutine at a time.
type call struct {
	op    vault.Operation
	id    vault.KeyID
	units int
	first bool          // it goes before those that are not
	place *quota.Place  // of the first request
	paid  bool          // the first request is paid for before the client starts
	ends  time.Duration // when the operation's time is up
	sent  func()        // called before each request
	last  *answer       // the last complete answer that was an error
	cut   error         // why the last request had no answer; nil if it had one
	body  *http.Response
	date  time.Time // when the last answer was made, by the vault's clock; zero: it did not say

	refused     refusal // what the vault, or Microsoft Entra ID, refused it with
	redial      bool    // its requests leave no connection behind
	unexplained bool    // a 403 whose code does not say why
	signingIn   bool    // it waits for its credential
}

// again makes the call ready to ask anew. A request that leaves no connection behind may
// still take one that is open; the one after it is on a new one.
func (c *call) again(redial bool) {
	c.last, c.cut, c.body, c.refused = nil, nil, nil, refusal{}
	c.unexplained, c.signingIn, c.redial = false, false, redial
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// clearBody overwrites the body of the last answer, which may hold a secret. The
// copies that the decoding of JSON and the TLS connection made cannot be reached.
func (c *call) clearBody() {
	if c.body != nil {
		if b, err := runtime.Payload(c.body); err == nil {
			clear(b)
		}
	}
}

// challenged reports whether the vault's last answer is a challenge, which the client has
// not answered yet.
func (c *call) challenged() bool { return c.last != nil && c.last.status == http.StatusUnauthorized }

// answer is what is kept of an error that the vault answered with.
type answer struct {
	status     int
	outer      string // error.code
	inner      string // error.innererror.code
	message    string // one line, without tokens; see clean
	requestID  string
	retryAfter time.Duration
	known      bool // the body is one of Key Vault's
}

// guard is the policy that every request passes, each retry and each answer to a
// challenge too, after the client's own policies and before the transport.
type guard struct {
	budget    *quota.Budget
	clock     vault.Clock
	challenge func(tenant string) // told the tenant that the vault names
}

// Do implements policy.Policy.
func (g *guard) Do(req *policy.Request) (*http.Response, error) {
	c, _ := req.Raw().Context().Value(callKey{}).(*call)
	if c == nil {
		return nil, errors.New("azure: a request outside a call")
	}
	ctx := req.Raw().Context()
	if !c.paid {
		// What answers the challenge is the same operation, which has had its turn.
		p, err := g.budget.Enter(c.units, c.first || c.challenged(), c.ends, c.ends)
		if err == nil {
			err = p.Wait(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	c.paid, c.signingIn = false, false
	if c.challenged() {
		c.last = nil // the client has taken the challenge
	}
	c.sent()
	req.Raw().Close = req.Raw().Close || c.redial
	resp, err := req.Next()
	if err != nil {
		if ctx.Err() == nil { // it is known what happened, should the time be up before the next try
			c.cut = err
		}
		return resp, err
	}
	c.cut = nil
	token := strings.TrimPrefix(req.Raw().Header.Get("Authorization"), "Bearer ")
	id := clean(resp.Header.Get("x-ms-request-id"), token, 64)
	vault.NoteRequestID(ctx, id)
	c.body = resp
	c.date, _ = http.ParseTime(resp.Header.Get("Date")) // zero if it is none
	if resp.StatusCode < http.StatusBadRequest {
		g.budget.Answered()
		return resp, nil
	}
	c.last = readAnswer(resp, token, g.clock.Now())
	c.last.requestID = id
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		g.budget.Throttled(c.last.retryAfter)
		if c.last.retryAfter > c.ends-g.clock.Elapsed() {
			return nil, &quota.Closed{RetryAfter: c.last.retryAfter}
		}
	case http.StatusUnauthorized:
		g.budget.Answered()
		return resp, g.checkChallenge(resp.Header.Get("WWW-Authenticate"))
	default:
		g.budget.Answered()
	}
	return resp, nil
}

// badChallenge says that the vault's challenge is none that can be answered.
type badChallenge struct{}

func (badChallenge) Error() string {
	return "the vault's authentication challenge names no authority and tenant"
}
func (badChallenge) NonRetriable() {}

// checkChallenge checks that a challenge has the one form that azkeys v1.5.0 takes:
//
//	Bearer authorization="https://HOST/TENANT", resource="https://..."
//
// It is taken apart as azkeys does, which would index out of range where the authority
// has another number of slashes.
func (g *guard) checkChallenge(header string) error {
	authority, found := "", false
	for part := range strings.SplitSeq(strings.ReplaceAll(header, "Bearer ", ""), " ") {
		if f := strings.Split(part, "="); len(f) == 2 && f[0] == "authorization" {
			authority, found = strings.TrimSuffix(strings.ReplaceAll(f[1], `"`, ""), ","), true // the last one counts
		}
	}
	if !found {
		return nil // a challenge of another kind, such as insufficient claims, or none
	}
	u, err := url.Parse(authority)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return badChallenge{}
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if tenant == "" {
		return badChallenge{}
	}
	if g.challenge != nil {
		g.challenge(tenant)
	}
	return nil
}

// readAnswer reads an error. Key Vault's have the form
//
//	{"error": {"code": "Forbidden", "message": "...", "innererror": {"code": "KeyDisabled"}}}
//
// where the inner error may be missing, or be spelt innerError.
// token is the request's, which has no business in the answer.
func readAnswer(resp *http.Response, token string, now time.Time) *answer {
	a := &answer{status: resp.StatusCode, retryAfter: retryAfter(resp.Header, now)}
	body, err := runtime.Payload(resp)
	if err != nil {
		return a
	}
	type code struct {
		Code string `json:"code"`
	}
	var e struct {
		Error struct {
			Code       string `json:"code"`
			Message    string `json:"message"`
			InnerError code   `json:"innererror"` // encoding/json matches either spelling
		} `json:"error"`
	}
	if json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &e) != nil {
		return a
	}
	a.known = e.Error.Code != ""
	a.outer = clean(e.Error.Code, token, 64)
	a.inner = clean(e.Error.InnerError.Code, token, 64)
	a.message = clean(e.Error.Message, token, 600)
	return a
}

// retryAfter reads how long the vault asks to be left alone: seconds or a date (RFC
// 9110, section 10.2.3), or one of Azure's headers in milliseconds.
func retryAfter(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"retry-after-ms", "x-ms-retry-after-ms"} {
		if n, err := strconv.Atoi(h.Get(name)); err == nil && n > 0 {
			return time.Duration(min(n, maxRetryAfter*1000)) * time.Millisecond
		}
	}
	s := h.Get("Retry-After")
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return time.Duration(min(n, maxRetryAfter)) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(t.Sub(now), 0), maxRetryAfter*time.Second)
	}
	return 0
}

// maxRetryAfter bounds, in seconds, what is believed of a Retry-After: a day.
const maxRetryAfter = 24 * 60 * 60
