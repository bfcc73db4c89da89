package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// first is the runbook whose blocks come before those of every other.
const first = "First set-up"

// required are the runbooks that there must be, besides whatever else there is.
func required() []string {
	return []string{
		first, "Rotation", "Emergency revocation", "A customer who revoked", "A customer who leaves", "Lost key and escrow", "Restore from a checkpoint", "Replica",
		"An expired key", "Moving to another vault", "Failover to another vault", "Erasure request", "Disk full", "Vault outage", "Reading the audit trail",
	}
}

// runbook is one section of the document.
type runbook struct {
	title string
	line  int // of the heading, from 1
	// script is the section's sh blocks, and nothing else, each line where it is in
	// the document: the shell's line numbers are the document's.
	script []string
	// shown are the lines of its text blocks, which its commands must have written.
	shown []shown
}

type shown struct {
	line int
	text string
}

// status is how a command is written that must end with a status other than 0.
var status = regexp.MustCompile(`\|\| \[ \$\? = ([0-9]+) \]`)

// parse returns the sections of the part "Runbooks". It refuses a document in which
// something would pass without having been tried.
func parse(doc string) ([]runbook, error) {
	var (
		books []runbook
		errs  []error
		part  bool   // within the part
		fence string // the language of the block that we are in, or ""
		open  int    // the line that it began in
	)
	lines := strings.Split(doc, "\n")
	for i, text := range lines {
		line := i + 1
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...)))
		}
		if lang, ok := strings.CutPrefix(text, "```"); ok {
			switch {
			case fence != "":
				fence = ""
			case part && lang != "sh" && lang != "text":
				bad("a block of a runbook is sh or text, not %q", lang)
				fallthrough
			default:
				fence, open = lang+"`", line // never ""
				if part && len(books) == 0 {
					bad("a block before the first runbook")
				}
			}
			continue
		}
		switch {
		case fence == "" && strings.HasPrefix(text, "## "):
			part = text == "## Runbooks"
		case fence == "" && part && strings.HasPrefix(text, "### "):
			books = append(books, runbook{title: strings.TrimPrefix(text, "### "), line: line, script: make([]string, len(lines))})
		case fence == "" || !part || len(books) == 0:
		case fence == "text`" && strings.TrimSpace(text) != "":
			b := &books[len(books)-1]
			b.shown = append(b.shown, shown{line, text})
		case fence == "sh`":
			if strings.HasPrefix(strings.TrimSpace(text), "! ") {
				bad("bash -e does not notice when a command with ! before it fails: write || [ $? = 1 ]")
			}
			// A command that must fail, and does not, must not pass.
			books[len(books)-1].script[i] = status.ReplaceAllString(text, "&& (exit 199) $0")
		}
	}
	if fence != "" {
		errs = append(errs, fmt.Errorf("line %d: a block that does not end", open))
	}
	for _, b := range books {
		if strings.TrimSpace(strings.Join(b.script, "")) == "" {
			errs = append(errs, fmt.Errorf("line %d: the runbook %q has no sh block", b.line, b.title))
		}
	}
	for _, title := range required() {
		if n := len(slices.DeleteFunc(slices.Clone(books), func(b runbook) bool { return b.title != title })); n != 1 {
			errs = append(errs, fmt.Errorf("there must be one runbook %q, and there are %d", title, n))
		}
	}
	if len(books) > 0 && books[0].title != first {
		errs = append(errs, fmt.Errorf("line %d: the first runbook is %q, not %q", books[0].line, books[0].title, first))
	}
	return books, errors.Join(errs...)
}

// mark is the line that the script of a section writes before all others.
func (b runbook) mark() string { return fmt.Sprintf("--- line %d: %s", b.line, b.title) }

// marked returns the script with its mark, in the line of the heading.
func (b runbook) marked() []string {
	script := slices.Clone(b.script)
	script[b.line-1] = "echo '" + strings.ReplaceAll(b.mark(), "'", `'\''`) + "'"
	return script
}

// missing returns the lines of text blocks that were not written after the section's
// mark: what the set-up wrote before it says nothing about the section. Runs of spaces
// count as one, and "..." stands for anything within a line.
func (b runbook) missing(output string) error {
	_, output, ok := strings.Cut("\n"+output, "\n"+b.mark()+"\n")
	if !ok {
		return fmt.Errorf("line %d: the runbook did not begin", b.line)
	}
	var have []string
	for line := range strings.Lines(output) {
		have = append(have, strings.Join(strings.Fields(line), " "))
	}
	var errs []error
	for _, s := range b.shown {
		parts := strings.Split(strings.Join(strings.Fields(s.text), " "), "...")
		for i, p := range parts {
			parts[i] = regexp.QuoteMeta(p)
		}
		want := regexp.MustCompile(strings.Join(parts, ".*"))
		if !slices.ContainsFunc(have, want.MatchString) {
			errs = append(errs, fmt.Errorf("line %d: no command wrote: %s", s.line, s.text))
		}
	}
	return errors.Join(errs...)
}
