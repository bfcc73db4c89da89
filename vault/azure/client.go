package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blockseal/blockseal/internal/quota"
	"github.com/blockseal/blockseal/vault"
)

// client is one azkeys client with one credential, and what its calls have in common.
// It is safe for concurrent use.
type client struct {
	url     string
	keys    *azkeys.Client
	opts    Options
	budget  *quota.Budget
	signIns *credential

	mu       sync.Mutex
	tenantID string          // that the vault named in its challenge
	software map[string]bool // names of keys: true if not in an HSM
}

func newClient(vaultURL string, cred azcore.TokenCredential, opts *Options) (*client, error) {
	u, err := parseVaultURL(vaultURL)
	if err != nil {
		return nil, err
	}
	if cred == nil {
		return nil, errors.New("azure: no credential; azidentity has several, NewDefaultAzureCredential among them")
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	budget, err := o.budgetOf(u)
	if err != nil {
		return nil, err
	}
	c := &client{url: u, opts: o, budget: budget, signIns: &credential{inner: cred}, software: map[string]bool{}}
	c.keys, err = azkeys.NewClient(u, c.signIns, o.clientOptions(&guard{budget: c.budget, clock: o.Clock, challenge: c.setTenant}))
	if err != nil {
		return nil, fmt.Errorf("azure: make the client: %w", err)
	}
	return c, nil
}

// begin takes an operation's place in the queue for the budget, or says why its turn
// would come too late for ctx. run goes on with it.
func (c *client) begin(ctx context.Context, op vault.Operation, id vault.KeyID) (*call, error) {
	cl := &call{op: op, id: id, units: c.weight(id.Name), first: vault.Priority(ctx), sent: func() {}}
	cl.ends = c.opts.Clock.Elapsed() + c.opts.Timeout
	err := ctx.Err()
	if err == nil {
		cl.place, err = c.budget.Enter(cl.units, cl.first, c.needed(ctx, cl.ends), cl.ends)
	}
	if err != nil {
		return nil, c.fail(ctx, cl, err, false)
	}
	return cl, nil
}

// needed returns until when the answer is of use: not after ends, nor after ctx ends.
func (c *client) needed(ctx context.Context, ends time.Duration) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return min(ends, c.opts.Clock.Elapsed()+time.Until(d))
	}
	return ends
}

// board lets callers get on a flight of an operation.
func (c *client) board(ctx context.Context, op vault.Operation, id vault.KeyID) boarding {
	return func(have *call) (*call, error) {
		if have == nil {
			return c.begin(ctx, op, id)
		}
		if err := have.place.Refuses(c.needed(ctx, c.opts.Clock.Elapsed()+c.opts.Timeout)); err != nil {
			return nil, c.fail(ctx, &call{op: op, id: id}, err, false)
		}
		return have, nil
	}
}

// run makes an operation that was begun: it waits for the budget, bounds the time, asks
// again where the answer is in doubt (insist), and turns what goes wrong into an error of
// package vault. f may run several times.
func (c *client) run(ctx context.Context, cl *call, f func(context.Context) error) error {
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.opts.Clock.AfterFunc(cl.ends-c.opts.Clock.Elapsed(), func() { cancel(quota.ErrTimeUp) })()
	if err := cl.place.Wait(bounded); err != nil {
		return c.fail(ctx, cl, err, false)
	}
	cl.paid = true
	return c.insist(bounded, cl, func() error {
		err := f(withCall(bounded, cl))
		cl.clearBody()
		if err == nil {
			return nil
		}
		if _, judged := errors.AsType[*vault.Error](err); judged {
			return err // of an answer that was not believed
		}
		timedOut := ctx.Err() == nil && errors.Is(context.Cause(bounded), quota.ErrTimeUp)
		return c.fail(ctx, cl, err, timedOut)
	})
}

// do begins an operation and runs it.
func (c *client) do(ctx context.Context, op vault.Operation, id vault.KeyID, f func(context.Context) error) error {
	cl, err := c.begin(ctx, op, id)
	if err != nil {
		return err
	}
	return c.run(ctx, cl, f)
}

// own returns id with this vault's URL, or refuses it if it names another one.
func (c *client) own(op vault.Operation, id vault.KeyID) (vault.KeyID, error) {
	if id = id.Canonical(); id.Vault != "" && id.Vault != c.url {
		return id, refuse(op, id, vault.ErrKeyNotFound, "it is not a key of this vault, %s", c.url)
	}
	id.Vault = c.url
	if err := id.Validate(); err != nil {
		return id, invalid(op, id, err)
	}
	return id, nil
}

// maxKnown bounds what is remembered of keys by name or version. A vault has a few
// keys that are KEKs; who asks for thousands starts over.
const maxKnown = 1024

// weight returns what an operation with a key counts for. A key that has not been
// seen yet is taken to be in an HSM.
func (c *client) weight(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.software[name] {
		return 1
	}
	return quota.Heaviest
}

func (c *client) setSoftware(name string, software bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.software) >= maxKnown {
		clear(c.software)
	}
	c.software[name] = software
}

// managedHSM reports whether the vault is a managed HSM, whose every key is in it.
func (c *client) managedHSM() bool { return strings.Contains(c.url, ".managedhsm.") }

func (c *client) setTenant(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tenantID = id
}

// tenant returns the tenant that the vault named in its challenge, or "" before that.
func (c *client) tenant() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tenantID
}

func oaep(value []byte) azkeys.KeyOperationParameters {
	return azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256), Value: value}
}
