package adversary

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"go/types"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/block/blockhttp"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// filled makes a value of a type in which nothing is zero.
func filled(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t {
	case reflect.TypeFor[*rsa.PublicKey]():
		return reflect.ValueOf(&rsa.PublicKey{N: big.NewInt(35), E: 5})
	case reflect.TypeFor[time.Time]():
		return reflect.ValueOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	case reflect.TypeFor[error]():
		return reflect.ValueOf(errors.New("an error's text"))
	case reflect.TypeFor[vault.KeyID]():
		return reflect.ValueOf(vault.KeyID{Vault: "https://a.example", Name: "name", Version: "1"})
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				v.Field(i).Set(filled(t.Field(i).Type))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(t, 1, 1))
		v.Index(0).Set(filled(t.Elem()))
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).Set(filled(t.Elem()))
		}
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		v.Elem().Set(filled(t.Elem()))
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(filled(t.Key()), filled(t.Elem()))
	case reflect.String:
		v.SetString("word")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	default:
		panic(fmt.Sprintf("how is a %v filled?", t))
	}
	return v
}

// What programs write down has one style in JSON: names like lastCheck, ids and states as text,
// errors by their texts, no bytes as lists of numbers.
// A type that is exported later is here, or is none that is written down (noData).
func TestJSONHasOneStyle(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	unseen := written(t)
	key := regexp.MustCompile(`^([0-9]+|https://a\.example/keys/name/1|[a-z][A-Za-z0-9]*)$`) // of maps
	for _, v := range []any{
		keyring.State{}, keyring.Event{}, keyring.Info{}, keyring.Policy{}, keyring.Point{}, inner.EpochInfo{}, keyring.Relocation{}, keyring.RecordInfo{},
		keyring.Stats{}, keyring.EpochStats{}, keyring.CheckCounts{}, keyring.CallStats{}, keyring.Histogram{}, keyring.Calls{}, keyring.Relocated{},
		block.Receipt{}, block.Copy{}, block.KeyUse{}, block.Inspection{}, block.Report{}, block.Work{}, block.RecentEvent{}, block.Relocation{},
		block.Stats{}, block.CacheStats{}, block.EngineStats{}, block.RelocatedCopy{}, block.ReceiptKey{}, block.Step{}, block.Problem{}, block.StoreInfo{}, block.Moved{},
		vault.Key{}, vault.Wrapped{},
		audit.Record{}, audit.Stats{}, audit.Result{},
		azure.KeyInfo{}, azure.RotationPolicy{}, azure.Report{}, azure.Check{},
		local.KeyInfo{}, local.KeyVersion{}, local.Info{}, local.KDF{}, local.RotationPolicy{}, local.IdentityInfo{}, local.Event{},
		blockhttp.AuditStatus{},
		block.DBStats{}, block.FilesStats{}, block.Trouble{}, block.UnfinishedStore{},
	} {
		rt := reflect.TypeOf(v)
		delete(unseen, strings.TrimPrefix(rt.PkgPath(), module)+"."+rt.Name())
		t.Run(rt.String(), func(t *testing.T) {
			b, err := json.Marshal(filled(rt).Interface())
			require.NoError(t, err)
			var out any
			require.NoError(t, json.Unmarshal(b, &out))
			errs := 0
			var look func(path string, v any)
			look = func(path string, v any) {
				switch v := v.(type) {
				case map[string]any:
					require.NotEmpty(t, v, "%s says nothing, as an error does that is no text: %s", path, b)
					for k, in := range v {
						require.True(t, name.MatchString(k) || key.MatchString(k), "%s.%s: %s", path, k, b)
						look(path+"."+k, in)
					}
				case []any:
					if len(v) > 8 {
						t.Errorf("%s is a list of %d: bytes? %s", path, len(v), b)
					}
					for _, in := range v {
						look(path+"[]", in)
					}
				case string:
					if v == "an error's text" {
						errs++
					}
				case float64:
					for _, word := range []string{"status", "kind", "from", "to", "wrapping"} {
						require.NotRegexp(t, `\.`+word+`$`, path, "a number is no word: %s", b)
					}
				}
			}
			look(rt.Name(), out)
			require.Equal(t, errorsIn(rt), errs, "each error by its text: %s", b)
			require.NotRegexp(t, `"[A-Z][A-Za-z]*":`, string(b))
		})
	}
	require.Empty(t, slices.Sorted(maps.Keys(unseen)), "exported types with exported fields that this test does not know")
}

// written returns the names of the exported structs with exported fields that somebody may write
// down: not those that are given to the library, with functions or options in them, nor errors,
// whose texts are written.
func written(t *testing.T) map[string]bool {
	noData := map[string]bool{
		"block.Block": true,                                                                                                             // contents
		"block.Range": true, "keyring.Expect": true, "vault/audit.Action": true, "vault/local.Update": true, "vault/azure.Update": true, // arguments
		"vault/audit.Head": true, "vault.KeyID": true, // texts; see TestTextsAreReadBack
		"vault/azure.Admin": true, "vault/local.Identity": true, "vault/local.Vault": true, "vault/local.Escrow": true, // in use, not written down
	}
	errorType := types.Universe.Lookup("error").Type().Underlying().(*types.Interface)
	out := map[string]bool{}
	for name, named := range exported(t, public()) {
		s, ok := named.Underlying().(*types.Struct)
		if !ok || noData[name] || strings.HasSuffix(name, "Options") || strings.HasPrefix(name, "vault/vaulttest.") ||
			types.Implements(types.NewPointer(named), errorType) {
			continue
		}
		fields, functions := false, false
		for f := range s.Fields() {
			_, function := f.Type().Underlying().(*types.Signature)
			fields, functions = fields || f.Exported(), functions || function
		}
		if fields && !functions {
			out[name] = true
		}
	}
	return out
}

// errorsIn counts the errors in a value that filled makes.
func errorsIn(t reflect.Type) (n int) {
	switch {
	case t == reflect.TypeFor[error]():
		return 1
	case t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[vault.KeyID]() || t == reflect.TypeFor[*rsa.PublicKey]():
		return 0
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				n += errorsIn(t.Field(i).Type)
			}
		}
	case reflect.Slice, reflect.Array, reflect.Map, reflect.Pointer:
		n = errorsIn(t.Elem())
	}
	return n
}

// Ids and states are read back as they were written, and nothing else is read.
func TestTextsAreReadBack(t *testing.T) {
	type all struct {
		Key      vault.KeyID
		None     vault.KeyID
		Store    keyring.StoreID
		Instance inner.InstanceID
		Status   keyring.Status
		Log      audit.LogID
		Head     audit.Head
		NoHead   audit.Head
	}
	want := all{vault.KeyID{Vault: "local:00000000000000000000000000000001", Name: "n", Version: "2"}, vault.KeyID{},
		keyring.StoreID{1, 0xff}, inner.InstanceID{2, 0xfe}, keyring.Degraded,
		audit.LogID{3, 0xfd}, audit.Head{Log: audit.LogID{4}, Seq: 5, Hash: [32]byte{6}}, audit.Head{}}
	b, err := json.Marshal(want)
	require.NoError(t, err)
	var got all
	require.NoError(t, json.Unmarshal(b, &got), "%s", b)
	require.Equal(t, want, got)
	for _, bad := range []string{`{"Store":"00"}`, `{"Store":"zz000000000000000000000000000000"}`, `{"Instance":"0"}`, `{"Status":"fine"}`, `{"Status":2}`,
		`{"Key":"nothing"}`, `{"Key":"https://a/keys/a b"}`, `{"Key":"https://a/keys/a/"}`,
		`{"Log":"0"}`, `{"Head":"nothing"}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &got), bad)
	}
}

// What is written by types that are not exported, as the status page's and the operator's tool's
// are, has names of that style too. Files that speak a format of others, or of a file, are none of
// it.
func TestJSONNamesInTheSource(t *testing.T) {
	others := []string{
		"vault/local/state.go",     // the vault's file, docs/format.md
		"examples/transitvault/",   // HashiCorp Vault's answers
		"internal/keyvaulttest/",   // Key Vault's
		"internal/keyfile/byok.go", // a key transfer blob
		"bench/",                   // results that are kept
	}
	tag := regexp.MustCompile("json:\"([^\",]+)[^\"]*\"`")
	name := regexp.MustCompile(`^(-|[a-z][A-Za-z0-9]*)$`)
	found := 0
	require.NoError(t, filepath.WalkDir("../../..", func(path string, d fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(filepath.ToSlash(path), "../../../")
		other := slices.ContainsFunc(others, func(o string) bool { return strings.HasPrefix(rel+"/", o) || rel == o })
		switch {
		case err != nil:
			return err
		case d.IsDir() && (other || strings.HasPrefix(d.Name(), ".git") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || other || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range tag.FindAllSubmatch(b, -1) {
			found++
			require.Regexp(t, name, string(m[1]), rel)
		}
		return nil
	}))
	require.Greater(t, found, 200, "the search finds nothing")
}
