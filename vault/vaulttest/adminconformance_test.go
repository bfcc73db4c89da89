package vaulttest

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVaultAdministers(t *testing.T) {
	RunAdmin(t, func(*testing.T) AdminSubject { return newMemAdmin(nil).subject() })
}

// Without Import every key is created, without the lists none is looked for.
func TestAdministratorWithLess(t *testing.T) {
	RunAdmin(t, func(*testing.T) AdminSubject {
		s := newMemAdmin(nil).subject()
		s.Import, s.Keys, s.Deleted, s.Versions = nil, nil, nil, nil
		return s
	})
}

// An administrator without soft delete purges at once.
func TestAdministratorWithoutSoftDelete(t *testing.T) {
	RunAdmin(t, func(*testing.T) AdminSubject {
		m := newMemAdmin(nil)
		s := m.subject()
		s.Delete, s.Recover, s.Deleted = nil, nil, nil
		s.Purge = func(_ context.Context, name string) error {
			if err := m.look("purge", name, false); err != nil {
				return err
			}
			m.Vault.Purge(name)
			return nil
		}
		return s
	})
}

// checkAdmin runs one part of the suite and returns what it found wrong.
func checkAdmin(t *testing.T, p adminPart, s AdminSubject) []string {
	t.Helper()
	require.Empty(t, p.missing(s))
	rec := &recorder{ctx: t.Context()}
	done := make(chan struct{})
	go func() { // which Fatalf ends
		defer close(done)
		p.check(newAdminRun(rec, s))
	}()
	<-done
	return rec.messages
}

func TestAdminSuiteFindsBrokenAdministrators(t *testing.T) {
	covered := map[string]bool{}
	for _, tt := range brokenAdmins {
		covered[tt.part] = true
		t.Run(tt.name, func(t *testing.T) {
			i := slices.IndexFunc(adminSuite(), func(p adminPart) bool { return p.name == tt.part })
			require.GreaterOrEqual(t, i, 0, "no such part")
			m := newMemAdmin(nil)
			s := m.subject()
			tt.breakIt(m, &s)
			got := checkAdmin(t, adminSuite()[i], s)
			require.NotEmpty(t, got, "the suite must find it")
			require.Contains(t, strings.Join(got, "\n"), tt.says)
		})
	}
	for _, p := range adminSuite() {
		require.True(t, covered[p.name], "no broken administrator shows that %q can fail", p.name)
	}
}

// TestRunAdminReports runs RunAdmin itself, in a process of its own, whose output and
// exit code show what a user would see.
func TestRunAdminReports(t *testing.T) {
	const variable = "VAULTTEST_ADMIN"
	newVault := map[string]func() AdminSubject{
		"broken": func() AdminSubject {
			s := newMemAdmin(nil).subject()
			s.Delete = func(context.Context, string) error { return nil }
			return s
		},
		"bare": func() AdminSubject { return AdminSubject{Vault: New(nil)} },
	}
	if make := newVault[os.Getenv(variable)]; make != nil {
		RunAdmin(t, func(*testing.T) AdminSubject { return make() })
		return
	}
	run := func(subject string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRunAdminReports$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"="+subject)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("broken")
	require.Error(t, err)
	require.Contains(t, out, "--- FAIL: TestRunAdminReports/a_deleted_key_is_gone")
	require.Contains(t, out, "--- PASS: TestRunAdminReports/dates_are_unset")
	out, err = run("bare")
	require.NoError(t, err, out)
	require.Contains(t, out, "left out: dates are unset (AdminSubject.Create is nil)")
	require.Equal(t, len(adminSuite())-1, strings.Count(out, "left out: "), "all but the unknown key's")
}
