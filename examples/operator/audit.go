package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/vault/audit"
)

func (a *app) auditCommand() *cobra.Command {
	c := a.group("audit", "read and verify an audit log", `Audit reads the log that --audit and programs write: a chain of records, each with the
hash of the one before, over files that follow one another in a directory.`)
	c.AddCommand(a.auditShow(), a.auditVerify())
	return c
}

// heads are what is known of a log from elsewhere.
type heads struct{ head, headFile, after string }

func (h *heads) add(c *cobra.Command) {
	c.Flags().StringVar(&h.head, "head", "", "the head, SEQ:HASH, that was kept: the log must contain that very record")
	c.Flags().StringVar(&h.headFile, "head-file", "", "`file` with the head that was kept; one that does not exist is none")
	c.Flags().StringVar(&h.after, "after", "", "the head of the last record that was archived away from the front")
	c.MarkFlagsMutuallyExclusive("head", "head-file")
}

func (h *heads) options() (*audit.VerifyOptions, error) {
	var o audit.VerifyOptions
	head := h.head
	if h.headFile != "" {
		b, err := os.ReadFile(h.headFile)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		head = strings.TrimSpace(string(b))
	}
	for _, h := range []struct {
		text string
		to   *audit.Head
	}{{head, &o.Head}, {h.after, &o.After}} {
		if h.text == "" {
			continue
		}
		var err error
		if *h.to, err = audit.ParseHead(h.text); err != nil {
			return nil, usageError{err}
		}
	}
	return &o, nil
}

type recordView struct {
	Time      time.Time `json:"time"`
	Event     string    `json:"event"`
	Identity  string    `json:"identity,omitempty"`
	Store     string    `json:"store,omitempty"`
	Operation string    `json:"operation,omitempty"`
	Key       string    `json:"key,omitempty"`
	Version   string    `json:"version,omitempty"`
	Outcome   string    `json:"outcome,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Duration  string    `json:"duration,omitempty"`
	Count     uint64    `json:"count,omitempty"`
}

func (a *app) auditShow() *cobra.Command {
	var h heads
	var identity, store, key, outcome string
	var since timeFlag
	c := a.command("show DIR", "show the records, each verified", `Show shows the records of the log in DIR, or those that the flags ask for. It verifies
on the way, and ends with exit status 4 at the first record that is not what was
written.`, func(ctx context.Context, args []string) error {
		o, err := h.options()
		if err != nil {
			return err
		}
		log, err := audit.ReadDir(args[0])
		if err != nil {
			return err
		}
		defer log.Close()
		views := []recordView{}
		var bad error
		for r, err := range audit.Records(log, o) {
			if err != nil {
				bad = err
				break
			}
			if identity != "" && r.Identity != identity || store != "" && r.Store != store && filepath.Base(r.Store) != store ||
				key != "" && r.Key != key && !strings.HasSuffix(r.Key, "/keys/"+key) ||
				outcome != "" && string(r.Outcome) != outcome || since.set && r.Time.Before(since.t) {
				continue
			}
			v := recordView{Time: r.Time, Event: string(r.Event), Identity: r.Identity, Store: r.Store, Operation: string(r.Operation),
				Key: r.Key, Version: r.Version, Outcome: string(r.Outcome), Reason: r.Reason, Detail: r.Detail, Count: r.Count}
			if r.Duration != 0 {
				v.Duration = r.Duration.String()
			}
			views = append(views, v)
		}
		return errors.Join(a.show(views, func(t *table) {
			t.row("TIME", "IDENTITY", "OPERATION", "OUTCOME", "KEY", "VERSION", "STORE", "DETAIL")
			for _, v := range views {
				what := v.Operation
				if what == "" {
					what = v.Event
				}
				name := v.Key[strings.LastIndex(v.Key, "/")+1:]
				detail := strings.TrimPrefix(v.Reason+", "+v.Detail, ", ")
				t.row(v.Time, dash(v.Identity), what, dash(v.Outcome), dash(name), dash(v.Version), dash(v.Store), strings.TrimSuffix(detail, ", "))
			}
		}), bad)
	})
	h.add(c)
	c.Flags().StringVar(&identity, "by", "", "only what this `identity` did; the owner is \"vault owner\"")
	c.Flags().StringVar(&store, "store", "", "only what was done for this `store`: its directory, or the last part of it")
	c.Flags().StringVar(&key, "key", "", "only what was done with the key of this `name`")
	c.Flags().StringVar(&outcome, "outcome", "", "only with this outcome: `ok|denied|unavailable|failed`")
	c.Flags().Var(&since, "since", "only since "+timeHelp)
	return c
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) auditVerify() *cobra.Command {
	var h heads
	var save string
	c := a.command("verify DIR", "verify a log", `Verify checks that every record of the log in DIR is what was written, and that none is
missing, in all its files. Whoever can write the log can cut off its end, or write all
of it anew; that is found only with a head that was kept where they cannot change it:
--head or --head-file, and --save-head for the next time.

Exit status 4 if anything is wrong, or if the last record is unfinished: then the
program was stopped while writing it, or is at work.`, func(ctx context.Context, args []string) error {
		o, err := h.options()
		if err != nil {
			return err
		}
		log, err := audit.ReadDir(args[0])
		if err != nil {
			return err
		}
		defer log.Close()
		files, err := audit.Files(args[0])
		if err != nil {
			return err
		}
		r, bad := audit.Verify(log, o)
		if bad == nil && save != "" {
			if err := saveHead(save, r.Head); err != nil {
				return err
			}
		}
		view := struct {
			OK      bool   `json:"ok"`
			Files   int    `json:"files"`
			Records uint64 `json:"records"`
			Lost    uint64 `json:"lost"`
			Torn    int    `json:"tornBytes"`
			Head    string `json:"head"`
		}{bad == nil, len(files), r.Records, r.Lost, r.Torn, r.Head.String()}
		return errors.Join(a.show(view, func(t *table) {
			t.row("verified", view.OK)
			t.row("files", view.Files)
			t.row("records in order", view.Records)
			t.row("records lost", view.Lost)
			t.row("head", view.Head)
		}), bad)
	})
	h.add(c)
	c.Flags().StringVar(&save, "save-head", "", "if all is well, write the head to this `file`; the next time, --head-file reads it")
	return c
}

// saveHead replaces a file by one with the head.
func saveHead(path string, head audit.Head) error {
	tmp := path + ".new"
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(bytes.TrimSpace(old), []byte(head.String())) {
		return nil
	}
	if err := os.WriteFile(tmp, fmt.Appendln(nil, head), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
