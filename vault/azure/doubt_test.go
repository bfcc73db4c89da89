package azure_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
)

// doubtful is every kind of answer that is asked about again, as it comes, by the row of
// the table that it is of.
var doubtful = map[string]keyvaulttest.Fault{
	"401 AKV10046":             {Status: 401, Code: "Unauthorized", Message: "[TokenExpired] AKV10046: Unable to resolve the key used for signature validation."},
	"401 S2S12086":             {Status: 401, Code: "Unauthorized", Message: "Error validating token: 'S2S12086'"},
	"401, token not yet valid": {Status: 401, Code: "Unauthorized", Message: "Error validating token: 'S2S12005: Token not yet valid' (AKV10027)"},
	"401 with any other code but AKV10032 and AKV10022": {Status: 401, Code: "Unauthorized", Message: "AKV10001: Error validating token: IDX10511"},
	"403 ForbiddenByConnection":                         {Status: 403, Code: "Forbidden", Inner: "ForbiddenByConnection", Message: "Public network access is disabled."},
	"403 ForbiddenByFirewall":                           {Status: 403, Code: "Forbidden", Inner: "ForbiddenByFirewall", Message: "Client address is not authorized."},
}

// believed is what an administrator takes access away with. It counts at once.
var believed = map[string]keyvaulttest.Fault{
	"403 ForbiddenByRbac":       {Status: 403, Code: "Forbidden", Inner: "ForbiddenByRbac"},
	"403 AccessDenied":          {Status: 403, Code: "Forbidden", Inner: "AccessDenied"},
	"403 KeyDisabled":           {Status: 403, Code: "Forbidden", Inner: "KeyDisabled"},
	"403 KeyOperationForbidden": {Status: 403, Code: "KeyOperationForbidden"},
	"403 Forbidden":             {Status: 403, Code: "Forbidden"},
	"404 KeyNotFound":           {Status: 404, Code: "KeyNotFound"},
	"409 deleted":               {Status: 409, Code: "Conflict", Inner: "ObjectIsDeletedButRecoverable"},
	"401 AKV10032":              {Status: 401, Code: "Unauthorized", Message: "AKV10032: Invalid issuer."},
	"401 AKV10022":              {Status: 401, Code: "Unauthorized", Message: "AKV10022: Invalid audience."},
}

// entra is how Microsoft Entra ID refuses a token, by the table's row.
func entra(code string) error { return fmt.Errorf("WorkloadIdentityCredential: %s: no match", code) }

// The code's table is the document's, row by row, and each row is driven through the
// client by the tests below.
func TestTheTableOfDoubtsIsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/azure.md")
	require.NoError(t, err)
	_, after, ok := strings.Cut(string(text), "| asked about again | why it comes and goes | source |\n|---|---|---|\n")
	require.True(t, ok, "no table")
	table, _, _ := strings.Cut(after, "\n\n")
	var rows []string
	for _, d := range azure.Doubts() {
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |", d[0], d[1], d[2]))
		if !strings.HasPrefix(d[0], "AADSTS") {
			require.Contains(t, doubtful, d[0])
		}
	}
	require.Equal(t, strings.Join(rows, "\n"), strings.TrimSpace(table))
	require.Len(t, doubtful, len(rows)-3)
}

// openStore opens a store in a bubble, with its events on record.
func (r *rig) openStore(v *azure.Vault) (*block.Store, *story) {
	e := &story{}
	s, err := block.Open(r.t.Context(), "store", kek.New(v, r.key.Versionless()), &block.Options{
		Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20}, Keyring: keyring.Options{Clock: vault.SystemClock(), OnEvent: e.add}})
	require.NoError(r.t, err)
	require.NoError(r.t, s.Put(r.t.Context(), []byte("a"), []byte("data")))
	return s, e
}

// story is what became of a store.
type story struct {
	mu     sync.Mutex
	events []keyring.Event
}

func (s *story) add(e keyring.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// locked returns when the store became inaccessible; zero: never.
func (s *story) locked() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == keyring.StateChanged && e.To == keyring.Inaccessible {
			return e.Time
		}
	}
	return time.Time{}
}

// A refusal that comes and goes, once or several times in a row and to whichever of the
// three questions, locks nothing and is not even seen by who reads.
func TestADoubtThatPasses(t *testing.T) {
	for name, fault := range doubtful {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				s, e := r.openStore(r.client())
				defer func() { require.NoError(t, s.Close()) }()
				for _, op := range []string{"get", "wrapKey", "unwrapKey"} {
					for times := 1; times < azure.Askings; times++ {
						f := fault
						f.Op, f.Times = op, times
						r.Inject(f)
						before := r.Requests(op)
						require.NoError(t, s.Revalidate(t.Context()))
						require.Equal(t, times+1, r.Requests(op)-before)
						require.Equal(t, keyring.Available, s.State().Status)
						require.NoError(t, second(s.Get(t.Context(), []byte("a"), nil)))
					}
				}
				require.Zero(t, e.locked())
			})
		})
	}
}

// One answer in ten is wrong, for four hours: nothing is locked.
func TestOneAnswerInTen(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		transport := &tenth{Client: r.Client()}
		s, e := r.openStore(r.client(func(o *azure.Options) { o.ClientOptions.Transport = transport }))
		defer func() { require.NoError(t, s.Close()) }()
		transport.on.Store(true)
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		require.Equal(t, keyring.Available, s.State().Status)
		require.Zero(t, e.locked())
		require.Greater(t, transport.refused.Load(), int64(60))
	})
}

// tenth answers one request in ten as if it had come by the public network.
type tenth struct {
	*http.Client
	on         atomic.Bool
	n, refused atomic.Int64
}

func (d *tenth) Do(req *http.Request) (*http.Response, error) {
	resp, err := d.Client.Do(req)
	if err == nil && d.on.Load() && d.n.Add(1)%10 == 0 {
		d.refused.Add(1)
		return answerWith(req, resp, 403, `{"error":{"code":"Forbidden","message":"Public network access is disabled","innererror":{"code":"ForbiddenByConnection"}}}`), nil
	}
	return resp, err
}

// answerWith returns an answer in place of another.
func answerWith(req *http.Request, instead *http.Response, status int, body string) *http.Response {
	instead.Body.Close()
	h := http.Header{}
	h.Set("Content-Type", "application/json; charset=utf-8")
	return &http.Response{Request: req, StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// A refusal that repeats is one: the store is closed at the check that finds it, whatever
// the row. What is in doubt takes seconds longer, what is not takes none; both are measured
// here on a clock that stands still, and once on the real one below.
func TestARefusalThatRepeatsEndsAccess(t *testing.T) {
	ends := func(t *testing.T, lose func(r *rig), client func(r *rig) *azure.Vault, least, most time.Duration, kinds ...error) {
		bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
			s, e := r.openStore(client(r))
			defer func() { require.NoError(t, s.Close()) }()
			time.Sleep(90 * time.Second) // in the middle between checks
			synctest.Wait()
			require.Zero(t, e.locked())
			lost, last := time.Now(), s.State().LastCheck
			lose(r)
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			at := e.locked()
			require.NotZero(t, at)
			t.Logf("closed %v after access was taken away, %v after the check before", at.Sub(lost), at.Sub(last))
			require.GreaterOrEqual(t, at.Sub(last), 54*time.Second+least)
			require.LessOrEqual(t, at.Sub(last), keyring.DefaultCheckEvery+most)
			_, err := s.Get(t.Context(), []byte("a"), nil)
			require.ErrorIs(t, err, block.ErrInaccessible)
			for _, kind := range kinds {
				require.ErrorIs(t, err, kind)
			}
		})
	}
	usual := func(r *rig) *azure.Vault { return r.client() }
	for name, fault := range doubtful {
		t.Run(name, func(t *testing.T) {
			ends(t, func(r *rig) { r.Inject(fault) }, usual, 3*time.Second, 6*time.Second, vault.ErrAccessDenied)
		})
	}
	for name, fault := range believed {
		t.Run(name, func(t *testing.T) { ends(t, func(r *rig) { r.Inject(fault) }, usual, 0, 0) })
	}
	t.Run("the identity is deleted", func(t *testing.T) {
		ends(t, func(r *rig) { r.DeleteIdentity(store) }, usual, 3*time.Second, 6*time.Second, vault.ErrAccessDenied)
	})
	t.Run("the key version is disabled", func(t *testing.T) {
		ends(t, func(r *rig) { r.setEnabled(false) }, usual, 0, 0, vault.ErrKeyDisabled)
	})
	for _, code := range []string{"AADSTS70021", "AADSTS700211", "AADSTS700213"} {
		t.Run(code, func(t *testing.T) {
			var lost atomic.Bool
			ends(t, func(*rig) { lost.Store(true) }, func(r *rig) *azure.Vault {
				return r.signsIn(func(int) error {
					if lost.Load() {
						return entra(code)
					}
					return nil
				})
			}, 3*time.Second, 6*time.Second, vault.ErrAccessDenied)
		})
	}
}

// signsIn returns a client whose token is never kept, and whose n-th sign-in fails with
// what fails says.
func (r *rig) signsIn(fails func(n int) error) *azure.Vault {
	r.t.Helper()
	var n atomic.Int32
	inner := r.Credential(store)
	v, err := azure.New(r.URL(), credentialFunc(func(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
		if err := fails(int(n.Add(1))); err != nil {
			return azcore.AccessToken{}, err
		}
		token, err := inner.GetToken(ctx, o)
		token.ExpiresOn = time.Now().Add(time.Millisecond)
		return token, err
	}), r.options())
	require.NoError(r.t, err)
	return v
}

// A federation that fails now and then fails nobody, at Open neither.
func TestASignInThatIsRefusedNowAndThen(t *testing.T) {
	for _, code := range []string{"AADSTS70021", "AADSTS700211", "AADSTS700213"} {
		for name, fails := range map[string]func(n int) error{
			"the first":        func(n int) error { return when(n == 1, entra(code)) },
			"the first two":    func(n int) error { return when(n <= 2, entra(code)) },
			"every second one": func(n int) error { return when(n%2 == 0, entra(code)) },
		} {
			t.Run(code+"/"+name, func(t *testing.T) {
				bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
					s, e := r.openStore(r.signsIn(fails))
					defer func() { require.NoError(t, s.Close()) }()
					time.Sleep(10 * time.Minute)
					synctest.Wait()
					require.Equal(t, keyring.Available, s.State().Status)
					require.Zero(t, e.locked())
				})
			})
		}
	}
}

func when(yes bool, err error) error {
	if yes {
		return err
	}
	return nil
}

// The same on the real clock, once each: a doubt that passes, and a refusal that repeats.
func TestDoubtsOnTheRealClock(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	s, _ := r.openStore(r.client())
	defer func() { require.NoError(t, s.Close()) }()
	f := doubtful["401 AKV10046"]
	f.Times = 2
	r.Inject(f)
	require.NoError(t, s.Revalidate(t.Context()))
	require.Equal(t, keyring.Available, s.State().Status)

	before := r.Requests("get")
	r.DeleteIdentity(store)
	start := time.Now()
	require.ErrorIs(t, s.Revalidate(t.Context()), vault.ErrAccessDenied)
	t.Logf("a refusal in doubt counted after %v", time.Since(start).Round(time.Millisecond))
	require.Equal(t, keyring.Inaccessible, s.State().Status)
	require.Equal(t, 2*azure.Askings, r.Requests("get")-before, "each asking is sent again to a challenge")
	r.RecoverIdentity(store)
	require.NoError(t, s.Revalidate(t.Context()))

	r.setEnabled(false)
	before = r.Requests("get")
	require.ErrorIs(t, s.Revalidate(t.Context()), vault.ErrKeyDisabled)
	require.Equal(t, 1, r.Requests("get")-before, "asked once, and believed")
}

// What is about the way that a request came is asked about again on a connection of its
// own: a connection that was made to the wrong address would be refused for ever.
func TestADoubtAboutTheWayIsAskedOnANewConnection(t *testing.T) {
	t.Parallel()
	for name, redials := range map[string]bool{"403 ForbiddenByConnection": true, "403 ForbiddenByFirewall": true, "401 AKV10046": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			seen := map[string]bool{}
			v := r.client(atOnce, func(o *azure.Options) {
				o.ClientOptions.Transport = &sends{Client: r.Client(), change: func(req *http.Request, _ *http.Response) {
					seen[fmt.Sprint(req.Close)] = true
				}}
			})
			f := doubtful[name]
			f.Times = 2
			r.Inject(f)
			require.NoError(t, second(v.GetKey(t.Context(), r.key)))
			require.Equal(t, redials, seen["true"])
			clear(seen)
			require.NoError(t, second(v.GetKey(t.Context(), r.key)))
			require.False(t, seen["true"], "and not when there is no doubt")
		})
	}
}

// A doubt that is not resolved is no denial, and the error has both: what came last, and
// what was said before.
func TestADoubtThatIsNotResolved(t *testing.T) {
	for name, tt := range map[string]struct {
		then keyvaulttest.Fault
		says string
	}{
		"the vault fails":     {keyvaulttest.Fault{Status: 503, Code: "ServiceUnavailable"}, "the vault service failed, try again later; refused before, which was not confirmed: the vault did not accept the caller's token [Unauthorized/AKV10046]"},
		"no answer":           {keyvaulttest.Fault{Hang: true}, "no answer within 9s; refused before, which was not confirmed: the vault did not accept the caller's token [Unauthorized/AKV10046]"},
		"something between":   {keyvaulttest.Fault{Status: 401, Body: "<html>sign in</html>"}, "something that is not a Key Vault answered; check the URL, and what stands between; refused before"},
		"its own last moment": {keyvaulttest.Fault{Delay: 8900 * time.Millisecond, Status: 401, Code: "Unauthorized", Message: "AKV10046"}, "refused before"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				s, e := r.openStore(r.client())
				defer func() { require.NoError(t, s.Close()) }()
				f := doubtful["401 AKV10046"]
				f.Times = 1
				r.Inject(f)
				r.Inject(tt.then)
				err := s.Revalidate(t.Context())
				require.True(t, vault.Transient(err), err)
				require.False(t, vault.Denied(err), err)
				require.ErrorContains(t, err, tt.says)
				require.ErrorContains(t, err, "Key Vault says: [TokenExpired] AKV10046")
				require.Equal(t, keyring.Degraded, s.State().Status)
				time.Sleep(keyring.DefaultLease)
				synctest.Wait()
				require.Equal(t, keyring.Inaccessible, s.State().Status, "the lease is the bound")
				require.NotZero(t, e.locked())
			})
		})
	}
}

// Who gives up while a question is about to be asked again is told both.
func TestGivingUpInDoubt(t *testing.T) {
	bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
		v := r.client()
		r.Inject(doubtful["401 AKV10046"])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := v.WrapKey(ctx, r.key, []byte("secret"))
		require.True(t, vault.Transient(err), err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "AKV10046")
		_, err = v.WrapKey(t.Context(), r.key, []byte("secret"))
		require.ErrorIs(t, err, vault.ErrAccessDenied)
	})
}

// However little time a call has, what answers quickly is asked often enough.
func TestDoubtsInAShortTime(t *testing.T) {
	for _, timeout := range []time.Duration{100 * time.Millisecond, time.Second, 9 * time.Second, time.Minute} {
		t.Run(timeout.String(), func(t *testing.T) {
			bubble(t, keyvaulttest.Options{}, func(t *testing.T, r *rig) {
				v := r.client(func(o *azure.Options) { o.Timeout = timeout })
				r.Inject(doubtful["403 ForbiddenByConnection"])
				start := time.Now()
				_, err := v.GetKey(t.Context(), r.key)
				require.ErrorIs(t, err, vault.ErrAccessDenied)
				require.ErrorContains(t, err, "(5 times in a row)")
				require.Equal(t, azure.Askings, r.Requests("get"))
				require.Less(t, time.Since(start), min(timeout, 6*time.Second))
			})
		})
	}
}

// An answer can come when the time is up already, after a pause of the process, say.
func TestPauseWithNoTimeLeft(t *testing.T) {
	t.Parallel()
	for n := 1; n < azure.Askings; n++ {
		for _, left := range []time.Duration{-time.Hour, -time.Nanosecond, 0, 1, time.Second, time.Hour} {
			got := azure.Pause(n, left)
			require.GreaterOrEqual(t, got, time.Duration(0), "%v", left)
			require.LessOrEqual(t, got, max(left, 0), "%v", left)
		}
	}
}
