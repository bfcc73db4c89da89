package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/blockseal/blockseal/block"
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
	c.Flags().StringVar(&h.head, "head", "", "the head, LOG:SEQ:HASH, that was kept: the log must contain that very record")
	c.Flags().StringVar(&h.headFile, "head-file", "", "`file` with the head that was kept; it must be there, but for the first use together with --save-head")
	c.Flags().StringVar(&h.after, "after", "", "the head of the last record that was archived away from the front")
	c.MarkFlagsMutuallyExclusive("head", "head-file")
}

// headOptions returns what is known. save is the file that the head is to be saved to, or
// "": if it is the head's file, that need not be there yet.
func (a *app) headOptions(h *heads, save string) (*audit.VerifyOptions, error) {
	var o audit.VerifyOptions
	for _, h := range []struct {
		text string
		to   *audit.Head
	}{{h.head, &o.Head}, {h.after, &o.After}} {
		if h.text == "" {
			continue
		}
		var err error
		if *h.to, err = audit.ParseHead(h.text); err != nil {
			return nil, usageError{err}
		}
	}
	if h.headFile == "" {
		return &o, nil
	}
	b, err := os.ReadFile(h.headFile)
	switch {
	case errors.Is(err, os.ErrNotExist) && save != "" && samePath(save, h.headFile):
		a.note("%s is not there: no head was kept yet, so that a log whose end was cut off is not seen", h.headFile)
		return &o, nil
	case errors.Is(err, os.ErrNotExist):
		// As without a head, a log whose end was cut off would verify.
		return nil, fmt.Errorf("%w: the head that was kept is not there: %w", errHead, err)
	case err != nil:
		return nil, err
	}
	if o.Head, err = audit.ParseHead(strings.TrimSpace(string(b))); err != nil {
		return nil, fmt.Errorf("%w: %s has no head in it: %w", errHead, h.headFile, err)
	}
	return &o, nil
}

func samePath(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// detailOf is all that a line has no column for.
func detailOf(r audit.Record) string {
	var parts []string
	add := func(format, s string) {
		if s != "" {
			parts = append(parts, fmt.Sprintf(format, s))
		}
	}
	reason := r.Reason
	if r.Code != "" {
		reason = strings.TrimSpace(reason + " [" + r.Code + "]")
	}
	add("%s", reason)
	add("%s", r.Detail)
	add("request %s", r.RequestID)
	add("the vault's request %s", r.VaultRequestID)
	return strings.Join(parts, ", ")
}

// storeFilter returns what tells whether a record's store is the one of an argument: an
// id, or a directory. A record has the store's id or, if that was not known yet, as when
// the store was made, its directory.
func storeFilter(arg string) (func(store string) bool, error) {
	names := []string{arg}
	if abs, err := filepath.Abs(arg); err == nil {
		names = append(names, abs)
	}
	info, err := block.InspectKeyring(arg, nil)
	switch {
	case err == nil:
		names = append(names, info.StoreID.String())
	case !errors.Is(err, block.ErrNotStore):
		return nil, fmt.Errorf("which store is in %s, by its id: %w; give the id itself (store state, store inspect)", arg, err)
	}
	return func(store string) bool {
		return slices.Contains(names, store) || filepath.IsAbs(store) && filepath.Base(store) == arg
	}, nil
}

func (a *app) auditShow() *cobra.Command {
	var h heads
	var identity, store, key, outcome string
	var since timeFlag
	c := a.command("show DIR", "show the records, each verified", `Show shows the records of the log in DIR, or those that the flags ask for. It verifies
on the way, and ends with exit status 4 at the first record that is not what was
written.`, func(ctx context.Context, args []string) error {
		o, err := a.headOptions(&h, "")
		if err != nil {
			return err
		}
		ofStore := func(string) bool { return true }
		if store != "" {
			if ofStore, err = storeFilter(store); err != nil {
				return err
			}
		}
		log, err := audit.ReadDir(args[0])
		if err != nil {
			return err
		}
		defer log.Close()
		found := []audit.Record{}
		var bad error
		for r, err := range audit.Records(log, o) {
			if err != nil {
				bad = err
				break
			}
			if identity != "" && r.Identity != identity || !ofStore(r.Store) ||
				key != "" && r.Key != key && !strings.HasSuffix(r.Key, "/keys/"+key) ||
				outcome != "" && string(r.Outcome) != outcome || since.set && r.Time.Before(since.t) {
				continue
			}
			found = append(found, r)
		}
		return errors.Join(a.show(found, func(t *table) {
			t.row("TIME", "IDENTITY", "OPERATION", "OUTCOME", "KEY, STORE, DETAIL")
			for _, r := range found {
				what := string(r.Operation)
				if what == "" {
					what = string(r.Event)
				}
				var about []string
				if name := r.Key[strings.LastIndex(r.Key, "/")+1:]; name != "" && r.Version != "" {
					about = append(about, name+"/"+t.id(r.Version))
				} else if name != "" {
					about = append(about, name)
				}
				if r.Store != "" {
					about = append(about, "store "+t.id(r.Store))
				}
				if detail := detailOf(r); detail != "" {
					about = append(about, detail)
				}
				t.row(r.Time, dash(r.Identity), what, dash(string(r.Outcome)), dash(strings.Join(about, ", ")))
			}
		}), bad)
	})
	h.add(c)
	c.Flags().StringVar(&identity, "by", "", "only what this `identity` did; the owner is \"vault owner\"")
	c.Flags().StringVar(&store, "store", "", "only what was done for this `store`: its id or its directory")
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

Exit status 4 if anything is wrong, also with the file of --head-file, or if the last
record is unfinished: then the program was stopped while writing it, or is at work.`, func(ctx context.Context, args []string) error {
		o, err := a.headOptions(&h, save)
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
			if err := a.saveHead(save, r.Head); err != nil {
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
			t.row("head", t.head(r.Head))
		}), bad)
	})
	h.add(c)
	c.Flags().StringVar(&save, "save-head", "", "if all is well, write the head to this `file`; the next time, --head-file reads it")
	return c
}

// saveHead replaces a file by one with the head.
func (a *app) saveHead(path string, head audit.Head) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(bytes.TrimSpace(old), []byte(head.String())) {
		return nil
	}
	return a.replaceFile(path, fmt.Appendln(nil, head), 0o644)
}
