package azure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/blockseal/blockseal/vault"
)

// signInFor bounds a sign-in, which is longer than a call: see credential.
const signInFor = time.Minute

// credential tells the errors of a credential from those of the vault. Both are an
// *azcore.ResponseError or one of the network, and a token endpoint that fails says
// nothing about a key.
//
// A sign-in is no call's own: it goes on for up to signInFor when the call that began it
// has ended, and those who come meanwhile wait for the same one. So a credential that
// needs longer than a call comes to its end, and what it ends with is there for the next
// one; and of a credential that does not heed its context, one goroutine is left behind
// and not one a call.
type credential struct {
	inner azcore.TokenCredential

	mu      sync.Mutex
	current *signIn
	failed  error // what the last sign-in that ended came back with
}

// signIn is one GetToken of the inner credential. token and err are valid when done is
// closed.
type signIn struct {
	asked string
	began time.Time
	heard heard
	done  chan struct{}
	token azcore.AccessToken
	err   error
}

// GetToken implements azcore.TokenCredential.
func (c *credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	cl, _ := ctx.Value(callKey{}).(*call)
	if cl != nil {
		cl.signingIn = true // until it sends something; on the call's own goroutine
	}
	s := c.join(ctx, o)
	select {
	case <-s.done:
	case <-ctx.Done():
		return azcore.AccessToken{}, ctx.Err()
	}
	c.mu.Lock()
	if c.current == s {
		c.current = nil // the client keeps the token; who comes next signs in anew
	}
	c.mu.Unlock()
	if s.err != nil {
		return azcore.AccessToken{}, &tokenError{s.err}
	}
	return s.token, nil
}

// join returns the sign-in that is under way, or that ended when nobody waited for it
// any more, if it is for the same; otherwise it begins one.
func (c *credential) join(ctx context.Context, o policy.TokenRequestOptions) *signIn {
	asked := fmt.Sprintf("%q %q %q %v", o.Scopes, o.TenantID, o.Claims, o.EnableCAE)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.current; s != nil && s.asked == asked && s.useful() {
		return s
	}
	s := &signIn{asked: asked, began: time.Now(), done: make(chan struct{})}
	c.current = s
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signInFor)
		defer cancel()
		s.token, s.err = c.inner.GetToken(s.heard.trace(ctx), o)
		c.mu.Lock()
		c.failed = s.err
		c.mu.Unlock()
		close(s.done)
	}()
	return s
}

// useful reports whether a sign-in is under way, and not for longer than it may take, or
// has a token that is good for a while. One that does not heed its context is left behind.
func (s *signIn) useful() bool {
	select {
	case <-s.done:
		return s.err == nil && time.Until(s.token.ExpiresOn) > signInFor
	default:
		return time.Since(s.began) < signInFor
	}
}

// known says what is known of why a sign-in takes long: what became of its connections,
// or what the one before ended with. "" is nothing.
func (c *credential) known() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		if err := c.current.heard.why(); err != nil {
			return clean(err.Error(), "", 200)
		}
	}
	if c.failed != nil {
		return "the sign-in before failed: " + whyNoToken(c.failed)
	}
	return ""
}

// tokenError is an error of a credential.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// NonRetriable keeps azcore from trying again: a credential tries by itself as often as
// is of use.
func (e *tokenError) NonRetriable() {}

var aadsts = regexp.MustCompile(`AADSTS[0-9]+`)

// refusedByEntra holds the codes with which Microsoft Entra ID says that an identity
// may not have a token ("Microsoft Entra authentication and authorization error
// codes"). All others may pass: nothing is known then.
var refusedByEntra = map[string]string{
	"AADSTS50034":   "there is no such user in the tenant",
	"AADSTS50057":   "the user is disabled",
	"AADSTS50105":   "the identity is not assigned to the application",
	"AADSTS53003":   "a conditional access policy forbids it",
	"AADSTS70021":   "no federated identity credential matches",
	"AADSTS700016":  "the tenant has no such application; it may have been deleted",
	"AADSTS700027":  "the certificate is not the application's, or expired",
	"AADSTS700211":  "no federated identity credential matches the issuer",
	"AADSTS700213":  "no federated identity credential matches the subject",
	"AADSTS7000112": "the application is disabled",
	"AADSTS7000215": "the client secret is wrong",
	"AADSTS7000222": "the client secret expired",
	"AADSTS90002":   "there is no such tenant",
}

// noToken fills in e when the credential gave no token.
func noToken(e *vault.Error, cl *call, err error) {
	e.Detail = "the credential gave no token; check the identity's configuration and sign-in"
	code := aadsts.FindString(err.Error())
	e.Code = code
	e.Err = &hidden{text: whyNoToken(err), err: err}
	if why, ok := refusedByEntra[code]; ok {
		e.Kind = vault.ErrAccessDenied
		e.Detail = "Microsoft Entra ID gives the caller's identity no token: " + why
		cl.refused = refusal{code: code}
	}
}

// slowToken fills in e when the time of a call was up while it waited for its token.
func (c *client) slowToken(e *vault.Error) {
	e.Detail = fmt.Sprintf("the credential gave no token within %v; if it needs longer, raise azure.Options.Timeout, and keyring.Options.VaultTimeout above that", c.opts.Timeout)
	e.Err = context.DeadlineExceeded
	if why := c.signIns.known(); why != "" {
		e.Err = &hidden{text: why, err: context.DeadlineExceeded}
	}
}

// What other libraries' texts say of a sign-in that got no answer of Microsoft Entra
// ID's: in the form of a url.Error ("Post "URL": reason"), or as a response's status.
var (
	viaURL   = regexp.MustCompile(`(?:Get|Post) "https?://[^"]*": ([^\r\n]{1,200})`)
	response = regexp.MustCompile(`\bRESPONSE ([1-5][0-9][0-9])\b`)
)

// whyNoToken says why a credential gave no token, as far as the network, a status or a
// code of Microsoft Entra ID say it. All other text of a credential's is left out: it is
// another library's, about secrets.
func whyNoToken(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var answer *azcore.ResponseError
	var via *url.Error
	switch {
	case aadsts.MatchString(err.Error()):
		return "refused by Microsoft Entra ID"
	case errors.As(err, &dns):
		return clean(dns.Error(), "", 200)
	case errors.As(err, &answer):
		return fmt.Sprintf("the token endpoint answered HTTP %d", answer.StatusCode)
	case errors.As(err, &via):
		return clean(innermost(via).Error(), "", 200)
	case errors.As(err, &op):
		return clean(op.Error(), "", 200)
	}
	text := err.Error()
	if m := viaURL.FindAllStringSubmatch(text, -1); m != nil {
		return clean(untroubled(m[len(m)-1][1]), "", 200) // of several that wrap one another, the innermost
	}
	if m := response.FindStringSubmatch(text); m != nil {
		return "the token endpoint answered HTTP " + m[1]
	}
	return fmt.Sprintf("%T", innermost(err))
}

var troubleshoot = regexp.MustCompile(`\.? To troubleshoot, visit .*$`)

// untroubled leaves out azidentity's link.
func untroubled(text string) string { return troubleshoot.ReplaceAllString(text, "") }
