package azure

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/internal/quota"
	"github.com/blockseal/blockseal/vault"
)

// What Key Vault documents ("Azure Key Vault service limits"), and what is made of
// it here.
const (
	// DocumentedLimit is how many operations with RSA-2048 software keys a vault
	// serves in 10 seconds, all callers together. An operation with an RSA-2048 key
	// in an HSM counts twice: the limit for those is 2,000.
	DocumentedLimit = 4000

	DefaultBudget  = DocumentedLimit / 2
	MinBudget      = 10
	DefaultTimeout = 9 * time.Second

	// DefaultLocalWrapAge is how long a public key is used by WrapLocally before the
	// vault is asked again.
	DefaultLocalWrapAge = time.Minute
)

// Options configure a [Vault]. A nil *Options, and each zero field,
// means the default that the field states.
type Options struct {
	// ClientOptions are the client's: cloud, retries, transport, tracing, logging.
	// Default: azcore's. Two things are not left to them: bodies are never logged,
	// because they carry the secrets that are wrapped, and every request, a retry
	// too, is charged to the Budget. A tracing provider gets a span for each operation
	// and each request; that of an operation that failed holds the vault's error body.
	ClientOptions azkeys.ClientOptions

	// Timeout bounds each call, with its wait for the budget and its retries. Default: 9
	// seconds, a little less than a keyring waits, so that the reason for a silence that
	// is known here (503, DNS) is the one that is reported.
	Timeout time.Duration

	// Budget is how many operations are sent in any 10 seconds at most, in units of
	// one operation with an RSA-2048 software key; an operation with a key that is in
	// an HSM, or not known to be in software, takes 2. Callers wait their turn, first
	// come first served, after those of [vault.WithPriority]. A caller whose turn would
	// come in the last quarter of its time or later, by its context's deadline or
	// Timeout, is refused at once with [vault.ErrThrottled]; one that gives up leaves its
	// turn to others. Divide what the vault serves among the processes that share it. At
	// least 10. Default: 2,000, half of the documented limit.
	Budget int
	// Budgets shares the Budget: all clients of one vault with the same Budgets send as much
	// together as one of them may, and none sends anything while the vault asks for a pause.
	// Their Budget is the same number. A program that makes a client for each of its tenants, each
	// with an identity of its own, has one Budgets. Default: none, and the Budget is the client's own.
	Budgets *Budgets

	// WrapLocally makes WrapKey encrypt in this process with the public key, after
	// the vault has shown that it unwraps what that key wraps: wrapping then costs no
	// call. A version is used for [Options.LocalWrapAge] and then asked for again, so
	// that a rotation, a disabling or an expiry is noticed that much later by WrapKey
	// (the dates are kept to the second). The permission wrapKey is then not needed,
	// and its loss not noticed: in these two things a Vault is not as [vault.Vault]
	// says. Default: the vault wraps.
	WrapLocally bool
	// LocalWrapAge is for WrapLocally. Default: 1 minute.
	LocalWrapAge time.Duration

	// Clock is for tests. Default: that of Budgets, or the system's.
	Clock vault.Clock
}

// Budgets are the budgets of any number of vaults, for clients that share them. They are safe for
// concurrent use.
type Budgets struct {
	clock vault.Clock
	set   *quota.Set
}

// NewBudgets returns budgets for clients that have them in their [Options]. clock, which they then
// have as well, is for tests: nil is the system's.
func NewBudgets(clock vault.Clock) *Budgets {
	if clock == nil {
		clock = vault.SystemClock()
	}
	return &Budgets{clock: clock, set: quota.NewSet(clock)}
}

// budgetOf returns the budget of a client of a vault.
func (o *Options) budgetOf(vaultURL string) (*quota.Budget, error) {
	if o.Budgets == nil {
		return quota.New(o.Clock, o.Budget), nil
	}
	b, err := o.Budgets.set.Of(vaultURL, o.Budget)
	if err != nil {
		return nil, fmt.Errorf("azure: Options.Budget and another client's with the same Budgets differ: %w", err)
	}
	return b, nil
}

// withDefaults returns a copy of o with defaults filled in, or says what is wrong.
func (o *Options) withDefaults() (Options, error) {
	var f Options
	if o != nil {
		f = *o
	}
	if f.Timeout == 0 {
		f.Timeout = DefaultTimeout
	}
	if f.Budget == 0 {
		f.Budget = DefaultBudget
	}
	if f.LocalWrapAge == 0 {
		f.LocalWrapAge = DefaultLocalWrapAge
	}
	switch {
	case f.Budgets != nil && f.Clock != nil:
		return f, errors.New("azure: Options.Clock is that of Options.Budgets; give it to NewBudgets")
	case f.Budgets != nil:
		f.Clock = f.Budgets.clock
	case f.Clock == nil:
		f.Clock = vault.SystemClock()
	}
	switch {
	case f.Timeout < 0:
		return f, fmt.Errorf("azure: Options.Timeout is %v, want more than 0", f.Timeout)
	case f.Budget < MinBudget:
		return f, fmt.Errorf("azure: Options.Budget is %d, want at least %d operations in 10 seconds", f.Budget, MinBudget)
	case f.LocalWrapAge < 0:
		return f, fmt.Errorf("azure: Options.LocalWrapAge is %v, want more than 0", f.LocalWrapAge)
	}
	return f, nil
}

// clientOptions returns the client's options with p as the policy that every request
// passes, retries too. The caller's are not changed.
func (o *Options) clientOptions(p policy.Policy) *azkeys.ClientOptions {
	c := o.ClientOptions
	c.Logging.IncludeBody = false // bodies carry secrets in clear
	c.PerRetryPolicies = append(append([]policy.Policy(nil), c.PerRetryPolicies...), p)
	return &c
}

// parseVaultURL returns the vault's URL as it is in key identifiers: https, the host
// in lower case, the port unless it is 443, no trailing slash.
func parseVaultURL(s string) (string, error) {
	const want = `want the vault's URL, such as "https://contoso.vault.azure.net"`
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("azure: the vault URL cannot be parsed; %s", want) // err quotes what may be a secret put in the wrong place
	case u.User != nil:
		return "", fmt.Errorf("azure: the vault URL has a user or password; %s", want)
	case u.Scheme != "https":
		return "", fmt.Errorf("azure: the vault URL does not start with https://; %s", want)
	case u.Hostname() == "":
		return "", fmt.Errorf("azure: the vault URL has no host; %s", want)
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return "", fmt.Errorf("azure: the vault URL has more than a host; %s", want)
	}
	v := "https://" + strings.TrimSuffix(strings.ToLower(u.Host), ":443")
	if err := (vault.KeyID{Vault: v, Name: "n"}).Validate(); err != nil {
		return "", fmt.Errorf("azure: %w", err)
	}
	return v, nil
}
