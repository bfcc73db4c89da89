package keyvaulttest

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func (s *Server) admin(r *request) *local.Administrator { return s.vault.Administer(r.who.name) }

// keyOptions translates attributes and operations. What Key Vault has and the file
// vault has not (sign, encrypt and their counterparts) is left out.
func keyOptions(a *attributes, ops []vault.Operation) *local.KeyOptions {
	o := &local.KeyOptions{}
	if a != nil {
		o.Disabled = a.Enabled != nil && !*a.Enabled
		o.NotBefore, o.Expires = date(a.NotBefore), date(a.Expires)
	}
	if ops != nil {
		o.Operations = operations(ops)
	}
	return o
}

func operations(ops []vault.Operation) []vault.Operation {
	if slices.Contains(ops, local.OpImport) {
		return []vault.Operation{local.OpImport}
	}
	have := []vault.Operation{vault.OpGet}
	for _, op := range []vault.Operation{vault.OpWrapKey, vault.OpUnwrapKey} {
		if slices.Contains(ops, op) {
			have = append(have, op)
		}
	}
	return have
}

func date(seconds *int64) time.Time {
	if seconds == nil {
		return time.Time{}
	}
	return time.Unix(*seconds, 0)
}

func (s *Server) setKind(name, kty string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hsm[name] = kty == "RSA-HSM"
}

func (s *Server) create(r *request) (any, error) {
	var p struct {
		Kty        string            `json:"kty"`
		Size       int               `json:"key_size"`
		KeyOps     []vault.Operation `json:"key_ops"`
		Attributes *attributes       `json:"attributes"`
		Tags       tags              `json:"tags"`
	}
	if err := r.read(&p); err != nil {
		return nil, err
	}
	if p.Kty != "RSA" && p.Kty != "RSA-HSM" || p.Size != 0 && p.Size != 2048 {
		return nil, badParameter("Only RSA keys of 2048 bits are supported.")
	}
	k, err := keyOrVersion(keyOptions(p.Attributes, p.KeyOps), func(o *local.KeyOptions) (vault.Key, error) {
		return s.admin(r).CreateKey(r.Context(), r.name, o)
	})
	if err != nil {
		return nil, err
	}
	s.setKind(r.name, p.Kty)
	s.setTags(k.ID, p.Tags)
	return s.bundle(k), nil
}

// keyOrVersion makes a key, or a new version of one that exists, as Key Vault does.
func keyOrVersion(o *local.KeyOptions, do func(*local.KeyOptions) (vault.Key, error)) (vault.Key, error) {
	k, err := do(o)
	if errors.Is(err, vault.ErrKeyExists) {
		o.NewVersion = true
		k, err = do(o)
	}
	return k, err
}

func (s *Server) importKey(r *request) (any, error) {
	var p struct {
		Key        jsonKey     `json:"key"`
		HSM        bool        `json:"Hsm"`
		Attributes *attributes `json:"attributes"`
		Tags       tags        `json:"tags"`
	}
	if err := r.read(&p); err != nil {
		return nil, err
	}
	o := keyOptions(p.Attributes, p.Key.KeyOps)
	kty := p.Key.Kty
	if p.HSM {
		kty = "RSA-HSM"
	}
	var k vault.Key
	var err error
	if len(p.Key.KeyHSM) > 0 {
		if kty != "RSA-HSM" {
			return nil, badParameter("A key transfer blob imports a key of type RSA-HSM.")
		}
		blob, ferr := s.ownBlob(p.Key.KeyHSM)
		if ferr != nil {
			return nil, ferr
		}
		k, err = keyOrVersion(o, func(o *local.KeyOptions) (vault.Key, error) {
			return s.admin(r).ImportBYOK(r.Context(), r.name, blob, o)
		})
	} else {
		key := &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: new(big.Int).SetBytes(p.Key.N), E: int(new(big.Int).SetBytes(p.Key.E).Int64())},
			D:         new(big.Int).SetBytes(p.Key.D),
			Primes:    []*big.Int{new(big.Int).SetBytes(p.Key.P), new(big.Int).SetBytes(p.Key.Q)},
		}
		if err := key.Validate(); err != nil {
			return nil, badParameter("The key is not valid.")
		}
		key.Precompute()
		k, err = keyOrVersion(o, func(o *local.KeyOptions) (vault.Key, error) {
			return s.admin(r).ImportKey(r.Context(), r.name, key, o)
		})
	}
	if err != nil {
		return nil, err
	}
	s.setKind(r.name, kty)
	s.setTags(k.ID, p.Tags)
	return s.bundle(k), nil
}

// ownBlob puts the file vault's name in the place of the server's URL in a key
// transfer blob's header, which is not authenticated.
func (s *Server) ownBlob(blob []byte) ([]byte, error) {
	var b map[string]any
	if json.Unmarshal(blob, &b) != nil {
		return nil, badParameter("The key transfer blob is not valid JSON.")
	}
	if h, ok := b["header"].(map[string]any); ok {
		if kid, ok := h["kid"].(string); ok {
			h["kid"] = strings.Replace(kid, s.url, s.vault.ID(), 1)
		}
	}
	return json.Marshal(b)
}

func (s *Server) update(r *request) (any, error) {
	var p struct {
		KeyOps     []vault.Operation          `json:"key_ops"`
		Attributes map[string]json.RawMessage `json:"attributes"`
		Tags       tags                       `json:"tags"`
	}
	if err := r.read(&p); err != nil {
		return nil, err
	}
	var u local.Update
	for name, value := range p.Attributes {
		var n *int64
		switch name {
		case "enabled":
			u.Enabled = new(bool)
			if json.Unmarshal(value, u.Enabled) != nil {
				return nil, badParameter("attributes.enabled is not valid.")
			}
		case "nbf", "exp": // null unsets
			if json.Unmarshal(value, &n) != nil {
				return nil, badParameter("attributes." + name + " is not valid.")
			}
			t := date(n)
			if name == "nbf" {
				u.NotBefore = &t
			} else {
				u.Expires = &t
			}
		}
	}
	if p.KeyOps != nil {
		u.Operations = operations(p.KeyOps)
	}
	k, err := s.admin(r).UpdateKey(r.Context(), r.key(), u)
	if err != nil {
		return nil, err
	}
	if p.Tags != nil {
		s.setTags(k.ID, p.Tags)
	}
	return s.bundle(k), nil
}

func (s *Server) rotate(r *request) (any, error) {
	before, _ := s.vault.GetKey(r.Context(), r.key()) // the new version has its tags
	k, err := s.admin(r).RotateKey(r.Context(), r.name)
	if err != nil {
		return nil, err
	}
	s.setTags(k.ID, s.tagsOf(before.ID))
	return s.bundle(k), nil
}

func (s *Server) backup(r *request) (any, error) {
	b, err := s.admin(r).BackupKey(r.Context(), r.name)
	if err != nil {
		return nil, err
	}
	return operation{Value: b}, nil
}

func (s *Server) restore(r *request) (any, error) {
	var p operation
	if err := r.read(&p); err != nil {
		return nil, err
	}
	k, err := s.admin(r).RestoreKey(r.Context(), p.Value)
	if err != nil {
		return nil, err
	}
	return s.bundle(k), nil
}

func (s *Server) delete(r *request) (any, error) {
	if _, err := s.admin(r).DeleteKey(r.Context(), r.name); err != nil {
		return nil, err
	}
	return s.deleted(r)
}

func (s *Server) recover(r *request) (any, error) {
	k, err := s.admin(r).RecoverKey(r.Context(), r.name)
	if err != nil {
		return nil, err
	}
	return s.bundle(k), nil
}

func (s *Server) purge(r *request) (any, error) {
	err := s.admin(r).PurgeKey(r.Context(), r.name)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.notify, r.name)
	}
	return nil, err
}

// granted asks for a permission that the file vault does not ask for itself.
func (s *Server) granted(r *request, op local.Permission) error {
	ids, err := s.vault.Identities(r.Context())
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id.Name == r.who.name && slices.Contains(id.Grants, op) {
			return nil
		}
	}
	return &vault.Error{Op: op, Kind: vault.ErrAccessDenied, Code: "Forbidden/AccessDenied"}
}

func (s *Server) getDeleted(r *request) (any, error) {
	if err := s.granted(r, vault.OpGet); err != nil {
		return nil, err
	}
	return s.deleted(r)
}

func (s *Server) deleted(r *request) (any, error) {
	all, err := s.vault.ListDeleted(r.Context())
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		if k.Current.ID.Name == r.name {
			return s.deletedKey(k), nil
		}
	}
	return nil, &failure{status: 404, code: "KeyNotFound", message: "Deleted Key not found: " + r.name}
}

func (s *Server) deletedKey(k local.KeyInfo) deleted {
	return deleted{bundle: s.bundle(k.Current.Key), RecoveryID: s.url + "/deletedkeys/" + k.Current.ID.Name,
		Deleted: k.Deleted.Unix(), ScheduledDate: k.PurgeAt.Unix()}
}
