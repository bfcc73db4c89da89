package keyvaulttest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/blockseal/blockseal/vault/local"
)

// identity is a caller: an application in a tenant.
type identity struct {
	name, app, object, tenant, secret string
	deleted                           bool
}

// Identity is what a caller needs to sign in to the server's authority.
type Identity struct{ Name, ClientID, ClientSecret, TenantID, ObjectID string }

// AddIdentity makes an identity with grants, or gives one that exists more of them.
func (s *Server) AddIdentity(name string, grants ...local.Permission) (Identity, error) {
	if err := s.vault.Grant(context.Background(), name, grants...); err != nil {
		return Identity{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.byName(name)
	if id == nil {
		sum := sha256.Sum256([]byte(name)) // the same in each run, so that texts are
		id = &identity{name: name, app: guid(sum[:16]), object: guid(sum[16:]), tenant: s.opts.Tenant, secret: randomHex(20)}
		s.identities[id.app] = id
	}
	return Identity{Name: name, ClientID: id.app, ClientSecret: id.secret, TenantID: id.tenant, ObjectID: id.object}, nil
}

// DeleteIdentity lets an identity's tokens not be accepted any more; RecoverIdentity
// undoes that.
func (s *Server) DeleteIdentity(name string)  { s.setDeleted(name, true) }
func (s *Server) RecoverIdentity(name string) { s.setDeleted(name, false) }

// SetTenant moves the vault to another tenant, as when its subscription is transferred:
// tokens of its old tenant are not accepted any more, and its identities are still of
// that.
func (s *Server) SetTenant(tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tenant = tenant
}

func (s *Server) setDeleted(name string, deleted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byName(name).deleted = deleted
}

func (s *Server) byName(name string) *identity {
	for _, id := range s.identities {
		if id.name == name {
			return id
		}
	}
	return nil
}

func guid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// claims is what a token says. The names are those of Microsoft's tokens.
type claims struct {
	Audience string `json:"aud"`
	Issuer   string `json:"iss"`
	App      string `json:"appid"`
	Object   string `json:"oid"`
	Expires  int64  `json:"exp"`
	ID       string `json:"uti"`
}

const tokenLifetime = time.Hour

// token issues a token: a JSON Web Token (RFC 7519) with HMAC-SHA256.
func (s *Server) token(id *identity, audience string) (string, time.Time) {
	expires := time.Now().Add(tokenLifetime)
	c, err := json.Marshal(claims{Audience: audience, Issuer: issuer(id.tenant), App: id.app, Object: id.object, Expires: expires.Unix(), ID: randomHex(8)})
	if err != nil {
		panic(err) // strings and a number
	}
	enc := base64.RawURLEncoding.EncodeToString
	signed := enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc(c)
	return signed + "." + enc(s.sign(signed)), expires
}

func issuer(tenant string) string { return "https://sts.windows.net/" + tenant + "/" }

func (s *Server) sign(text string) []byte {
	m := hmac.New(sha256.New, s.secret)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// caller returns who sent a request, or the answer that refuses it.
func (s *Server) caller(r *http.Request) (*identity, *failure) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, &failure{status: 401, code: "Unauthorized", message: "AKV10000: Request is missing a Bearer or PoP token."}
	}
	refuse := func(format string, args ...any) (*identity, *failure) {
		return nil, &failure{status: 401, code: "Unauthorized", message: fmt.Sprintf(format, args...)}
	}
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return refuse("AKV10001: Error validating token: IDX10511")
	}
	mac, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	if err != nil || subtle.ConstantTimeCompare(mac, s.sign(token[:i])) != 1 {
		return refuse("AKV10001: Error validating token: IDX10511")
	}
	_, payload, _ := strings.Cut(token[:i], ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	var c claims
	if err != nil || json.Unmarshal(text, &c) != nil {
		return refuse("AKV10001: Error validating token: IDX10511")
	}
	switch want := issuer(s.Tenant()); {
	case c.Issuer != want:
		return refuse("AKV10032: Invalid issuer. Expected one of %s, found %s.", want, c.Issuer)
	case c.Audience != s.opts.Audience:
		return refuse("AKV10022: Invalid audience. Expected %s, found: %s.", s.opts.Audience, c.Audience)
	case time.Now().Unix() >= c.Expires:
		return refuse("AKV10001: Error validating token: IDX10223")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.identities[c.App]
	if id == nil || id.deleted {
		return refuse("AKV10001: Error validating token: the principal does not exist")
	}
	found := *id
	return &found, nil
}

// challenge tells the client where to get a token.
func (s *Server) challenge(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="https://login.microsoftonline.com/%s", resource="%s"`, s.Tenant(), s.opts.Audience))
}

// Credential returns an identity's credential. It asks the server for a token without
// a request, and answers for whatever tenant it is asked, as a single-tenant
// application does not.
func (s *Server) Credential(name string) azcore.TokenCredential {
	return credential(func(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
		if err := ctx.Err(); err != nil {
			return azcore.AccessToken{}, err
		}
		if len(o.Scopes) != 1 {
			return azcore.AccessToken{}, errors.New("keyvaulttest: want one scope")
		}
		s.mu.Lock()
		id := s.byName(name)
		s.mu.Unlock()
		if id == nil {
			return azcore.AccessToken{}, fmt.Errorf("keyvaulttest: no identity %q", name)
		}
		token, expires := s.token(id, strings.TrimSuffix(o.Scopes[0], "/.default"))
		return azcore.AccessToken{Token: token, ExpiresOn: expires}, nil
	})
}

type credential func(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error)

func (c credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return c(ctx, o)
}

// authority is the part of Microsoft Entra ID that a client with a secret needs: the
// discovery document and the token endpoint (RFC 6749, section 4.4). It reports
// whether the request was for it.
func (s *Server) authority(w http.ResponseWriter, r *http.Request) bool {
	base := "/" + s.opts.Tenant // the identities'
	switch {
	case r.Method == http.MethodGet && r.URL.Path == base+"/v2.0/.well-known/openid-configuration":
		host := "https://" + r.Host + base
		writeJSON(w, 200, map[string]any{
			"token_endpoint":         host + "/oauth2/v2.0/token",
			"authorization_endpoint": host + "/oauth2/v2.0/authorize",
			"issuer":                 host + "/v2.0",
			// The JavaScript client takes no document without it.
			"jwks_uri":                              host + "/discovery/v2.0/keys",
			"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
			"response_modes_supported":              []string{"query"},
			"response_types_supported":              []string{"token"},
			"subject_types_supported":               []string{"pairwise"},
			"id_token_signing_alg_values_supported": []string{"HS256"},
			"scopes_supported":                      []string{"openid"},
		})
	case r.Method == http.MethodGet && r.URL.Path == base+"/discovery/v2.0/keys":
		// Tokens are authenticated with a secret of the server's, which has no public half.
		writeJSON(w, 200, map[string]any{"keys": []any{}})
	case r.Method == http.MethodPost && r.URL.Path == base+"/oauth2/v2.0/token":
		s.mu.Lock()
		id := s.identities[r.PostFormValue("client_id")]
		s.mu.Unlock()
		switch {
		case id == nil || id.deleted:
			signInRefused(w, 400, "unauthorized_client", 700016, "Application was not found in the directory.")
		case subtle.ConstantTimeCompare([]byte(r.PostFormValue("client_secret")), []byte(id.secret)) != 1:
			signInRefused(w, 401, "invalid_client", 7000215, "Invalid client secret provided.")
		default:
			// Clients ask for the scopes openid, offline_access and profile besides.
			scope, _, _ := strings.Cut(r.PostFormValue("scope"), " ")
			token, _ := s.token(id, strings.TrimSuffix(scope, "/.default"))
			writeJSON(w, 200, map[string]any{"token_type": "Bearer", "expires_in": int(tokenLifetime.Seconds()), "access_token": token})
		}
	default:
		return false
	}
	return true
}

// signInRefused answers as Microsoft Entra ID refuses a token (RFC 6749, section 5.2, with
// its own numbers beside).
func signInRefused(w http.ResponseWriter, status int, kind string, code int, text string) {
	writeJSON(w, status, map[string]any{"error": kind, "error_description": fmt.Sprintf("AADSTS%d: %s", code, text), "error_codes": []int{code}})
}
