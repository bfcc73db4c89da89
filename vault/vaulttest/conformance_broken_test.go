package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

// A suite that cannot fail proves nothing, so here it meets vaults that are
// broken in one way each, and must find it.

// recorder is a reporter that remembers.
type recorder struct {
	ctx context.Context

	mu       sync.Mutex
	messages []string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// check runs one part of the suite and returns what it found wrong.
func check(t *testing.T, p part, s Subject) []string {
	t.Helper()
	require.Empty(t, p.missing(s))
	rec := &recorder{ctx: t.Context()}
	done := make(chan struct{})
	go func() { // which Fatalf ends
		defer close(done)
		p.check(&run{T: rec, Subject: s})
	}()
	<-done
	return rec.messages
}

// broken passes calls on to a good vault, except where a field says otherwise.
type broken struct {
	*Vault
	get    func(context.Context, vault.KeyID) (vault.Key, error)
	wrap   func(context.Context, vault.KeyID, []byte) (vault.Wrapped, error)
	unwrap func(context.Context, vault.Wrapped) ([]byte, error)
}

func (b *broken) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	if b.get != nil {
		return b.get(ctx, id)
	}
	return b.Vault.GetKey(ctx, id)
}

func (b *broken) WrapKey(ctx context.Context, id vault.KeyID, secret []byte) (vault.Wrapped, error) {
	if b.wrap != nil {
		return b.wrap(ctx, id, secret)
	}
	return b.Vault.WrapKey(ctx, id, secret)
}

func (b *broken) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	if b.unwrap != nil {
		return b.unwrap(ctx, w)
	}
	return b.Vault.UnwrapKey(ctx, w)
}

func TestSuiteFindsBrokenVaults(t *testing.T) {
	covered := map[string]bool{}
	for _, tt := range brokenVaults {
		covered[tt.part] = true
		t.Run(tt.name, func(t *testing.T) {
			p := suite()[slices.IndexFunc(suite(), func(p part) bool { return p.name == tt.part })]
			good, s := memSubject(nil)
			b := &broken{Vault: good}
			tt.breakIt(b)
			s.Vault = b
			got := strings.Join(check(t, p, s), "\n")
			require.Contains(t, got, tt.says)
		})
	}
	for _, p := range suite() {
		require.True(t, covered[p.name], "no broken vault shows that %q can fail", p.name)
	}
}

// Without soft delete, too.
func TestSuiteFindsAPurgeThatDoesNothing(t *testing.T) {
	_, s := memSubject(nil)
	s.Delete, s.Recover, s.Purge = nil, nil, func(string) {}
	i := slices.IndexFunc(suite(), func(p part) bool { return p.name == "a purged key" })
	require.Contains(t, strings.Join(check(t, suite()[i], s), "\n"), "succeeded, want an error")

	admin := newMemAdmin(nil).subject()
	admin.Delete, admin.Recover, admin.Purge = nil, nil, func(context.Context, string) error { return nil }
	i = slices.IndexFunc(adminSuite(), func(p adminPart) bool { return p.name == "a purge is for good" })
	require.Contains(t, strings.Join(checkAdmin(t, adminSuite()[i], admin), "\n"), "succeeded, want an error")
}

func TestSuitePassesTheVaultThatTheBrokenOnesWrap(t *testing.T) {
	for _, p := range suite() {
		good, s := memSubject(nil)
		s.Vault = &broken{Vault: good}
		require.Empty(t, check(t, p, s), p.name)
	}
}

// TestRunReports runs Run itself on subjects it should complain about, in a
// process of its own, whose output and exit code show what a user would see.
func TestRunReports(t *testing.T) {
	const variable = "VAULTTEST_SUBJECT"
	newVault := map[string]func() Subject{
		"broken": func() Subject {
			good, s := memSubject(nil)
			b := &broken{Vault: good}
			b.unwrap = func(context.Context, vault.Wrapped) ([]byte, error) { return nil, errors.New("out of order") }
			s.Vault = b
			return s
		},
		"bare": func() Subject {
			_, s := memSubject(nil)
			return Subject{Vault: s.Vault, Key: s.Key}
		},
	}
	if make := newVault[os.Getenv(variable)]; make != nil {
		Run(t, func(*testing.T) Subject { return make() })
		return
	}
	run := func(subject string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRunReports$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"="+subject)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	out, err := run("broken")
	require.Error(t, err, "a broken vault must fail the test that calls Run")
	require.Contains(t, out, "--- FAIL: TestRunReports/wrap_and_unwrap_every_size")
	require.Contains(t, out, "--- PASS: TestRunReports/get_answers_with_the_complete_key")
	require.Contains(t, out, "out of order")

	out, err = run("bare")
	require.NoError(t, err, out)
	require.Contains(t, out, "left out: a disabled key (Subject.SetEnabled is nil)")
	require.NotContains(t, out, "TestRunReports/a_disabled_key", "what is left out must not look passed")
	require.Equal(t, 9, strings.Count(out, "left out: "))
}
