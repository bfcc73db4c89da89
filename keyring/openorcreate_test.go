package keyring_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func TestOpenOrCreate(t *testing.T) {
	for what, s := range map[string]keyring.Storage{
		"a file": keyring.FileStorage(filepath.Join(t.TempDir(), "keys")),
		"memory": &keyring.MemStorage{},
	} {
		t.Run(what, func(t *testing.T) {
			g, ctx := newRig(t), t.Context()
			var fingerprint string
			var record []byte
			for i := range 3 {
				r, err := keyring.OpenOrCreate(ctx, s, g.kek, &g.opts)
				require.NoError(t, err)
				if i == 0 {
					key, wrapped, err := r.NewDEK(ctx, nil)
					require.NoError(t, err)
					key.Destroy()
					fingerprint, record = r.Fingerprint(), wrapped
				}
				require.Equal(t, fingerprint, r.Fingerprint())
				key, err := r.OpenDEK(ctx, record, nil)
				require.NoError(t, err)
				key.Destroy()
				require.NoError(t, r.BeginEpoch(ctx), "later saves replace the document")
				require.NoError(t, r.Close())
			}
		})
	}
}

// What does not open is not made anew, and what is not to be made is not.
func TestOpenOrCreateRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		document string // "": none
		change   func(g *rig)
		want     error
	}{
		"a damaged document":           {"not a document", func(*rig) {}, keyring.ErrCorrupt},
		"read only, and there is none": {"", func(g *rig) { g.opts.ReadOnly = true }, keyring.ErrNoDocument},
		"another is expected":          {"", func(g *rig) { g.opts.Anchor = keyring.Expect{Generation: 1} }, keyring.ErrUnexpected},
		"the vault refuses":            {"", func(g *rig) { g.vault.Revoke(vault.OpWrapKey) }, vault.ErrAccessDenied},
	} {
		t.Run(what, func(t *testing.T) {
			g, dir := newRig(t), t.TempDir()
			s := keyring.FileStorage(filepath.Join(dir, "keys"))
			if c.document != "" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "keys"), []byte(c.document), 0o600))
			}
			c.change(g)
			r, err := keyring.OpenOrCreate(t.Context(), s, g.kek, &g.opts)
			require.ErrorIs(t, err, c.want)
			require.Nil(t, r)
			files, err := os.ReadDir(dir)
			require.NoError(t, err)
			if c.document == "" {
				require.Empty(t, files)
				return
			}
			got, _, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.document, string(got))
		})
	}
}

func TestOpenOrCreateAtOnce(t *testing.T) {
	g, path := newRig(t), filepath.Join(t.TempDir(), "keys")
	const callers = 8
	fingerprints, errs := make([]string, callers), make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			r, err := keyring.OpenOrCreate(t.Context(), keyring.FileStorage(path), g.kek, &g.opts)
			if errs[i] = err; err == nil {
				fingerprints[i] = r.Fingerprint()
				errs[i] = r.Close()
			}
		})
	}
	all.Wait()
	for i := range callers {
		require.NoError(t, errs[i])
		require.Equal(t, fingerprints[0], fingerprints[i])
	}
}

// standing is a file that stands still before the first document is made.
type standing struct {
	keyring.Storage
	in  *bufio.Reader
	out io.Writer
}

func (s standing) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if was == "" {
		fmt.Fprintln(s.out, "at the first save")
		if _, err := s.in.ReadString('\n'); err != nil {
			return "", err
		}
	}
	return s.Storage.Swap(ctx, was, document)
}

const createChild = "BLOCKSEAL_KEYRING_CREATE"

// Another process has found no document, and its vault has wrapped one, when this one makes
// a keyring and wraps a DEK by it: the other one opens that, and replaces nothing.
func TestOpenOrCreateBesideAnotherProcess(t *testing.T) {
	ctx := t.Context()
	dir := os.Getenv(createChild)
	child := dir != ""
	if !child {
		dir = t.TempDir()
	}
	v, err := local.OpenOrCreate(filepath.Join(dir, "vault"), []byte("only a test"),
		&local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 1}})
	require.NoError(t, err)
	defer v.Close()
	_, err = v.EnsureKey(ctx, "customer", nil)
	require.NoError(t, err)
	k := kek.New(v, vault.KeyID{Name: "customer"})
	storage := keyring.FileStorage(filepath.Join(dir, "keys"))
	opts := &keyring.Options{VaultTimeout: time.Minute}
	wrap := func(r *keyring.Keyring) string {
		key, record, err := r.NewDEK(ctx, nil)
		require.NoError(t, err)
		key.Destroy()
		return hex.EncodeToString(record)
	}
	opens := func(r *keyring.Keyring, record string) {
		b, err := hex.DecodeString(record)
		require.NoError(t, err)
		key, err := r.OpenDEK(ctx, b, nil)
		require.NoError(t, err)
		key.Destroy()
	}
	if child {
		in := bufio.NewReader(os.Stdin)
		r, err := keyring.OpenOrCreate(ctx, standing{storage, in, os.Stdout}, k, opts)
		require.NoError(t, err)
		record, err := in.ReadString('\n')
		require.NoError(t, err)
		opens(r, strings.TrimSpace(record))
		fmt.Println(r.Fingerprint(), wrap(r))
		require.NoError(t, r.Close())
		return
	}

	cmd := exec.Command(os.Args[0], "-test.run=^TestOpenOrCreateBesideAnotherProcess$")
	cmd.Env = append(os.Environ(), createChild+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "at the first save\n", line)

	r, err := keyring.OpenOrCreate(ctx, storage, k, opts)
	require.NoError(t, err)
	mine, fingerprint := wrap(r), r.Fingerprint()
	require.NoError(t, r.Close())
	_, err = fmt.Fprintf(in, "\n%s\n", mine)
	require.NoError(t, err)
	line, err = lines.ReadString('\n')
	require.NoError(t, err)
	got, theirs, ok := strings.Cut(strings.TrimSpace(line), " ")
	require.True(t, ok, line)
	_, err = io.Copy(io.Discard, lines)
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
	require.Equal(t, fingerprint, got)
	r, err = keyring.OpenOrCreate(ctx, storage, k, opts)
	require.NoError(t, err)
	defer r.Close()
	opens(r, mine)
	opens(r, theirs)
}

// The same call at the first start of a program and at every other.
func ExampleOpenOrCreate() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "keyring-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	v := vaulttest.New(nil)
	k := kek.New(v, v.CreateKey("customer").Versionless())
	var fingerprint string
	for range 2 {
		r, err := keyring.OpenOrCreate(ctx, keyring.FileStorage(filepath.Join(dir, "keys")), k, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.State().Status, r.Fingerprint() == fingerprint)
		fingerprint = r.Fingerprint()
		if err := r.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// Available false
	// Available true
}
