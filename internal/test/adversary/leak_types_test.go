package adversary

import (
	"bytes"
	"context"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

const module = "github.com/blockseal/blockseal/"

// public is the packages that programs import.
func public() []string {
	return []string{"vault", "vault/local", "vault/audit", "vault/azure", "vault/vaulttest", "kek", "dek", "keyring", "block", "block/blockhttp", "block/blockprom"}
}

// mayHold reports whether a value of a type may have bytes in it that are a secret:
// whether bytes, a private key, or something that this test does not know, lie in it.
// Exported types of the module within it are looked at on their own.
func mayHold(t types.Type, root *types.Named, seen map[types.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t := types.Unalias(t).(type) {
	case *types.Named:
		pkg := t.Obj().Pkg()
		switch {
		case pkg == nil:
			return false // error
		case strings.HasPrefix(pkg.Path(), module):
			if t != root && t.Obj().Exported() {
				return false
			}
		case pkg.Path() == "crypto/rsa" && t.Obj().Name() == "PrivateKey":
			return true
		case pkg.Path() == "sync/atomic" || pkg.Path() == "sync":
			for i := range t.TypeArgs().Len() {
				if mayHold(t.TypeArgs().At(i), root, seen) {
					return true
				}
			}
			return false
		default:
			return false // the standard library's, the engine's
		}
		return mayHold(t.Underlying(), root, seen)
	case *types.Struct:
		for f := range t.Fields() {
			if mayHold(f.Type(), root, seen) {
				return true
			}
		}
	case *types.Pointer:
		return mayHold(t.Elem(), root, seen)
	case *types.Slice:
		return isByte(t.Elem()) || mayHold(t.Elem(), root, seen)
	case *types.Array:
		return isByte(t.Elem()) || mayHold(t.Elem(), root, seen)
	case *types.Map:
		return mayHold(t.Key(), root, seen) || mayHold(t.Elem(), root, seen)
	case *types.Chan:
		return mayHold(t.Elem(), root, seen)
	}
	return false
}

func isByte(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Kind() == types.Byte
}

// exported returns each exported type of some packages, by its name with its package.
func exported(t *testing.T, packages []string) map[string]*types.Named {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-export", "-f", "{{.ImportPath}}\t{{.Export}}"}, prefixed("./", packages)...)...)
	cmd.Dir = "../../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), "\t")
		files[path] = file
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) { return os.Open(files[path]) })
	found := map[string]*types.Named{}
	for _, path := range packages {
		pkg, err := imp.Import(module + path)
		require.NoError(t, err)
		for _, name := range pkg.Scope().Names() {
			obj, ok := pkg.Scope().Lookup(name).(*types.TypeName)
			if !ok || !obj.Exported() || obj.IsAlias() {
				continue
			}
			found[path+"."+name] = obj.Type().(*types.Named)
		}
	}
	return found
}

func prefixed(prefix string, packages []string) (out []string) {
	for _, p := range packages {
		out = append(out, prefix+p)
	}
	return out
}

// credential is a credential for Azure whose token is a secret.
type credential struct{ token string }

func (c *credential) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: c.token}, nil
}

// specimens is a live value of each type that may hold a secret, with secrets in it.
func (w *world) specimens(s *block.Store) []any {
	t, ctx := w.t, context.Background()
	key := repeat(0xd7, 31)
	key = append(key, 1)
	w.secrets.add("DEK of a specimen", key)
	k, err := dek.FromBytes(key)
	require.NoError(t, err)
	aead, err := dek.NewAEAD(key)
	require.NoError(t, err)
	storage := &keyring.MemStorage{}
	ring, err := keyring.Create(ctx, storage, w.kek("customer"), &keyring.Options{Wrapping: keyring.ByKEK})
	require.NoError(t, err)
	made, wrapped, err := ring.NewDEK(ctx, []byte("context"))
	require.NoError(t, err)
	w.secrets.add("DEK of a keyring", made.Bytes())
	hold, err := ring.Acquire()
	require.NoError(t, err)
	var binding keyring.Binding
	binding.Set([]byte("context"))
	t.Cleanup(func() { hold.Release(); ring.Close() })
	document, _, err := storage.Load(ctx)
	require.NoError(t, err)
	info, err := keyring.Inspect(document)
	require.NoError(t, err)

	batch := s.NewBatch()
	require.NoError(t, batch.Put(ctx, []byte("specimen"), []byte(canary)))
	snapshot := s.Snapshot()
	t.Cleanup(func() { batch.Close(); snapshot.Close() })
	_, err = snapshot.Get(ctx, []byte("batched"), nil)
	require.NoError(t, err)
	receipt := block.Receipt{Store: s.StoreID(), Hash: "hash"}
	tagger, err := hold.For(inner.Block{}).Tagger("specimen")
	require.NoError(t, err)

	escrowed := filepath.Join(w.dir, "escrow")
	phrase := []byte("another passphrase, of the escrow")
	w.secrets.add("escrow passphrase", phrase)
	require.NoError(t, os.Mkdir(escrowed, 0o700))
	file, err := w.owner.EscrowBackupSecret(ctx, phrase, local.KDF{Algorithm: local.PBKDF2, Passes: 10})
	require.NoError(t, err)
	escrow, err := local.OpenEscrow(file, phrase)
	require.NoError(t, err)
	w.secrets.add("backup secret", escrow.BackupSecret)
	blob, err := os.ReadFile("../../../internal/keyfile/testdata/import/rsa2048.byok")
	require.NoError(t, err)
	byok, err := local.ParseBYOK(blob)
	require.NoError(t, err)

	token := "token-5d1c0e77-of-the-credential-that-nobody-may-see"
	w.secrets.add("token", []byte(token))
	cloud, err := azure.New("https://contoso.vault.azure.net", &credential{token}, nil)
	require.NoError(t, err)

	memory := vaulttest.New(nil)
	memory.ImportKey("kek", w.secrets.testKeys(t, 1)[0])
	wrap, err := w.vault.WrapKey(ctx, w.key, key)
	require.NoError(t, err)
	public, err := w.vault.GetKey(ctx, w.key)
	require.NoError(t, err)

	return []any{
		k, aead, made, ring, ring.For(inner.Block{}), hold, &hold, hold.For(inner.Block{}), &binding, storage, document, wrapped, info, tagger, s.StoreID(), inner.WorkID{1}, inner.InstanceID{1}, s.State(), s.Stats(),
		keyring.Options{Anchor: keyring.Expect{Fingerprint: s.Fingerprint()}, OtherKEKs: []*kek.KEK{w.kek("other")}},
		s, batch, snapshot, receipt, block.Block{ID: []byte("id")}, block.Range{Start: []byte("a"), End: []byte("b")},
		block.Problem{ID: []byte("id"), Err: block.ErrCorrupt}, block.Report{Problems: []block.Problem{{}}},
		*w.options(keyring.ByKEK), block.Inspection{Keyring: info}, keyring.Relocated{From: w.key, To: w.key, PublicKey: info.PublicKeys[info.KEK]},
		w.owner, w.owner.As("store"), w.owner.Administer("store"), escrow, &escrow, escrow.BackupSecret, byok,
		local.Options{BackupSecret: escrow.BackupSecret, KDF: local.KDF{Passes: 10}},
		&local.Options{BackupSecret: escrow.BackupSecret, ID: "local:00000000000000000000000000000001"}, file,
		cloud, azure.Options{}, memory, vaulttest.Fault{}, w.kek("customer"), wrap, public, public.ID,
		audit.New(w.owner.As("store"), w.log, nil), w.log, audit.Head{}, audit.LogID{}, audit.Record{}, audit.CorruptError{}, audit.VerifyOptions{}, audit.Result{}, audit.Stats{}, audit.LogOptions{},
		&vault.Error{Op: vault.OpGet, Key: public.ID, Kind: vault.ErrKeyDisabled},
	}
}

// Every exported type that may hold a secret is printed with one in it, in every way
// that a program may, and none comes out. What may hold one is found by looking through
// the types' fields, so that a new type is not forgotten.
func TestNoTypePrintsASecret(t *testing.T) {
	w := newWorld(t)
	s := w.live(filepath.Join(w.dir, "store"), keyring.ByKEK)
	defer func() {
		require.NoError(t, s.Close())
		require.NoError(t, w.log.Close())
		require.NoError(t, w.owner.Close())
	}()
	looked := map[string]bool{}
	for _, v := range w.specimens(s) {
		out := &outlet{}
		out.say(v)
		// Within other things, where methods of pointers are out of reach.
		out.say(struct{ V any }{v})
		out.say([]any{v})
		out.say(map[string]any{"v": v})
		name := fmt.Sprintf("%T", v)
		if rt := reflect.TypeOf(v); rt.Kind() == reflect.Pointer {
			// By value too, but for those that go vet keeps from being copied.
			if !holdsLock(rt.Elem()) {
				out.say(reflect.ValueOf(v).Elem().Interface())
			}
			looked[strings.TrimPrefix(rt.Elem().PkgPath(), module)+"."+rt.Elem().Name()] = true
		} else {
			looked[strings.TrimPrefix(rt.PkgPath(), module)+"."+rt.Name()] = true
		}
		w.secrets.none(t, name, []byte(out.String()))
	}
	var missing, plain []string
	for name, named := range exported(t, append(public(), "internal/inner")) {
		may := mayHold(named, named, map[types.Type]bool{})
		switch {
		case may && !looked[name]:
			missing = append(missing, name)
		case !may:
			plain = append(plain, name)
		}
	}
	slices.Sort(missing)
	require.Empty(t, missing, "types that may hold a secret, and of which specimens has no value")
	t.Logf("%d types that may hold a secret print none; %d hold no bytes", len(looked), len(plain))
}

// holdsLock reports whether a value of a type must not be copied, as go vet sees it: it
// has a lock, or says that it has one, and somebody may be using it.
func holdsLock(t reflect.Type) bool {
	if _, ok := reflect.PointerTo(t).MethodByName("Lock"); ok {
		return true
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if holdsLock(t.Field(i).Type) {
				return true
			}
		}
	case reflect.Array:
		return holdsLock(t.Elem())
	}
	return false
}
