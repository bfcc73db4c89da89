package azure

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/blockseal/blockseal/vault"
)

// credential tells the errors of a credential from those of the vault. Both are an
// *azcore.ResponseError or one of the network, and a token endpoint that fails says
// nothing about a key.
type credential struct{ azcore.TokenCredential }

// GetToken implements azcore.TokenCredential.
func (c credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if cl, _ := ctx.Value(callKey{}).(*call); cl != nil {
		cl.signingIn = true // until it sends something; on the call's own goroutine
	}
	token, err := c.TokenCredential.GetToken(ctx, o)
	if err != nil {
		return azcore.AccessToken{}, &tokenError{err}
	}
	return token, nil
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

// noToken fills in e when the credential gave no token. The credential's own text is
// left out: it is another library's, about secrets.
func noToken(e *vault.Error, err error) {
	e.Detail = "the credential gave no token; check the identity's configuration and sign-in"
	var dns *net.DNSError
	var answer *azcore.ResponseError
	text := fmt.Sprintf("%T", innermost(err))
	code := aadsts.FindString(err.Error())
	switch {
	case code != "":
		e.Code, text = code, "refused by Microsoft Entra ID"
	case errors.As(err, &dns):
		text = clean(dns.Error(), "", 200)
	case errors.As(err, &answer):
		text = fmt.Sprintf("the token endpoint answered HTTP %d", answer.StatusCode)
	}
	e.Err = &hidden{text: text, err: err}
	if why, ok := refusedByEntra[code]; ok {
		e.Kind = vault.ErrAccessDenied
		e.Detail = "Microsoft Entra ID gives the caller's identity no token: " + why
	}
}
