package adversary

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// filled makes a value of a type in which nothing is zero.
func filled(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t {
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
	case reflect.Map:
		v.Set(reflect.MakeMap(t))
		v.SetMapIndex(filled(t.Key()), filled(t.Elem()))
	case reflect.String:
		v.SetString("word")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	default:
		panic(fmt.Sprintf("how is a %v filled?", t))
	}
	return v
}

// What programs write down has one style in JSON: names like lastCheck, ids and states as text,
// errors by their texts, no bytes as lists of numbers.
func TestJSONHasOneStyle(t *testing.T) {
	name := regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	key := regexp.MustCompile(`^([0-9]+|https://a\.example/keys/name/1|[a-z][A-Za-z0-9]*)$`) // of maps
	for _, v := range []any{
		keyring.State{}, keyring.Event{}, keyring.Info{}, keyring.Policy{}, keyring.Point{}, inner.EpochInfo{}, keyring.Relocation{}, keyring.RecordInfo{},
		block.Receipt{}, block.Copy{}, block.KeyUse{}, block.Inspection{}, block.Report{}, block.Work{}, block.RecentEvent{}, block.Relocation{},
	} {
		rt := reflect.TypeOf(v)
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
}

// errorsIn counts the errors in a value that filled makes.
func errorsIn(t reflect.Type) (n int) {
	switch {
	case t == reflect.TypeFor[error]():
		return 1
	case t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[vault.KeyID]():
		return 0
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				n += errorsIn(t.Field(i).Type)
			}
		}
	case reflect.Slice, reflect.Array, reflect.Map:
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
	}
	want := all{vault.KeyID{Vault: "local:00000000000000000000000000000001", Name: "n", Version: "2"}, vault.KeyID{},
		keyring.StoreID{1, 0xff}, inner.InstanceID{2, 0xfe}, keyring.Degraded}
	b, err := json.Marshal(want)
	require.NoError(t, err)
	var got all
	require.NoError(t, json.Unmarshal(b, &got), "%s", b)
	require.Equal(t, want, got)
	for _, bad := range []string{`{"Store":"00"}`, `{"Store":"zz000000000000000000000000000000"}`, `{"Instance":"0"}`, `{"Status":"fine"}`, `{"Status":2}`,
		`{"Key":"nothing"}`, `{"Key":"https://a/keys/a b"}`, `{"Key":"https://a/keys/a/"}`} {
		require.Error(t, json.Unmarshal([]byte(bad), &got), bad)
	}
}
