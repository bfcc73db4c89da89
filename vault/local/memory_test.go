//go:build linux

package local_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/internal/test/memscan"
	"github.com/blockseal/blockseal/vault/local"
)

// A vault that is open has its master key in memory, and leaves no copies behind each
// time it uses it; one that is closed has none.
func TestCloseLeavesNoMasterKeyInMemory(t *testing.T) {
	require.True(t, secret.Wipes(), "the standard library's AES is not what it was; docs/threat-model.md promises less then")
	r := newRig(t)
	r.create("kek")
	exe, err := os.Executable()
	require.NoError(t, err)
	child := exec.Command(exe)
	child.Env = append(os.Environ(), childMode+"=memory", "CHILD_DIR="+r.dir)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	lines := bufio.NewReader(out)
	copies := func(when string) int {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, when+"\n", line)
		found, err := memscan.Search(child.Process.Pid, []memscan.Needle{{Name: "master", Bytes: local.Master(r.Vault)}})
		require.NoError(t, err)
		return found["master"]
	}
	open := copies("open")
	require.GreaterOrEqual(t, open, 1, "it must be there, or the search finds nothing")
	require.LessOrEqual(t, open, 3, "each use leaves a copy behind")
	_, err = io.WriteString(in, "\n")
	require.NoError(t, err)
	require.Zero(t, copies("closed"))
}
