package transitvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// maxAnswer bounds an answer in bytes: a key with a thousand versions has less.
const maxAnswer = 1 << 20

// call makes one request and decodes the data of its answer. Each error says which operation on
// which key, and which kind it is: the difference between "no" and "no answer" decides whether
// a store closes now or at the end of its lease.
func (v *Vault) call(ctx context.Context, op vault.Operation, id vault.KeyID, method, path string, body, into any) error {
	refuse := func(kind error, detail string, cause error) error {
		return &vault.Error{Op: op, Key: id, Kind: kind, Detail: detail, Err: cause}
	}
	if err := ctx.Err(); err != nil {
		return refuse(vault.ErrUnavailable, "", err)
	}
	token, err := v.token(ctx)
	if err != nil { // nothing is known about the key
		return refuse(vault.ErrUnavailable, "there is no token to be had", err)
	}
	var sent io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return refuse(vault.ErrUnavailable, "the request cannot be made", err)
		}
		defer clear(b)
		sent = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, v.mount+"/"+path, sent)
	if err != nil {
		return refuse(vault.ErrUnavailable, "the request cannot be made", err)
	}
	r.Header.Set("X-Vault-Token", token)
	r.Header.Set("X-Vault-Request", "true")
	answer, err := v.client.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL, which the key's id has
		}
		return refuse(vault.ErrUnavailable, "the vault cannot be reached", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	defer clear(text)
	if err != nil {
		return refuse(vault.ErrUnavailable, "the vault's answer broke off", err)
	}
	if answer.StatusCode != http.StatusOK {
		return refused(op, id, answer, text)
	}
	var data struct {
		RequestID string          `json:"request_id"`
		Data      json.RawMessage `json:"data"`
	}
	if err = json.Unmarshal(text, &data); err == nil {
		err = json.Unmarshal(data.Data, into)
	}
	clear(data.Data)
	if err != nil { // whose text may quote the answer
		return refuse(vault.ErrUnavailable, "something that is not the vault answered, or its answer is cut short; check the URL", nil)
	}
	vault.NoteRequestID(ctx, data.RequestID)
	return nil
}

// refused sorts an answer that is no success. Its texts are the engine's; they are looked at,
// and not passed on.
func refused(op vault.Operation, id vault.KeyID, answer *http.Response, body []byte) error {
	e := &vault.Error{Op: op, Key: id, Code: strconv.Itoa(answer.StatusCode), Kind: vault.ErrUnavailable}
	var said struct {
		Errors *[]string `json:"errors"`
	}
	if json.Unmarshal(body, &said) != nil || said.Errors == nil {
		e.Detail = "something that is not the vault answered; check the URL, and what stands between"
		return e
	}
	text := strings.Join(*said.Errors, "; ")
	switch s := answer.StatusCode; {
	case s == http.StatusForbidden:
		e.Kind = vault.ErrAccessDenied
		e.Detail = fmt.Sprintf("the token's policy does not permit it, or the token is over; it needs read on keys/%[1]s, and update on encrypt/%[1]s and decrypt/%[1]s", id.Name)
	case s == http.StatusNotFound, strings.Contains(text, "encryption key not found"):
		e.Kind, e.Detail = vault.ErrKeyNotFound, "there is no such key, or it was deleted"
	case s == http.StatusTooManyRequests:
		e.Kind, e.Detail = vault.ErrThrottled, "too many requests to this vault"
		if n, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && n > 0 {
			e.RetryAfter = time.Duration(n) * time.Second
		}
	case s == http.StatusBadRequest && (strings.Contains(text, "version is too new") || strings.Contains(text, "higher than the latest")):
		e.Kind, e.Detail = vault.ErrKeyNotFound, "the key has no such version"
	case s == http.StatusBadRequest && (strings.Contains(text, "too old") || strings.Contains(text, "less than the minimum")):
		e.Kind, e.Detail = vault.ErrKeyDisabled, "the version is below the key's min_decryption_version; lower that to use it"
	case s == http.StatusBadRequest && op == vault.OpUnwrapKey:
		e.Kind, e.Detail = vault.ErrBadCiphertext, "it was wrapped by another key version, or altered"
	case s == http.StatusBadRequest && op == vault.OpWrapKey:
		e.Kind, e.Detail = vault.ErrUnsupportedKey, "the key does not encrypt a secret of this size; make it with type=rsa-2048"
	default: // also a vault that is sealed, or standing by
		e.Detail = "the vault cannot serve now; try again later"
	}
	return e
}
