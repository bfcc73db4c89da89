package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
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
	t := &table{w: tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)}
	text(t)
	return t.w.Flush()
}

// table writes columns.
type table struct{ w *tabwriter.Writer }

// row writes cells side by side.
func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			io.WriteString(t.w, "\t")
		}
		fmt.Fprint(t.w, shown(c))
	}
	io.WriteString(t.w, "\n")
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
