package vault_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
)

const version = "0123456789abcdef0123456789abcdef"

func TestKeyIDStringAndParse(t *testing.T) {
	for _, tt := range []struct {
		id   vault.KeyID
		text string
	}{
		{vault.KeyID{Vault: "https://contoso.vault.azure.net", Name: "kek", Version: version}, "https://contoso.vault.azure.net/keys/kek/" + version},
		{vault.KeyID{Vault: "https://contoso.vault.azure.net", Name: "kek"}, "https://contoso.vault.azure.net/keys/kek"},
		{vault.KeyID{Vault: "file:0011", Name: "kek", Version: "1"}, "file:0011/keys/kek/1"},
		{vault.KeyID{Name: "kek", Version: version}, "/keys/kek/" + version},
		{vault.KeyID{Name: "kek"}, "/keys/kek"},
		{vault.KeyID{Vault: "keys", Name: "keys"}, "keys/keys/keys"},
		{vault.KeyID{Vault: "v", Name: "a", Version: "keys"}, "v/keys/a/keys"},
		{vault.KeyID{Vault: "https://contoso.vault.azure.net", Name: "keys", Version: version}, "https://contoso.vault.azure.net/keys/keys/" + version},
	} {
		t.Run(tt.text, func(t *testing.T) {
			require.NoError(t, tt.id.Validate())
			require.Equal(t, tt.text, tt.id.String())
			got, err := vault.ParseKeyID(tt.text)
			require.NoError(t, err)
			require.Equal(t, tt.id, got)
		})
	}
}

func TestParseKeyIDRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"":                            `no "/keys/"`,
		"kek":                         `no "/keys/"`,
		"https://v/secrets/kek":       `no "/keys/"`,
		"v/keys/":                     "the name has 0 characters",
		"v/keys//" + version:          "the name has 0 characters",
		"v/keys/kek/":                 "ends with a slash",
		"v/keys/kek/1/2":              `not "/"`,
		"v/keys/kek 1":                `not " "`,
		"v/keys/k\xffk":               "may have 0-9",
		"v/keys/kek\r":                `the name may have 0-9, a-z, A-Z and "-" only, not "\r": "kek\r"`,
		"v/keys/kek\r\n":              `not "\r": "kek\r\n"`,
		"v/keys/kek/1\r":              `not "\r": "1\r"`,
		"v\r/keys/kek":                `the vault has a byte outside printable ASCII at position 1: "v\r"`,
		"\ufeffv/keys/kek":            `at position 0: "\ufeffv"`,
		"v w/keys/kek":                "outside printable ASCII at position 1",
		"v//keys/kek":                 "ends with a slash",
		"v/keys/kek/" + version + "?": `not "?"`,
	} {
		t.Run(text, func(t *testing.T) {
			id, err := vault.ParseKeyID(text)
			require.ErrorContains(t, err, says)
			require.Zero(t, id)
		})
	}
}

func TestKeyIDValidate(t *testing.T) {
	good := vault.KeyID{Vault: "https://contoso.vault.azure.net", Name: "kek", Version: version}
	for _, tt := range []struct {
		what   string
		change func(*vault.KeyID)
		says   string // "" is valid
	}{
		{"complete", func(*vault.KeyID) {}, ""},
		{"no version", func(id *vault.KeyID) { id.Version = "" }, ""},
		{"no vault", func(id *vault.KeyID) { id.Vault = "" }, ""},
		{"no name", func(id *vault.KeyID) { id.Name = "" }, "the name has 0 characters, want 1 to 127"},
		{"longest name", func(id *vault.KeyID) { id.Name = strings.Repeat("n", vault.MaxNameLen) }, ""},
		{"name too long", func(id *vault.KeyID) { id.Name = strings.Repeat("n", vault.MaxNameLen+1) }, "the name has 128 characters"},
		{"longest version", func(id *vault.KeyID) { id.Version = strings.Repeat("0", vault.MaxVersionLen) }, ""},
		{"version too long", func(id *vault.KeyID) { id.Version = strings.Repeat("0", vault.MaxVersionLen+1) }, "the version has 128 characters"},
		{"longest vault", func(id *vault.KeyID) { id.Vault = strings.Repeat("v", vault.MaxVaultLen) }, ""},
		{"vault too long", func(id *vault.KeyID) { id.Vault = strings.Repeat("v", vault.MaxVaultLen+1) }, "the vault has 513 bytes"},
		{"all of the alphabet", func(id *vault.KeyID) { id.Name = "azAZ09-" }, ""},
		{"underscore in name", func(id *vault.KeyID) { id.Name = "a_b" }, `the name may have 0-9, a-z, A-Z and "-" only, not "_": "a_b"`},
		{"slash in name", func(id *vault.KeyID) { id.Name = "a/b" }, `not "/"`},
		{"slash in version", func(id *vault.KeyID) { id.Version = "a/b" }, `the version may have`},
		{"NUL in name", func(id *vault.KeyID) { id.Name = "a\x00" }, `not "\x00"`},
		{"carriage return in name", func(id *vault.KeyID) { id.Name = "kek\r" }, `not "\r": "kek\r"`},
		{"line feed in version", func(id *vault.KeyID) { id.Version = "1\n" }, `not "\n": "1\n"`},
		{"space in vault", func(id *vault.KeyID) { id.Vault = "a b" }, "position 1"},
		{"control in vault", func(id *vault.KeyID) { id.Vault = "a\n" }, "position 1"},
		{"DEL in vault", func(id *vault.KeyID) { id.Vault = "\x7f" }, "position 0"},
		{"non-ASCII in vault", func(id *vault.KeyID) { id.Vault = "é" }, "position 0"},
		{"vault ends with a slash", func(id *vault.KeyID) { id.Vault = "v/" }, "ends with a slash"},
		{"vault contains /keys/", func(id *vault.KeyID) { id.Vault = "v/keys/w" }, `contains "/keys/"`},
		{"vault ends with /keys", func(id *vault.KeyID) { id.Vault = "v/keys" }, `contains "/keys/"`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			id := good
			tt.change(&id)
			err := id.Validate()
			if tt.says != "" {
				require.ErrorContains(t, err, tt.says)
				return
			}
			require.NoError(t, err)
			got, err := vault.ParseKeyID(id.String())
			require.NoError(t, err)
			require.Equal(t, id, got)
		})
	}
}

// What no id may have is quoted wherever one is printed: a name that was read with the end
// of its line does not break the line of a log.
func TestKeyIDsPrintOnOneLine(t *testing.T) {
	for _, bad := range []vault.KeyID{
		{Vault: "v", Name: "kek\r"}, {Vault: "v", Name: "kek\nvault: get v/keys/kek: ok"}, {Vault: "v\x1b[2J", Name: "kek"},
		{Name: "kek", Version: "1\r\n"}, {Vault: "v", Name: "k\u202ek"}, {Vault: "v", Name: "k\xffk"}, {Vault: "v", Name: "k k"},
	} {
		require.Error(t, bad.Validate())
		refused := &vault.Error{Op: vault.OpGet, Key: bad, Kind: vault.ErrKeyNotFound}
		for _, text := range []string{bad.String(), fmt.Sprint(bad), fmt.Sprintf("%v %s", bad, bad), refused.Error(), bad.Validate().Error()} {
			for _, c := range []byte(text) {
				require.True(t, c >= ' ' && c <= '~', "%q", text)
			}
		}
		_, err := vault.ParseKeyID(bad.String())
		require.Error(t, err)
	}
	require.Equal(t, `"v/keys/kek\r"`, vault.KeyID{Vault: "v", Name: "kek\r"}.String())
}

func TestKeyIDVersionless(t *testing.T) {
	id := vault.KeyID{Vault: "v", Name: "kek", Version: version}
	require.Equal(t, vault.KeyID{Vault: "v", Name: "kek"}, id.Versionless())
	require.Equal(t, version, id.Version)
}

// FuzzParseKeyID holds that a text either is refused, or is exactly what String
// gives for a valid id.
func FuzzParseKeyID(f *testing.F) {
	for _, seed := range []string{
		"", "/keys/", "/keys/a", "/keys/a/", "/keys/a/b", "v/keys/keys/keys", "https://contoso.vault.azure.net/keys/kek/" + version,
		"v/keys/a/keys/b", "v//keys/a", "/keys//keys/a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := vault.ParseKeyID(text)
		if err != nil {
			require.Zero(t, id)
			return
		}
		require.NoError(t, id.Validate())
		require.Equal(t, text, id.String())
	})
}

// FuzzKeyIDRoundTrip holds that String of any valid id parses back to it.
func FuzzKeyIDRoundTrip(f *testing.F) {
	f.Add("https://contoso.vault.azure.net", "kek", version)
	f.Add("", "keys", "keys")
	f.Add("keys", "a", "")
	f.Fuzz(func(t *testing.T, v, name, version string) {
		id := vault.KeyID{Vault: v, Name: name, Version: version}
		if id.Validate() != nil {
			return
		}
		got, err := vault.ParseKeyID(id.String())
		require.NoError(t, err)
		require.Equal(t, id, got)
	})
}
