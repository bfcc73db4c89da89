package keyvaulttest

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strconv"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// The JSON of Key Vault's REST interface, as far as it is spoken here.

type jsonKey struct {
	KID    string            `json:"kid,omitempty"`
	Kty    string            `json:"kty,omitempty"`
	KeyOps []vault.Operation `json:"key_ops"` // in every answer, also if there is none
	N      b64               `json:"n,omitempty"`
	E      b64               `json:"e,omitempty"`
	D      b64               `json:"d,omitempty"`
	P      b64               `json:"p,omitempty"`
	Q      b64               `json:"q,omitempty"`
	KeyHSM b64               `json:"key_hsm,omitempty"` // a key transfer blob
}

type attributes struct {
	Enabled         *bool  `json:"enabled,omitempty"`
	NotBefore       *int64 `json:"nbf,omitempty"` // seconds since 1970, as are the others
	Expires         *int64 `json:"exp,omitempty"`
	Created         int64  `json:"created,omitempty"`
	Updated         int64  `json:"updated,omitempty"`
	RecoveryLevel   string `json:"recoveryLevel,omitempty"`
	RecoverableDays int    `json:"recoverableDays,omitempty"`
}

type tags map[string]string

type bundle struct {
	Key        *jsonKey    `json:"key,omitempty"`
	Attributes *attributes `json:"attributes,omitempty"`
	Tags       tags        `json:"tags,omitempty"`
}

type item struct {
	KID        string      `json:"kid"`
	Attributes *attributes `json:"attributes"`
	Tags       tags        `json:"tags,omitempty"`
}

type deleted struct {
	bundle
	RecoveryID    string `json:"recoveryId"`
	Deleted       int64  `json:"deletedDate"`
	ScheduledDate int64  `json:"scheduledPurgeDate"`
}

type deletedItem struct {
	item
	RecoveryID    string `json:"recoveryId"`
	Deleted       int64  `json:"deletedDate"`
	ScheduledDate int64  `json:"scheduledPurgeDate"`
}

type operation struct {
	Algorithm string `json:"alg,omitempty"`
	KID       string `json:"kid,omitempty"`
	Value     b64    `json:"value"`
}

// b64 is bytes in unpadded base64url (RFC 7515, section 2).
type b64 []byte

func (b b64) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString(b)), nil
}

func (b *b64) UnmarshalText(text []byte) (err error) {
	*b, err = base64.RawURLEncoding.DecodeString(string(text))
	return err
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types above
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// failure is an answer that is an error.
type failure struct {
	status               int
	code, inner, message string
}

func (f *failure) write(w http.ResponseWriter) {
	e := map[string]any{"code": f.code, "message": f.message}
	if f.inner != "" {
		e["innererror"] = map[string]any{"code": f.inner}
	}
	writeJSON(w, f.status, map[string]any{"error": e})
}

func badParameter(message string) *failure {
	return &failure{status: 400, code: "BadParameter", message: message}
}

func (s *Server) kid(id vault.KeyID) string {
	id.Vault = s.url
	return id.String()
}

// bundle returns a version's key and attributes.
func (s *Server) bundle(k vault.Key) bundle {
	s.mu.Lock()
	kty := "RSA"
	if s.hsm[k.ID.Name] {
		kty = "RSA-HSM"
	}
	s.mu.Unlock()
	ops := []vault.Operation{}
	for _, op := range k.Operations {
		if op != vault.OpGet { // no key operation of Key Vault's
			ops = append(ops, op)
		}
	}
	b := bundle{
		Key:        &jsonKey{KID: s.kid(k.ID), Kty: kty, KeyOps: ops, N: k.Public.N.Bytes(), E: big.NewInt(int64(k.Public.E)).Bytes()},
		Attributes: s.attributes(k),
		Tags:       s.tagsOf(k.ID),
	}
	if versions, err := s.vault.Versions(context.Background(), k.ID.Name); err == nil {
		for _, v := range versions {
			if v.ID == k.ID {
				b.Attributes.Created, b.Attributes.Updated = v.Created.Unix(), v.Updated.Unix()
			}
		}
	}
	return b
}

// tagsOf returns a version's tags, which the file vault has not, and setTags replaces
// them. They are gone with the process.
func (s *Server) tagsOf(id vault.KeyID) tags {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tags[id.Name+"/"+id.Version]
}

func (s *Server) setTags(id vault.KeyID, t tags) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tags[id.Name+"/"+id.Version] = t
}

func (s *Server) attributes(k vault.Key) *attributes {
	enabled := k.Enabled
	a := &attributes{Enabled: &enabled, RecoveryLevel: "Recoverable+Purgeable", RecoverableDays: 90}
	if !k.NotBefore.IsZero() {
		t := k.NotBefore.Unix()
		a.NotBefore = &t
	}
	if !k.Expires.IsZero() {
		t := k.Expires.Unix()
		a.Expires = &t
	}
	if info, err := s.vault.Info(context.Background()); err == nil {
		a.RecoverableDays = info.RetentionDays
		if info.PurgeProtection {
			a.RecoveryLevel = "Recoverable"
		}
		if info.RetentionDays < 90 {
			a.RecoveryLevel = "Customized" + a.RecoveryLevel
		}
	}
	return a
}

// failureOf words an error of the file vault as Key Vault does.
func (s *Server) failureOf(err error, op, name string, who *identity) *failure {
	var e *vault.Error
	if !errors.As(err, &e) {
		return badParameter(err.Error())
	}
	if name == "" { // of a backup, which the file vault has opened
		name = e.Key.Name
	}
	detail := e.Detail
	if detail == "" { // a message is never empty
		detail = cmp.Or(e.Err, e.Kind).Error()
	}
	caller := "appid=" + who.app + ";oid=" + who.object + ";iss=" + issuer(who.tenant)
	switch e.Kind {
	case vault.ErrKeyNotFound, vault.ErrKeyDeleted:
		if e.Kind == vault.ErrKeyDeleted && slices.Contains([]string{"create", "import", "restore"}, op) {
			return &failure{status: 409, code: "Conflict", inner: "ObjectIsDeletedButRecoverable",
				message: "Key " + name + " is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged."}
		}
		return &failure{status: 404, code: "KeyNotFound",
			message: "A key with (name/id) " + name + " was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command. For help resolving this issue, please see https://go.microsoft.com/fwlink/?linkid=2125182"}
	case vault.ErrKeyDisabled:
		return &failure{status: 403, code: "Forbidden", inner: "KeyDisabled", message: "Operation " + op + " is not allowed on a disabled key."}
	case vault.ErrKeyExpired:
		return &failure{status: 403, code: "Forbidden", message: "Operation " + op + " is not allowed on an expired key."}
	case vault.ErrKeyNotYetValid:
		return &failure{status: 403, code: "Forbidden", message: "Operation " + op + " is not allowed on a key that is not yet valid."}
	case vault.ErrBadCiphertext, vault.ErrUnsupportedKey, local.ErrInvalid, local.ErrCorrupt, local.ErrBackupSecret, local.ErrFIPS, local.ErrWrongPassword:
		if op == "unwrapKey" && e.Kind == vault.ErrBadCiphertext {
			detail = "Error occurred while decoding OAEP padding."
		}
		return badParameter(detail)
	case vault.ErrKeyExists:
		return &failure{status: 409, code: "Conflict", message: "A key with (name/id) " + name + " exists already in this key vault."}
	case vault.ErrAccessDenied:
		switch {
		case e.Code == "KeyOperationForbidden":
			return &failure{status: 403, code: "Forbidden", inner: "KeyOperationForbidden", message: "Operation " + op + " is not permitted on this key."}
		case e.Code != "Forbidden/AccessDenied":
			return &failure{status: 403, code: "Forbidden", message: detail}
		case s.opts.AccessPolicies:
			return &failure{status: 403, code: "Forbidden", inner: "AccessDenied",
				message: "The user, group or application '" + caller + "' does not have keys " + op + " permission on key vault 'contoso;location=westeurope'."}
		}
		return &failure{status: 403, code: "Forbidden", inner: "ForbiddenByRbac",
			message: "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: " +
				caller + "\r\nAction: 'Microsoft.KeyVault/vaults/keys/" + op + "/action'\r\nResource: '/subscriptions/0/resourcegroups/g/providers/microsoft.keyvault/vaults/contoso/keys/" + name +
				"'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: contoso;location=westeurope\r\n"}
	}
	return &failure{status: 500, code: "InternalServerError", message: "The request could not be completed."}
}
