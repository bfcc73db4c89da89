//go:build unix

package local_test

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// start starts another process; see child in main_test.go.
func (r *rig) start(mode, dir, arg string) (*exec.Cmd, *bytes.Buffer) {
	r.t.Helper()
	exe, err := os.Executable()
	require.NoError(r.t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childMode+"="+mode, "CHILD_DIR="+dir, "CHILD_ARG="+arg)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(r.t, cmd.Start())
	return cmd, &out
}

// killed waits for a process that ends by SIGKILL.
func (r *rig) killed(cmd *exec.Cmd, out *bytes.Buffer) {
	r.t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	require.True(r.t, errors.As(err, &exit), "%v: %s", err, out)
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(r.t, ok && status.Signaled() && status.Signal() == syscall.SIGKILL, "%v: %s", err, out)
}

// afterRename reports whether a change that stops before a step was made.
func afterRename(step string) bool {
	return step == "sync the directory" || step == "done"
}

func TestKilledAtEachStepOfAChange(t *testing.T) {
	for _, step := range local.Steps() {
		t.Run(strings.ReplaceAll(step, " ", "_"), func(t *testing.T) {
			r := newRig(t)
			id := r.create("kek")
			w, secret := r.wrap(r, id)
			require.NoError(t, childUpdate(r.Vault, 1))
			want := mustGet(t, r, id)

			r.killed(r.start("kill", r.dir, step))
			if afterRename(step) {
				want.NotBefore, want.Expires = want.NotBefore.Add(time.Hour), want.Expires.Add(time.Hour)
			}
			require.Equal(t, want, mustGet(t, r, id), "a handle that was open")
			require.Equal(t, want, mustGet(t, r.another(), id), "a new one")
			r.unwraps(r, w, secret)
			// The lock went with the process, and what it left behind is in nobody's way.
			require.NoError(t, childUpdate(r.Vault, 3))
			require.NoFileExists(t, filepath.Join(r.dir, "vault.tmp"))
		})
	}
}

func TestKilledAtEachStepOfCreate(t *testing.T) {
	for _, step := range local.Steps() {
		t.Run(strings.ReplaceAll(step, " ", "_"), func(t *testing.T) {
			r := newRig(t)
			dir := filepath.Join(t.TempDir(), "v")
			r.killed(r.start("create", dir, step))
			v, err := local.Open(dir, passphrase, insecure)
			if afterRename(step) {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, local.ErrNotVault)
				v, err = local.Create(dir, passphrase, &local.Options{InsecureKDF: true, KDF: cheap})
				require.NoError(t, err)
			}
			require.NoError(t, v.Close())
		})
	}
}

// Another process is on its way through making the vault, and stands at each of its steps
// while this one wants it too: both get the same vault and the same key.
func TestOpenOrCreateBesideAnotherProcess(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	for _, step := range local.Steps() {
		t.Run(strings.ReplaceAll(step, " ", "_"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "v")
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), childMode+"=open or create", "CHILD_DIR="+dir, "CHILD_ARG="+step)
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			lines := bufio.NewReader(out)
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "at the step\n", line)

			mine := make(chan vault.KeyID, 1)
			go func() {
				defer close(mine)
				v, err := local.OpenOrCreate(dir, passphrase, &local.Options{InsecureKDF: true, KDF: cheap, LockWait: time.Minute})
				if !assert.NoError(t, err) {
					return
				}
				defer v.Close()
				key, err := v.EnsureKey(t.Context(), "kek", nil)
				assert.NoError(t, err)
				mine <- key.ID
			}()
			_, err = in.Write([]byte("\n"))
			require.NoError(t, err)
			line, err = lines.ReadString('\n')
			require.NoError(t, err)
			require.NoError(t, cmd.Wait())
			require.Equal(t, strings.TrimSpace(line), (<-mine).String())
		})
	}
}

// An error at a step, such as a full disk, leaves the old state, or the new one and
// says that it may not last.
func TestErrorAtEachStep(t *testing.T) {
	full := errors.New("no space left on device")
	for _, step := range local.Steps() {
		r := newRig(t)
		id := r.create("kek")
		w, secret := r.wrap(r, id)
		require.NoError(t, childUpdate(r.Vault, 1))
		want := mustGet(t, r, id)
		local.SetHook(r.Vault, func(s string) error {
			if s == step {
				return full
			}
			return nil
		})
		err := childUpdate(r.Vault, 2)
		require.ErrorIs(t, err, full, step)
		require.ErrorContains(t, err, r.dir)
		require.True(t, vault.Transient(err))
		if afterRename(step) {
			want.NotBefore, want.Expires = want.NotBefore.Add(time.Hour), want.Expires.Add(time.Hour)
		}
		require.NoFileExists(t, filepath.Join(r.dir, "vault.tmp"))
		require.Equal(t, want, mustGet(t, r, id), step)
		require.Equal(t, want, mustGet(t, r.another(), id), step)
		local.SetHook(r.Vault, func(string) error { return nil })
		require.NoError(t, childUpdate(r.Vault, 3), step)
		r.unwraps(r, w, secret)
	}
}

// Several processes change a vault at once: no change is lost.
func TestManyWriters(t *testing.T) {
	const processes, each = 4, 25
	r := newRig(t)
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	for range processes {
		cmd, out := r.start("grant", r.dir, strconv.Itoa(each))
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i := range each {
		require.NoError(t, r.Grant(t.Context(), "parent-"+strconv.Itoa(i), vault.OpGet))
	}
	for i, cmd := range cmds {
		require.NoError(t, cmd.Wait(), outs[i])
	}
	all, err := r.Identities(t.Context())
	require.NoError(t, err)
	require.Len(t, all, (processes+1)*each)
	info, err := r.Info(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1+(processes+1)*each, info.Generation)
}

// What another process takes away is gone with the next call of a handle that has been
// open all the time, however much of the key it has in memory.
func TestGrantsRevokedByAnotherProcess(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	id := r.create("kek")
	require.NoError(t, r.Grant(ctx, "ingest", append(local.DataPlane(), local.OpList)...))
	data, admin := r.As("ingest"), r.Administer("ingest")
	w, secret := r.wrap(data, id)
	r.unwraps(data, w, secret)
	revoke := func(arg string) {
		cmd, out := r.start("revoke", r.dir, arg)
		require.NoError(t, cmd.Wait(), out)
	}

	revoke("ingest " + string(vault.OpUnwrapKey))
	_, err := data.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = data.GetKey(ctx, id)
	require.NoError(t, err, "that grant alone")
	_, err = admin.ListKeys(ctx)
	require.NoError(t, err)

	revoke("ingest")
	_, err = admin.ListKeys(ctx)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = data.GetKey(ctx, id)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	_, err = data.WrapKey(ctx, id, secret)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	require.NoError(t, r.Grant(ctx, "ingest", vault.OpUnwrapKey))
	r.unwraps(data, w, secret)
}

// While one process changes, and is killed in the middle of it, readers see one
// change after the other, each whole, and never go back.
func TestReadersSeeWholeChanges(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	require.NoError(t, childUpdate(r.Vault, 1))
	cmd, out := r.start("update", r.dir, "")
	seen := map[time.Time]bool{}
	last := time.Time{}
	deadline := time.Now().Add(2 * time.Minute)
	for n := 0; len(seen) < 50 && time.Now().Before(deadline); n++ {
		k := mustGet(t, r, id)
		require.Equal(t, 100*365*day+25*day, k.Expires.Sub(k.NotBefore), "half a change")
		require.False(t, len(seen) > 2 && k.NotBefore.Before(last), "the vault went back")
		seen[k.NotBefore], last = true, k.NotBefore
		if n%64 == 0 {
			r.unwraps(r, w, secret)
		}
	}
	require.NoError(t, cmd.Process.Kill())
	r.killed(cmd, out)
	require.GreaterOrEqual(t, len(seen), 50)
	k := mustGet(t, r.another(), id)
	require.Equal(t, 100*365*day+25*day, k.Expires.Sub(k.NotBefore))
	require.Equal(t, k, mustGet(t, r, id))
}

// A process that is killed while it changes the passphrase leaves a vault that opens with
// the old one or the new one, with every key and the backup secret in it.
func TestKilledAtEachStepOfChangePassphrase(t *testing.T) {
	for _, step := range local.Steps() {
		t.Run(strings.ReplaceAll(step, " ", "_"), func(t *testing.T) {
			r := newRig(t)
			id := r.create("kek")
			w, secret := r.wrap(r, id)
			escrow, err := r.BackupSecret(t.Context())
			require.NoError(t, err)
			r.killed(r.start("passphrase", r.dir, step))
			opens, refused := passphrase, []byte("another")
			if afterRename(step) {
				opens, refused = refused, opens
			}
			_, err = local.Open(r.dir, refused, insecure)
			require.ErrorIs(t, err, local.ErrWrongPassphrase)
			v, err := local.Open(r.dir, opens, insecure)
			require.NoError(t, err)
			r.unwraps(v, w, secret)
			got, err := v.BackupSecret(t.Context())
			require.NoError(t, err)
			require.Equal(t, escrow, got)
			require.NoError(t, v.ChangePassphrase(t.Context(), passphrase, cheap))
			require.NoFileExists(t, filepath.Join(r.dir, "vault.tmp"))
			require.NoError(t, v.Close())
		})
	}
}
