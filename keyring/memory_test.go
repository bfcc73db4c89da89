//go:build linux

package keyring

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/internal/test/memscan"
	"github.com/blockseal/blockseal/internal/test/seldom"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// The test runs itself as a child process that opens a keyring on a file vault and
// works with it. The parent, which knows every secret, looks for them in the
// child's memory: before the lock, where they must be, so that the search is known
// to work, and after.

const memoryChild = "BLOCKSEAL_MEMORY_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(memoryChild); dir != "" {
		if err := workInMemory(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	seldom.Collect()
	os.Exit(m.Run())
}

const derNeedle = "private exponent, big-endian"

const memoryPassphrase = "only a test"

// workInMemory is the child. It says what it has done, a line at a time, and waits
// for a line from the parent each time.
func workInMemory(dir string) error {
	ctx := context.Background()
	v, err := local.Open(filepath.Join(dir, "vault"), []byte(memoryPassphrase), &local.Options{InsecureKDF: true})
	if err != nil {
		return err
	}
	r, err := Open(ctx, FileStorage(filepath.Join(dir, "keyring")), kek.New(v, vault.KeyID{Name: "k"}),
		&Options{CheckEvery: 5 * time.Minute, VaultTimeout: time.Minute})
	if err != nil {
		return err
	}
	records, err := filepath.Glob(filepath.Join(dir, "record-*"))
	if err != nil {
		return err
	}
	var keys []*dek.Key
	for range 3 { // again and again, as a database would
		for _, k := range keys {
			k.Destroy()
		}
		keys = nil
		for _, name := range records {
			record, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			k, err := r.OpenDEK(ctx, record, []byte(filepath.Base(name)))
			if err != nil {
				return err
			}
			k.Open(nil, k.Seal(nil, make([]byte, 4096), nil), nil)
			keys = append(keys, k)
		}
	}
	if err := r.BeginEpoch(ctx); err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	tell := func(what string) error {
		fmt.Println(what)
		_, err := in.ReadString('\n')
		return err
	}
	if err := tell("open"); err != nil {
		return err
	}
	// The parent has disabled the key.
	for _, k := range keys {
		k.Destroy()
	}
	if err := r.Revalidate(ctx); err == nil {
		return fmt.Errorf("the vault still says yes")
	}
	if st := r.State(); st.Status != Inaccessible {
		return fmt.Errorf("the state is %v", st)
	}
	for range 3 {
		runtime.GC()
	}
	return tell("locked")
}

func TestLockingLeavesNoKeysInMemory(t *testing.T) {
	dir := t.TempDir()
	needles := prepareMemory(t, dir)

	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), memoryChild+"="+dir)
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := bufio.NewReader(out)
	defer child.Wait()
	defer in.Close()
	expect := func(want string) {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, want, strings.TrimSpace(line))
	}

	expect("open")
	before, err := memscan.Search(child.Process.Pid, needles)
	require.NoError(t, err)
	for _, n := range needles {
		if n.Name == derNeedle {
			continue // parsing has ended long ago; it must not be there at any time
		}
		require.NotZero(t, before[n.Name], "the search must find the %s while the keyring is open", n.Name)
	}
	disable(t, dir)
	_, err = io.WriteString(in, "\n")
	require.NoError(t, err)

	expect("locked")
	after, err := memscan.Search(child.Process.Pid, needles)
	require.NoError(t, err)
	t.Logf("found while open: %v", before)
	t.Logf("found after the lock: %v", after)
	if !secret.Erases {
		t.Log("this program was not built with GOEXPERIMENT=runtimesecret: copies on stacks are not erased, and the result is only reported")
		return
	}
	require.Empty(t, after)
}

// prepareMemory makes a vault, a keyring and some DEKs, and returns their secrets.
func prepareMemory(t *testing.T, dir string) (needles []memscan.Needle) {
	ctx := t.Context()
	key, err := rsa.GenerateKey(rand.Reader, kek.Bits)
	require.NoError(t, err)
	v, err := local.Create(filepath.Join(dir, "vault"), []byte(memoryPassphrase),
		&local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 1}})
	require.NoError(t, err)
	defer v.Close()
	_, err = v.ImportKey(ctx, "k", key, nil)
	require.NoError(t, err)
	storage := FileStorage(filepath.Join(dir, "keyring"))
	add := func(name string, b []byte) {
		needles = append(needles, memscan.Needle{Name: name, Bytes: append([]byte(nil), b...)})
	}
	for i, w := range []Wrapping{ByKeyring, ByKEK} {
		var r *Keyring
		if i == 0 {
			r, err = Create(ctx, storage, kek.New(v, vault.KeyID{Name: "k"}), &Options{VaultTimeout: time.Minute})
		} else {
			r, err = Open(ctx, storage, kek.New(v, vault.KeyID{Name: "k"}), &Options{Wrapping: w, VaultTimeout: time.Minute})
		}
		require.NoError(t, err)
		for j := range 3 {
			name := fmt.Sprintf("record-%v-%d", w, j)
			k, record, err := r.NewDEK(ctx, []byte(name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), record, 0o600))
			add("DEK "+name, k.Bytes())
			k.Destroy()
		}
		require.NoError(t, r.Close())
	}
	doc, err := Document(ctx, storage)
	require.NoError(t, err)
	h, aad, sealed, err := splitDocument(doc)
	require.NoError(t, err)
	got, err := v.UnwrapKey(ctx, vault.Wrapped{KeyID: h.current().key, Ciphertext: h.wrapped})
	require.NoError(t, err)
	b, err := openBody(sealed, (*[secretSize]byte)(got), aad)
	require.NoError(t, err)
	add("document secret", got)
	for i := range b.epochs {
		add(fmt.Sprintf("epoch key %d", b.epochs[i].id), b.epochs[i].key[:])
	}
	// The exponent as it is in a file, and as the standard library keeps it:
	// little-endian words.
	add(derNeedle, key.D.FillBytes(make([]byte, 256)))
	d := key.D.FillBytes(make([]byte, 256))
	for i, j := 0, len(d)-1; i < j; i, j = i+1, j-1 {
		d[i], d[j] = d[j], d[i]
	}
	add("private exponent", d[:128])
	return needles
}

func disable(t *testing.T, dir string) {
	v, err := local.Open(filepath.Join(dir, "vault"), []byte(memoryPassphrase), &local.Options{InsecureKDF: true})
	require.NoError(t, err)
	defer v.Close()
	no := false
	_, err = v.UpdateKey(t.Context(), vault.KeyID{Name: "k"}, local.Update{Enabled: &no})
	require.NoError(t, err)
}
