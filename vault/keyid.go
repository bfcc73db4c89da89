package vault

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits of a [KeyID]'s parts in bytes. Names and versions follow Key Vault,
// whose names have 1 to 127 characters of 0-9, a-z, A-Z and "-" and whose
// versions are 32 hexadecimal digits.
const (
	MaxVaultLen   = 512
	MaxNameLen    = 127
	MaxVersionLen = 127
)

const keysSegment = "/keys/"

// KeyID names a key in a vault. It is comparable.
type KeyID struct {
	Vault   string // the vault's own name for itself, such as "https://contoso.vault.azure.net"
	Name    string
	Version string // "" is the current version
}

// String returns "VAULT/keys/NAME/VERSION", the form of a Key Vault key
// identifier; without a version it ends after the name, without a vault it
// starts with "/keys/". [ParseKeyID] reads it back.
//
// An id that is not valid, such as one whose name ends with a carriage return, may have
// characters in it that no valid one has; it is quoted then, as by [strconv.QuoteToASCII],
// so that it shows in an error or a log what it is and cannot write lines of its own there.
func (id KeyID) String() string {
	s := id.Vault + keysSegment + id.Name
	if id.Version != "" {
		s += "/" + id.Version
	}
	for i := range len(s) {
		if !printable(s[i]) {
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}

// Canonical returns id with its vault in the one spelling that ids are compared in. Of
// an https URL, scheme and host are in lower case (RFC 3986, section 6.2.2.1), port 443
// and one slash at the end are left out (section 6.2.3), as in the ids that Key Vault
// gives. Any other vault stays as it is, and so do name and version.
func (id KeyID) Canonical() KeyID {
	const scheme = "https://"
	if len(id.Vault) < len(scheme) || !strings.EqualFold(id.Vault[:len(scheme)], scheme) {
		return id
	}
	host, path, _ := strings.Cut(id.Vault[len(scheme):], "/")
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	if path != "" {
		host += "/" + path
	}
	id.Vault = scheme + host
	return id
}

func printable(c byte) bool { return c > ' ' && c <= '~' }

// Versionless returns id without its version.
func (id KeyID) Versionless() KeyID {
	id.Version = ""
	return id
}

// Validate reports whether the parts of id are within their limits and
// alphabets, so that String is unambiguous. The vault may be empty.
func (id KeyID) Validate() error {
	if len(id.Vault) > MaxVaultLen {
		return fmt.Errorf("vault: key id: the vault has %d bytes, the most is %d", len(id.Vault), MaxVaultLen)
	}
	for i := range len(id.Vault) {
		if !printable(id.Vault[i]) {
			return fmt.Errorf("vault: key id: the vault has a byte outside printable ASCII at position %d: %+.100q", i, id.Vault)
		}
	}
	if strings.HasSuffix(id.Vault, "/") {
		return fmt.Errorf("vault: key id: the vault %q ends with a slash", id.Vault)
	}
	if strings.Contains(id.Vault+"/", keysSegment) {
		return fmt.Errorf("vault: key id: the vault %q contains %q", id.Vault, keysSegment)
	}
	if err := checkPart("name", id.Name, MaxNameLen); err != nil {
		return err
	}
	if id.Version == "" {
		return nil
	}
	return checkPart("version", id.Version, MaxVersionLen)
}

func checkPart(what, s string, most int) error {
	if s == "" || len(s) > most {
		return fmt.Errorf("vault: key id: the %s has %d characters, want 1 to %d", what, len(s), most)
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			return fmt.Errorf("vault: key id: the %s may have 0-9, a-z, A-Z and \"-\" only, not %q: %+q", what, s[i:i+1], s)
		}
	}
	return nil
}

// ParseKeyID parses what [KeyID.String] returns, among it the key identifiers
// of Key Vault ("https://contoso.vault.azure.net/keys/name/version").
func ParseKeyID(s string) (KeyID, error) {
	i := strings.Index(s, keysSegment) // the vault cannot contain it
	if i < 0 {
		return KeyID{}, fmt.Errorf("vault: key id: no %q; want VAULT/keys/NAME or VAULT/keys/NAME/VERSION", keysSegment)
	}
	id := KeyID{Vault: s[:i]}
	name, version, versioned := strings.Cut(s[i+len(keysSegment):], "/")
	id.Name, id.Version = name, version
	if versioned && version == "" {
		return KeyID{}, fmt.Errorf("vault: key id: it ends with a slash, want a version after it")
	}
	if err := id.Validate(); err != nil {
		return KeyID{}, err
	}
	return id, nil
}
