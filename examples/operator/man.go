package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand writes the manual page from the commands themselves, so that it says what they
// say.
func (a *app) manCommand() *cobra.Command {
	var c *cobra.Command
	c = a.command("man", "write the manual page", `Man writes the tool's manual page, for man(1) to read:

       operator man >operator.1 && man -l operator.1`,
		func(context.Context, []string) error {
			text := manual(c.Root())
			if a.json {
				return a.show(map[string]string{"page": text}, nil)
			}
			_, err := io.WriteString(a.out, text)
			return err
		})
	return c
}

// manDate is of the page's form; what it says is the commands'.
const manDate = "2026-11-30"

// manual returns a page in man(7)'s macros.
func manual(root *cobra.Command) string {
	m := &manPage{}
	m.line(".TH OPERATOR 1 " + manDate + " blockseal")
	m.section("NAME")
	m.line(root.Name() + ` \- ` + roff(root.Short))
	m.section("SYNOPSIS")
	m.line(".B " + root.Name())
	m.line(".I COMMAND")
	m.line(`[\fIARGUMENT\fR ...]`)
	m.line(`[\fIFLAG\fR ...]`)
	m.section("DESCRIPTION")
	m.text(strings.TrimSuffix(root.Long, "\n\n"+exitHelp))
	m.section("COMMANDS")
	m.commands(root)
	m.section("EXIT STATUS")
	m.text(exitHelp)
	for _, c := range root.Commands() { // the help topics
		if !c.Runnable() && !c.HasSubCommands() && c.Long != "" {
			m.section(strings.ToUpper(c.Short))
			m.text(c.Long)
		}
	}
	return m.b.String()
}

type manPage struct{ b strings.Builder }

func (m *manPage) line(s string)       { m.b.WriteString(s + "\n") }
func (m *manPage) section(name string) { m.line(`.SH "` + roff(name) + `"`) }

// commands writes a command's flags, then the commands beneath it.
func (m *manPage) commands(c *cobra.Command) {
	if c.HasParent() {
		m.line(`.SS "` + roff(strings.TrimSuffix(c.UseLine(), " [flags]")) + `"`)
		m.text(c.Long)
	}
	own := c.LocalNonPersistentFlags()
	if c.HasAvailableSubCommands() {
		own = c.PersistentFlags()
	}
	own.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\fB\-\-` + roff(f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB\-` + f.Shorthand + `\fR, ` + name
		}
		if value != "" {
			name += ` \fI` + roff(value) + `\fR`
		}
		m.line(".TP")
		m.line(name)
		m.text(usage)
	})
	for _, sub := range c.Commands() {
		if sub.Runnable() && sub.Name() != "help" && sub.Name() != "completion" {
			m.commands(sub)
		}
	}
}

// text writes paragraphs, and what is indented as it is.
func (m *manPage) text(s string) {
	verbatim, between := false, false
	for line := range strings.SplitSeq(reflow(s, 66), "\n") {
		if line == "" {
			between = true
			continue
		}
		if indented := line[0] == ' '; indented != verbatim {
			if verbatim {
				m.line(".EE")
			}
			if verbatim = indented; verbatim {
				m.line(".PP")
				m.line(".EX")
			} else {
				m.line(".PP")
			}
		} else if between {
			m.line(".PP")
		}
		between = false
		m.line(begin(roff(line)))
	}
	if verbatim {
		m.line(".EE")
	}
}

// roff writes text so that it stands for itself.
func roff(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`).Replace(s)
}

// begin keeps a line's first character from making it a request.
func begin(s string) string {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}
