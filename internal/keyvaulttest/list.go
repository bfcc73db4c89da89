package keyvaulttest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// skipToken is where a page begins: after an item. What was made or deleted meanwhile
// moves no other item to another page. Clients do not look into it.
type skipToken struct {
	After string `json:"NextMarker"`
}

// page answers with the items that a request asks for: those after its token, as many
// as it wants. mark returns what items are ordered by, and items are in that order.
func page[T any](s *Server, r *request, items []T, mark func(T) string) (any, error) {
	q := r.URL.Query()
	size := s.opts.PageSize
	if text := q.Get("maxresults"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxPageSize {
			return nil, badParameter("The maxresults " + text + " is not valid: it is 1 to " + strconv.Itoa(MaxPageSize) + ".")
		}
		size = n
	}
	if text := q.Get("$skiptoken"); text != "" {
		var t skipToken
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil || json.Unmarshal(b, &t) != nil {
			return nil, badParameter("The $skiptoken is not valid.")
		}
		for len(items) > 0 && mark(items[0]) <= t.After {
			items = items[1:]
		}
	}
	if len(items) <= size {
		return map[string]any{"value": append([]T{}, items...), "nextLink": nil}, nil
	}
	token, err := json.Marshal(skipToken{mark(items[size-1])})
	if err != nil {
		return nil, err
	}
	base := s.url
	if u, err := url.Parse(s.url); err == nil && u.Port() == "" {
		base += ":443" // as Key Vault writes it
	}
	next := base + r.URL.Path + "?api-version=" + url.QueryEscape(q.Get("api-version")) + "&$skiptoken=" + base64.RawURLEncoding.EncodeToString(token)
	if text := q.Get("maxresults"); text != "" {
		next += "&maxresults=" + text
	}
	return map[string]any{"value": items[:size], "nextLink": next}, nil
}

func (s *Server) list(r *request) (any, error) {
	all, err := s.admin(r).ListKeys(r.Context()) // by name
	if err != nil {
		return nil, err
	}
	items := []item{}
	for _, k := range all {
		items = append(items, item{KID: s.kid(k.Current.ID.Versionless()), Attributes: s.versionAttributes(k.Current), Tags: s.tagsOf(k.Current.ID)})
	}
	return page(s, r, items, func(i item) string { return i.KID })
}

// versions lists a key's versions, of which Key Vault promises no order: here, that of
// their names, which are random. Of a key that is not there it lists none.
func (s *Server) versions(r *request) (any, error) {
	all, err := s.admin(r).Versions(r.Context(), r.name)
	if errors.Is(err, vault.ErrKeyNotFound) || errors.Is(err, vault.ErrKeyDeleted) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	items := []item{}
	for _, v := range all {
		items = append(items, item{KID: s.kid(v.ID), Attributes: s.versionAttributes(v), Tags: s.tagsOf(v.ID)})
	}
	slices.SortFunc(items, func(x, y item) int { return strings.Compare(x.KID, y.KID) })
	return page(s, r, items, func(i item) string { return i.KID })
}

func (s *Server) versionAttributes(v local.KeyVersion) *attributes {
	a := s.attributes(v.Key)
	a.Created, a.Updated = v.Created.Unix(), v.Updated.Unix()
	return a
}

func (s *Server) listDeleted(r *request) (any, error) {
	all, err := s.admin(r).ListDeleted(r.Context()) // by name
	if err != nil {
		return nil, err
	}
	items := []deletedItem{}
	for _, k := range all {
		d := s.deletedKey(k)
		items = append(items, deletedItem{item: item{KID: s.kid(k.Current.ID.Versionless()), Attributes: d.Attributes, Tags: d.Tags},
			RecoveryID: d.RecoveryID, Deleted: d.Deleted, ScheduledDate: d.ScheduledDate})
	}
	return page(s, r, items, func(i deletedItem) string { return i.KID })
}
