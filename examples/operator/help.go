package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Help is for a terminal of any width. A command explains the flags that are its own; those
// that it shares are named, and explained with the group that has them.

const widest = 90 // what the texts are written for

// columns is how wide help may be: $COLUMNS, the terminal, or 80.
func (a *app) columns() int {
	n, err := strconv.Atoi(a.getenv("COLUMNS"))
	if err != nil && a.width != nil {
		n = a.width()
	}
	if n <= 0 {
		n = 80
	}
	return max(40, min(n, widest))
}

// explain makes root and all commands beneath it explain themselves.
func (a *app) explain(root *cobra.Command) {
	root.SetHelpFunc(func(c *cobra.Command, _ []string) {
		text := c.Long
		if text == "" {
			text = c.Short
		}
		fmt.Fprintf(c.OutOrStdout(), "%s\n\n%s", reflow(text, a.columns()), c.UsageString())
	})
	root.SetUsageFunc(func(c *cobra.Command) error {
		_, err := io.WriteString(c.OutOrStderr(), a.usage(c))
		return err
	})
}

func (a *app) usage(c *cobra.Command) string {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n\nCommands:\n", c.CommandPath())
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				fmt.Fprintf(&b, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	} else {
		fmt.Fprintf(&b, "  %s\n", c.UseLine())
	}
	if own := c.LocalFlags(); own.HasAvailableFlags() {
		title := "Flags"
		if c.HasAvailableSubCommands() {
			title = "Flags of all these commands"
		}
		fmt.Fprintf(&b, "\n%s:\n%s", title, a.flags(own))
	}
	for p := c.Parent(); p != nil; p = p.Parent() {
		var names []string
		p.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if p.PersistentFlags().Lookup(f.Name) == f && !f.Hidden {
				names = append(names, "--"+f.Name)
			}
		})
		if names != nil {
			text := reflow(strings.Join(names, " "), a.columns()-2)
			fmt.Fprintf(&b, "\nAlso, as %s --help explains:\n  %s\n", p.CommandPath(), strings.ReplaceAll(text, "\n", "\n  "))
		}
	}
	return b.String()
}

// flags explains flags: beside their names, or beneath them where that is too narrow.
func (a *app) flags(set *pflag.FlagSet) string {
	width := a.columns()
	if width >= 80 {
		return set.FlagUsagesWrapped(width)
	}
	var b strings.Builder
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		const indent = "\n      "
		fmt.Fprintf(&b, "  %s%s%s\n", strings.TrimSpace(name+" "+value), indent, strings.ReplaceAll(reflow(usage, width-len(indent)), "\n", indent))
	})
	return b.String()
}

// reflow breaks the lines of paragraphs anew, and leaves what is indented, such as examples
// and tables, as it is.
func reflow(text string, width int) string {
	if width >= widest {
		return text
	}
	var out []string
	var words []string
	flush := func() {
		line := ""
		for _, w := range words {
			if line != "" && len(line)+1+len(w) > width {
				out = append(out, line)
				line = ""
			}
			line = strings.TrimPrefix(line+" "+w, " ")
		}
		if line != "" {
			out = append(out, line)
		}
		words = nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || line[0] == ' ' {
			flush()
			out = append(out, line)
			continue
		}
		words = append(words, strings.Fields(line)...)
	}
	flush()
	return strings.Join(out, "\n")
}
