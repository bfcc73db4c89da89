package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/blockseal/blockseal/vault"
)

// show writes a command's result: v as JSON, or what text writes.
func (a *app) show(v any, text func(w *table)) error {
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	t := &table{width: a.tableWidth(), whole: a.whole}
	text(t)
	_, err := io.WriteString(a.out, t.String())
	return err
}

// shown is how a value looks in text.
func shown(v any) string {
	switch v := v.(type) {
	case time.Time:
		if v.IsZero() {
			return "-"
		}
		return v.UTC().Format(time.RFC3339)
	case *time.Time:
		if v == nil {
			return "-"
		}
		return shown(*v)
	case []vault.Operation:
		s := make([]string, len(v))
		for i, op := range v {
			s[i] = string(op)
		}
		return strings.Join(s, " ")
	case bool:
		if v {
			return "yes"
		}
		return "no"
	}
	return fmt.Sprint(v)
}

// date is t for JSON: null if it is not set.
func date(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
