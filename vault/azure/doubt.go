package azure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// doubt is a refusal that identities get now and then whose access nobody has taken
// away. A store that took the first for a revocation would lock; so it is asked again,
// within the call and within seconds, and only a refusal that repeats is one. See
// docs/adr/0009.
type doubt struct {
	answer string // as docs/azure.md names it
	is     func(r refusal) bool
	redial bool   // it is about the way that the request came: asked again on a new connection
	why    string // it comes and goes
	source string
}

// refusal is what a doubt is recognised by.
type refusal struct {
	status int    // of the vault's answer; 0: Microsoft Entra ID gave no token
	code   string // the telling one of the vault's two, or Entra's
	text   string // of a 401: message and codes
}

// doubts is the one list of what is asked about again. The first that fits counts.
// What is not in it is believed at once: of what an administrator does to a key or a
// role, Key Vault speaks with one voice.
func doubts() []doubt {
	unaccepted := func(text string) func(refusal) bool {
		find := regexp.MustCompile(`(?i)` + text)
		return func(r refusal) bool { return r.status == 401 && find.MatchString(r.text) }
	}
	forbidden := func(code string) func(refusal) bool {
		return func(r refusal) bool { return r.status == 403 && r.code == code }
	}
	noToken := func(code string) func(refusal) bool {
		return func(r refusal) bool { return r.status == 0 && r.code == code }
	}
	return []doubt{
		{answer: "401 AKV10046", is: unaccepted(`\bAKV10046\b`),
			why:    "one of Key Vault's servers does not have the key that Microsoft Entra ID signed the token with; others take the same token in the same second",
			source: "Azure-Samples/azuresandbox#362, hashicorp/terraform-provider-azurerm#30912"},
		{answer: "401 S2S12086", is: unaccepted(`\bS2S12086\b`),
			why:    "not documented; reported for identities whose next request is served",
			source: "Azure/azure-sdk-for-python#27266"},
		{answer: "401, token not yet valid", is: unaccepted(`\bnot yet valid\b`),
			why:    "the clock of one of Key Vault's servers is behind that of Microsoft Entra ID",
			source: "Azure/azure-sdk-for-java#26624"},
		{answer: "401 with any other code but AKV10032 and AKV10022", is: func(r refusal) bool {
			return r.status == 401 && !slices.Contains([]string{"AKV10032", "AKV10022"}, akv.FindString(r.text))
		},
			why:    "a 401 is about the token that came with the request and not about the key, and how tokens are checked changes without notice; issuer and audience are in the token, and do not come and go",
			source: "the reports above"},
		{answer: "403 ForbiddenByConnection", is: forbidden("ForbiddenByConnection"), redial: true,
			why:    "the request came by the public network, as when one of two name servers does not have the private zone",
			source: "Azure Private Endpoint DNS configuration"},
		{answer: "403 ForbiddenByFirewall", is: forbidden("ForbiddenByFirewall"), redial: true,
			why:    "the same with a firewall in place of a closed door, or one of several outbound addresses that is not in the rules",
			source: "Configure Azure Key Vault networking settings"},
		{answer: "AADSTS70021", is: noToken("AADSTS70021"),
			why:    "a copy of the directory does not have the federated credential yet",
			source: "Important considerations for federated identity credentials; kedacore/keda#8152"},
		{answer: "AADSTS700211", is: noToken("AADSTS700211"),
			why:    "the same, of the issuer",
			source: "Azure/azure-workload-identity#1200"},
		{answer: "AADSTS700213", is: noToken("AADSTS700213"),
			why:    "the same, of the subject",
			source: "kedacore/keda#8152"},
	}
}

// askings is how often a question is put before a refusal in doubt counts as one: with
// one answer in ten wrong by chance, one in a hundred thousand questions is refused.
const askings = 5

// pauses are the waits between the askings, before jitter: 4.5 s in all, which leaves
// half of DefaultTimeout to the answers.
func pauses() [askings - 1]time.Duration {
	return [...]time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond, 1500 * time.Millisecond}
}

// pause is how long to wait before asking for the n-th time again, with time left:
// never more than a quarter of that, so that a short Timeout has its askings too. Up to a
// quarter more or less is chance: a hundred stores that were refused together do not
// ask together.
func pause(n int, left time.Duration) time.Duration {
	d := max(min(pauses()[n-1], left/4), 0) // an answer may have come when the time was up
	return d - d/4 + rand.N(d/2+1)
}

// doubtOf returns the doubt that there is about the error that a call came back with,
// or nil.
func doubtOf(cl *call, err error) *doubt {
	e, ok := errors.AsType[*vault.Error](err)
	if !ok || !vault.Denied(e) || cl.refused == (refusal{}) {
		return nil
	}
	for _, d := range doubts() {
		if d.is(cl.refused) {
			return &d
		}
	}
	return nil
}

// insist puts a question until it is answered otherwise than by a refusal in doubt, or
// such a refusal has been repeated often enough. A doubt that is not resolved in time is
// no denial: nothing was learned, and a store's lease bounds what that costs.
func (c *client) insist(ctx context.Context, cl *call, ask func() error) error {
	var before *vault.Error
	for n := 1; ; n++ {
		err := ask()
		d := doubtOf(cl, err)
		if d == nil {
			return inDoubt(err, before)
		}
		e, _ := errors.AsType[*vault.Error](err)
		if n == askings {
			e.Detail = strings.TrimSuffix(e.Detail, ".") + fmt.Sprintf(" (%d times in a row)", n)
			return e
		}
		if err := c.sleep(ctx, pause(n, cl.ends-c.opts.Clock.Elapsed())); err != nil {
			return inDoubt(&vault.Error{Op: cl.op, Key: cl.id, Kind: vault.ErrUnavailable, RequestID: e.RequestID, Err: err}, e)
		}
		before = e
		cl.again(d.redial)
	}
}

// sleep waits for d, or returns why ctx ended.
func (c *client) sleep(ctx context.Context, d time.Duration) error {
	rang := make(chan struct{})
	defer c.opts.Clock.AfterFunc(d, func() { close(rang) })()
	select {
	case <-rang:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inDoubt returns the error that an asking ended with, and, if that says nothing about
// the key, with what was said before. Of that it takes the words alone: an error that
// matches a denial would be one.
func inDoubt(err error, before *vault.Error) error {
	e, ok := errors.AsType[*vault.Error](err)
	if before == nil || !ok || vault.Denied(e) {
		return err
	}
	said := fmt.Sprintf("refused before, which was not confirmed: %s", before.Detail)
	if before.Code != "" {
		said += " [" + before.Code + "]"
	}
	if before.Err != nil {
		said += ": " + before.Err.Error()
	}
	if e.Detail != "" {
		said = e.Detail + "; " + said
	}
	e.Detail = said
	return e
}
