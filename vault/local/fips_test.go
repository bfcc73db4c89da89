//go:build unix

package local_test

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/local"
)

// What a process does with each setting of GODEBUG=fips140: "on" makes new vaults with
// PBKDF2 and opens old ones with argon2id, "only" refuses those.
func TestFIPSModes(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct{ mode, made, argon2id string }{
		{"off", "argon2id", "opens"},
		{"on", "PBKDF2-HMAC-SHA256", "opens"},
		{"only", "PBKDF2-HMAC-SHA256", local.ErrFIPS.Error()},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "vault"), golden(t, "argon2id.vault"), 0o600))
			t.Setenv("GODEBUG", "fips140="+tt.mode)
			cmd, out := r.start("fips", dir, "")
			require.NoError(t, cmd.Wait(), out)
			says := bufio.NewScanner(out)
			require.True(t, says.Scan())
			require.Equal(t, "made with "+tt.made, says.Text())
			require.True(t, says.Scan())
			require.True(t, strings.HasSuffix(says.Text(), tt.argon2id), says.Text())
		})
	}
}
