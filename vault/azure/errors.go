package azure

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/internal/quota"
	"github.com/blockseal/blockseal/vault"
)

// What a key administrator is answered that package vault has no word for. Match with
// [errors.Is]; such an error is a [vault.Error], as all are.
var (
	// ErrInvalid says that an argument cannot be right, or that Key Vault did not
	// accept it; the text says which.
	ErrInvalid = keyfile.ErrInvalid
	// ErrCorrupt says that a file to import is truncated, damaged or edited.
	ErrCorrupt = keyfile.ErrCorrupt
	// ErrWrongPassword says that a file to import is encrypted, and the password is
	// missing or wrong.
	ErrWrongPassword = keyfile.ErrWrongPassword
	// ErrFIPS says that something is not possible under GODEBUG=fips140=only.
	ErrFIPS = keyfile.ErrFIPS
	// ErrBusy says that a deletion or recovery of the key is under way; try again in
	// a few seconds.
	ErrBusy = errors.New("an operation on the key is under way")
	// ErrIgnored says that Key Vault answered a change with success and did not make it,
	// or not all of it.
	ErrIgnored = errors.New("accepted, and not done")
	// ErrNotSeen says that Key Vault accepted a deletion or a recovery, and that it was
	// not seen to be done yet: look later, it need not be asked for again.
	ErrNotSeen = errors.New("accepted, and not seen to be done yet")
)

// fail returns the error of an operation, from what the client returned and what the
// vault answered last.
func (c *client) fail(ctx context.Context, cl *call, err error, timedOut bool) error {
	e := &vault.Error{Op: cl.op, Key: cl.id, Kind: vault.ErrUnavailable}
	var token *tokenError
	var gate *quota.Closed
	var bad badChallenge
	switch {
	case errors.As(err, &token): // before isAnswer: Microsoft Entra ID's answer is not the vault's
		noToken(e, cl, token.err)
	case isAnswer(err) && cl.last != nil:
		c.answered(e, cl)
	case errors.As(err, &gate):
		e.Kind, e.Code, e.Detail = vault.ErrThrottled, "Throttled", "too many requests to this vault"
		e.RetryAfter = gate.RetryAfter
		if cl.last != nil {
			e.RequestID = cl.last.requestID
		}
	case (timedOut || errors.Is(err, quota.ErrNoTurn)) && cl.cut == nil && cl.last != nil && silence(cl.last.status):
		c.answered(e, cl) // the last that was heard
	case errors.Is(err, quota.ErrNoTurn):
		e.Kind = vault.ErrThrottled
		whose := "this client's own budget"
		if c.opts.Budgets != nil {
			whose = "the budget that this program's clients of it share,"
		}
		e.Detail = fmt.Sprintf("not by the vault: %s of %d operations in 10 seconds is spent for longer than the call has time; make fewer calls at once, give them more time, or raise Options.Budget if the vault has room", whose, c.opts.Budget)
	case ctx.Err() != nil && !timedOut:
		e.Err = ctx.Err()
	case timedOut && cl.signingIn:
		c.slowToken(e)
	case timedOut && cl.cut != nil:
		unanswered(e, cl, cl.cut) // the last that is known
	case timedOut:
		e.Detail = fmt.Sprintf("no answer within %v", c.opts.Timeout)
		e.Err = context.DeadlineExceeded
	case errors.As(err, &bad):
		e.Detail = bad.Error() + "; check that the URL is a Key Vault's and what stands between"
	default:
		unanswered(e, cl, err)
	}
	return e
}

// silence reports whether a status says nothing about the key.
func silence(status int) bool { return status == 408 || status == 429 || status >= 500 }

// answered fills in e from the last answer of the vault, which is an error.
func (c *client) answered(e *vault.Error, cl *call) {
	a := cl.last
	e.RequestID = a.requestID
	if e.Code = a.outer; e.Code == "" {
		e.Code = fmt.Sprintf("HTTP %d", a.status)
	}
	if a.inner != "" && a.inner != a.outer {
		e.Code += "/" + a.inner
	}
	switch {
	case a.status == 429:
		e.Kind, e.RetryAfter = vault.ErrThrottled, a.retryAfter
		e.Detail = "too many requests to this vault"
	case a.status >= 500, a.status == 408:
		e.Detail = "the vault service failed, try again later"
	case !a.known:
		// A proxy, a portal, a load balancer: the vault did not say it, and nothing is
		// known about the key.
		e.Detail = "something that is not a Key Vault answered; check the URL, and what stands between"
	case a.status == 401:
		c.unauthorized(e, cl)
	case a.status == 403:
		cl.unexplained = !c.forbidden(e, cl)
	case a.status == 404:
		notFound(e)
	case a.status == 400:
		badRequest(e, a)
	case a.status == 409:
		conflict(e, a)
	default:
		e.Detail = "an answer that Key Vault does not give; check the URL, and what stands between"
	}
}

func badRequest(e *vault.Error, a *answer) {
	switch e.Op {
	case vault.OpUnwrapKey:
		e.Kind = vault.ErrBadCiphertext
		e.Detail = "it was wrapped by another key version, or altered"
	case vault.OpWrapKey:
		e.Kind = vault.ErrUnsupportedKey
		e.Detail = "the key does not take RSA-OAEP-256; it must be RSA-2048"
	case vault.OpGet:
		e.Kind = vault.ErrKeyNotFound
		e.Detail = "the vault does not take this name or version"
	default:
		e.Kind = ErrInvalid
		e.Detail = "the vault did not accept it"
	}
	quote(e, a)
}

func notFound(e *vault.Error) {
	e.Kind = vault.ErrKeyNotFound
	switch {
	case e.Key.Version != "":
		e.Detail = "the key has no such version, or was deleted; a deleted key can be recovered until it is purged"
	default:
		e.Detail = "there is no such key, or it was deleted; a deleted key can be recovered until it is purged"
	}
}

func conflict(e *vault.Error, a *answer) {
	code := a.inner
	if code == "" {
		code = a.outer
	}
	dataPlane := e.Op == vault.OpGet || e.Op == vault.OpWrapKey || e.Op == vault.OpUnwrapKey
	if code == "ObjectIsDeletedButRecoverable" {
		e.Kind = vault.ErrKeyDeleted
		e.Detail = "recover the key to use it, or purge it to free its name"
		if e.Key.Name == "" { // of a backup, which only the vault can read
			quote(e, a)
		}
		return
	}
	switch busy := code == "ObjectIsBeingDeleted" || code == "ObjectIsBeingRecovered"; {
	case busy && dataPlane: // it says nothing of how that ends
		e.Detail, e.Err = "try again in a few seconds", ErrBusy
	case busy:
		e.Kind, e.Detail = ErrBusy, "try again in a few seconds"
	case dataPlane: // nothing else that is asked of a key in use conflicts with anything
		e.Detail = "an answer that Key Vault does not give; check the URL, and what stands between"
	default:
		e.Kind = vault.ErrKeyExists
		quote(e, a)
	}
}

// said is a text of the vault's as a cause, one line and without tokens.
type said string

func (s said) Error() string { return "Key Vault says: " + string(s) }

// quote gives e the vault's own text as its cause, if there is one.
func quote(e *vault.Error, a *answer) {
	if a.message != "" {
		e.Err = said(a.message)
	}
}

// isAnswer reports whether err is the client's way of saying that the vault answered
// with an error. Its text is never used: it holds the whole body.
func isAnswer(err error) bool {
	_, ok := errors.AsType[*azcore.ResponseError](err)
	return ok
}

// unanswered fills in e from an error without an answer: the network, an answer that
// could not be read, or one that the client did not take.
func unanswered(e *vault.Error, cl *call, err error) {
	var dns *net.DNSError
	var host *tls.CertificateVerificationError
	var op *net.OpError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		e.Detail = "the vault's host name does not resolve; the vault may have been deleted, and then needs to be recovered, or its private DNS zone is not linked to this network"
		e.Err = dns
	case errors.As(err, &dns):
		e.Detail = "the vault's host name cannot be looked up, check the network's name servers"
		e.Err = dns
	case errors.As(err, &host):
		e.Detail = "the vault's certificate is not trusted; something between may be inspecting TLS, or the private endpoint has another name"
		e.Err = host
	case errors.As(err, &op):
		e.Detail = "the vault cannot be reached, check the network"
		e.Err = op
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF), isMalformed(err):
		e.Detail = "the vault's answer is cut short or malformed"
	case isTransport(err):
		e.Detail = "the vault cannot be reached, check the network"
		e.Err = errors.New(clean(innermost(err).Error(), "", 200))
	case cl.challenged():
		// The client has looked at the vault's challenge, and sends its token to nobody
		// whose name it does not know.
		e.Detail = "the client refused the vault's challenge; check that the URL is a Key Vault's, and of the cloud that the challenge names"
		e.Err = errors.New(clean(err.Error(), "", 200))
	default:
		e.Detail = "the client could not do what was asked; check its options, and what stands between it and the vault"
		e.Err = &hidden{text: fmt.Sprintf("%T", innermost(err)), err: err}
	}
}

func isTransport(err error) bool {
	_, ok := errors.AsType[*url.Error](err)
	return ok || errors.Is(err, io.EOF)
}

// innermost returns what is below the last url.Error, which repeats the URL.
func innermost(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return innermost(u.Err)
	}
	return err
}

// isMalformed recognises azcore's and azkeys' errors of decoding, which wrap nothing.
func isMalformed(err error) bool {
	return strings.HasPrefix(err.Error(), "unmarshalling type ")
}

// hidden keeps another library's error findable, and its text, which may have secrets,
// out of every text.
type hidden struct {
	text string
	err  error
}

func (e *hidden) Error() string { return e.text }
func (e *hidden) Unwrap() error { return e.err }

// invalid returns the error of an argument that cannot be right.
func invalid(op vault.Operation, id vault.KeyID, err error) error {
	return &vault.Error{Op: op, Key: id, Kind: ErrInvalid, Err: err}
}

// refuse returns the error of an operation that the vault was not asked for, or whose
// answer was not believed.
func refuse(op vault.Operation, id vault.KeyID, kind error, format string, args ...any) error {
	return &vault.Error{Op: op, Key: id, Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
