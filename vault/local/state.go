package local

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/blockseal/blockseal/internal/keyfile"
	"github.com/blockseal/blockseal/vault"
)

// The body of a vault file is one JSON object (RFC 8259) without insignificant
// space, its members in this order. Times are whole seconds since 1970 UTC, 0 or
// absent for "not set"; bytes are base64 with padding (RFC 4648, section 4).
//
//	{
//	  "created":          time
//	  "seen":             time: the clock at the last change
//	  "retention_days":   7 to 90
//	  "purge_protection": boolean
//	  "backup_secret":    bytes: 32 bytes sealed under the master key, 60 in all
//	  "keys": [ by ascending name
//	    {
//	      "name":     as vault.KeyID's
//	      "versions": [ oldest first; the last is the current one
//	        {
//	          "version":    32 lower-case hexadecimal digits
//	          "created":    time
//	          "updated":    time
//	          "enabled":    boolean
//	          "not_before": time
//	          "expires":    time
//	          "operations": [ "get", "wrapKey", "unwrapKey" or "import" ]
//	          "public":     bytes: SubjectPublicKeyInfo (RFC 5280), DER
//	          "private":    bytes: PKCS#8 PrivateKeyInfo (RFC 5208), DER, sealed under the master key
//	        } ]
//	      "policy": absent, or
//	        {
//	          "rotate_after":         seconds
//	          "rotate_before_expiry": seconds
//	          "expires_after":        seconds
//	          "notify_before":        seconds, or -1 for no notices
//	        }
//	      "deleted":  time
//	      "purge_at": time; present when "deleted" is
//	      "kept":     seconds of the retention that were seen to pass; see retention.go
//	    } ]
//	  "identities": [ by ascending name
//	    {
//	      "name":   string
//	      "grants": [ permissions, ascending ]
//	    } ]
//	}
//
// The AADs of what is sealed in it stand in seal.go.
type state struct {
	Created         int64       `json:"created"`
	Seen            int64       `json:"seen"`
	RetentionDays   int         `json:"retention_days"`
	PurgeProtection bool        `json:"purge_protection"`
	BackupSecret    []byte      `json:"backup_secret"`
	Keys            []*key      `json:"keys"`
	Identities      []*identity `json:"identities"`
}

type key struct {
	Name     string     `json:"name"`
	Versions []*version `json:"versions"`
	Policy   *policy    `json:"policy,omitempty"`
	Deleted  int64      `json:"deleted,omitempty"`
	PurgeAt  int64      `json:"purge_at,omitempty"`
	Kept     int64      `json:"kept,omitempty"`
}

type version struct {
	ID         string            `json:"version"`
	Created    int64             `json:"created"`
	Updated    int64             `json:"updated"`
	Enabled    bool              `json:"enabled"`
	NotBefore  int64             `json:"not_before,omitempty"`
	Expires    int64             `json:"expires,omitempty"`
	Operations []vault.Operation `json:"operations"`
	Public     []byte            `json:"public"`
	Private    []byte            `json:"private"`

	public *rsa.PublicKey    // parsed Public; not to be changed
	digest [sha256.Size]byte // of Private: what a parsed private key is cached by
}

type policy struct {
	RotateAfter        int64 `json:"rotate_after,omitempty"`
	RotateBeforeExpiry int64 `json:"rotate_before_expiry,omitempty"`
	ExpiresAfter       int64 `json:"expires_after,omitempty"`
	NotifyBefore       int64 `json:"notify_before,omitempty"`
}

type identity struct {
	Name   string       `json:"name"`
	Grants []Permission `json:"grants"`
}

const (
	versionDigits = 32
	maxUnix       = 253402300799 // 9999-12-31T23:59:59Z
)

func (st *state) encode() ([]byte, error) {
	if err := st.prepare(); err != nil {
		return nil, err
	}
	return json.Marshal(st)
}

// decodeState parses a body and checks all that the rest of the package relies
// on. A body that opened was written by this package; the checks keep a mistake
// in one release from becoming a wrong answer in another.
func decodeState(body []byte) (*state, error) {
	st := new(state)
	if err := decodeJSON(body, st); err != nil {
		return nil, err
	}
	if err := st.prepare(); err != nil {
		return nil, err
	}
	return st, nil
}

func decodeJSON(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return keyfile.JSONError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON object")
	}
	return nil
}

// prepare checks st and fills in what is derived.
func (st *state) prepare() error {
	if st.RetentionDays < MinRetentionDays || st.RetentionDays > MaxRetentionDays || !validTime(st.Created) || !validTime(st.Seen) {
		return errors.New("its retention or its date is out of bounds")
	}
	if len(st.BackupSecret) != keySize+overhead {
		return errors.New("its backup secret is missing")
	}
	for i, k := range st.Keys {
		if k == nil || i > 0 && st.Keys[i-1].Name >= k.Name {
			return errors.New("its keys are not in order")
		}
		if err := k.prepare(); err != nil {
			return err
		}
		for _, v := range k.Versions {
			if len(v.Private) <= overhead {
				return fmt.Errorf("key %q: version %s has no private key", k.Name, v.ID)
			}
			if v.digest == ([sha256.Size]byte{}) {
				v.digest = sha256.Sum256(v.Private)
			}
		}
	}
	for i, id := range st.Identities {
		if id == nil || i > 0 && st.Identities[i-1].Name >= id.Name || checkIdentity(id.Name) != nil {
			return errors.New("its identities are not in order")
		}
		for j, p := range id.Grants {
			if !slices.Contains(Permissions(), p) || j > 0 && id.Grants[j-1] >= p {
				return fmt.Errorf("identity %q: its grants are not in order", id.Name)
			}
		}
	}
	return nil
}

// prepare checks everything but the private keys: a backup has those elsewhere.
func (k *key) prepare() error {
	if err := checkName(k.Name); err != nil {
		return err
	}
	if len(k.Versions) == 0 {
		return fmt.Errorf("key %q has no versions", k.Name)
	}
	if (k.Deleted == 0) != (k.PurgeAt == 0) || k.Deleted > k.PurgeAt || !validTime(k.Deleted) || !validTime(k.PurgeAt) ||
		!validTime(k.Kept) || k.Deleted == 0 && k.Kept != 0 {
		return fmt.Errorf("key %q: its dates are out of bounds", k.Name)
	}
	if k.Policy != nil {
		if err := k.Policy.validate(); err != nil {
			return fmt.Errorf("key %q: %w", k.Name, err)
		}
	}
	seen := make(map[string]bool, len(k.Versions))
	for _, v := range k.Versions {
		if v == nil || !validVersion(v.ID) || seen[v.ID] {
			return fmt.Errorf("key %q: a version is malformed or there twice", k.Name)
		}
		seen[v.ID] = true
		if err := v.prepare(); err != nil {
			return fmt.Errorf("key %q version %s: %w", k.Name, v.ID, err)
		}
	}
	return nil
}

func (v *version) prepare() error {
	if !validTime(v.Created) || !validTime(v.Updated) {
		return errors.New("its dates are out of bounds")
	}
	if err := checkDates(v.NotBefore, v.Expires); err != nil {
		return err
	}
	if err := checkOperations(v.Operations); err != nil {
		return err
	}
	if v.public != nil {
		return nil
	}
	parsed, err := x509.ParsePKIXPublicKey(v.Public)
	pub, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok {
		return errors.New("its public key is malformed")
	}
	if err := keyfile.CheckPublic(pub); err != nil {
		return err
	}
	v.public = pub
	return nil
}

func validTime(unix int64) bool { return unix >= 0 && unix <= maxUnix }

func validVersion(s string) bool {
	return len(s) == versionDigits && strings.Trim(s, "0123456789abcdef") == ""
}

func checkName(name string) error { return vault.KeyID{Name: name}.Validate() }

// clone returns a copy that shares nothing with st that is ever changed.
func (st *state) clone() *state {
	c := *st
	c.Keys = make([]*key, len(st.Keys))
	for i, k := range st.Keys {
		c.Keys[i] = k.clone()
	}
	c.Identities = make([]*identity, len(st.Identities))
	for i, id := range st.Identities {
		c.Identities[i] = &identity{Name: id.Name, Grants: slices.Clone(id.Grants)}
	}
	return &c
}

func (k *key) clone() *key {
	c := *k
	if k.Policy != nil {
		p := *k.Policy
		c.Policy = &p
	}
	c.Versions = make([]*version, len(k.Versions))
	for i, v := range k.Versions {
		w := *v
		w.Operations = slices.Clone(v.Operations)
		c.Versions[i] = &w
	}
	return &c
}

func byKeyName(k *key, name string) int { return strings.Compare(k.Name, name) }

// key returns the key of a name, deleted or not, or nil.
func (st *state) key(name string) *key {
	i, ok := slices.BinarySearchFunc(st.Keys, name, byKeyName)
	if !ok {
		return nil
	}
	return st.Keys[i]
}

// put adds a key whose name is free.
func (st *state) put(k *key) {
	i, _ := slices.BinarySearchFunc(st.Keys, k.Name, byKeyName)
	st.Keys = slices.Insert(st.Keys, i, k)
}

func (st *state) drop(name string) {
	st.Keys = slices.DeleteFunc(st.Keys, func(k *key) bool { return k.Name == name })
}

func (k *key) current() *version { return k.Versions[len(k.Versions)-1] }

// version returns the version of an id, or the current one for "", or nil.
func (k *key) version(id string) *version {
	if id == "" {
		return k.current()
	}
	for _, v := range k.Versions {
		if v.ID == id {
			return v
		}
	}
	return nil
}
