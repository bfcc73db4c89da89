package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// document returns one with every required runbook, in which the section that is
// named has the text, and the others have a block that does nothing.
func document(title, text string) string {
	var b strings.Builder
	b.WriteString("# Doc\n\n```sh\nexit 1 # not in the part\n```\n\n## Runbooks\n\nHow.\n")
	for _, r := range required() {
		b.WriteString("\n### " + r + "\n\n")
		if r == title {
			b.WriteString(text)
		} else {
			b.WriteString("```sh\ntrue\n```\n")
		}
	}
	b.WriteString("\n## After\n\n```sh\nexit 1\n```\n")
	return b.String()
}

func TestParse(t *testing.T) {
	doc := document("Replica", "Before\n\n```sh\necho one\n```\n\n```text\n\none\n```\n\nBetween\n\n```sh\nfalse || [ $? = 1 ]\n```\n")
	books, err := parse(doc)
	require.NoError(t, err)
	require.Len(t, books, len(required()))
	var b runbook
	for _, b = range books {
		if b.title == "Replica" {
			break
		}
	}
	lines := strings.Split(doc, "\n")
	require.Len(t, b.script, len(lines))
	var commands []string
	for i, text := range b.script {
		if text != "" {
			commands = append(commands, text)
			require.Contains(t, []string{"echo one", "false || [ $? = 1 ]"}, lines[i], "a command is in its line of the document")
		}
	}
	require.Equal(t, []string{"echo one", "false && (exit 199) || [ $? = 1 ]"}, commands)
	require.Len(t, b.shown, 1)
	require.Equal(t, "one", lines[b.shown[0].line-1])
}

func TestWhatIsRefused(t *testing.T) {
	block := "```sh\ntrue\n```\n"
	for name, c := range map[string]struct{ doc, err string }{
		"no block":              {document("Replica", "Only words.\n"), `the runbook "Replica" has no sh block`},
		"an empty block":        {document("Replica", "```sh\n\n```\n"), `the runbook "Replica" has no sh block`},
		"only another block":    {document("Replica", "```text\ntrue\n```\n"), `the runbook "Replica" has no sh block`},
		"of another language":   {document("Replica", block+"```bash\ntrue\n```\n"), `sh or text, not "bash"`},
		"of none":               {document("Replica", block+"```\ntrue\n```\n"), `sh or text, not ""`},
		"not ended":             {document("Replica", block) + "```sh\ntrue\n", "a block that does not end"},
		"one more without":      {document("Replica", block+"\n### Another\n\nWords.\n"), `the runbook "Another" has no sh block`},
		"a failure not noticed": {document("Replica", "```sh\n! false\n```\n"), "bash -e does not notice"},
		"missing":               {strings.Replace(document("", ""), "### Disk full", "### Disk", 1), `one runbook "Disk full", and there are 0`},
		"twice":                 {document("Replica", block+"\n### Replica\n\n"+block), `one runbook "Replica", and there are 2`},
		"none at all":           {"# Doc\n\n### First set-up\n\n" + block, `one runbook "First set-up", and there are 0`},
		"another first":         {strings.Replace(document("", ""), "How.\n", "### Hello\n\n"+block, 1), `the first runbook is "Hello"`},
		"before the first":      {strings.Replace(document("", ""), "How.\n", block, 1), "a block before the first runbook"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(c.doc)
			require.ErrorContains(t, err, c.err)
		})
	}
}

func TestMissing(t *testing.T) {
	b := runbook{title: "Replica", line: 5}
	output := "status Degraded\n" + b.mark() + "\nstatus       Available\noperator: local: open /tmp/1/vault: not a vault: no such file\n"
	for text, ok := range map[string]bool{
		"status Available":                            true,
		"  status   Available":                        true,
		"status ...able":                              true,
		"operator: local: open ...: not a vault: ...": true,
		"status Degraded":                             false, // the set-up's
		"Available ... operator":                      false, // of one line
		"stat.s Available":                            false,
	} {
		b.shown = []shown{{7, text}}
		err := b.missing(output)
		if ok {
			require.NoError(t, err, text)
		} else {
			require.ErrorContains(t, err, "line 7: no command wrote: "+text)
		}
	}
	require.ErrorContains(t, b.missing("status Available\n"), "line 5: the runbook did not begin")
}

func published(t *testing.T, name string) string {
	b, err := os.ReadFile(filepath.Join("../../..", name))
	require.NoError(t, err)
	return string(b)
}

// The published document can be tried. That it passes is for go run to say.
func TestTheDocument(t *testing.T) {
	books, err := parse(published(t, "docs/operations.md"))
	require.NoError(t, err)
	// Whoever follows a runbook does so in a shell of the day: what the set-up's shell
	// did not export is not there.
	setUp := strings.Join(books[0].script, "\n")
	for _, b := range books[1:] {
		script := strings.Join(b.script, "\n")
		for _, v := range regexp.MustCompile(`(?m)^(\w+)=`).FindAllStringSubmatch(setUp, -1) {
			require.NotContains(t, script, "$"+v[1], "%s: a variable of another shell", b.title)
		}
	}
}

// The commands of both documents are found by the name that they are called by.
func TestTheToolIsOnThePath(t *testing.T) {
	for _, name := range []string{"docs/operations.md", "examples/operator/README.md"} {
		require.Regexp(t, `(?m)^    go build -o operator \./examples/operator\n    export PATH=\$PWD:\$PATH$`, published(t, name))
	}
}

// What the document calls by name is there: metrics, alerts, and the places that its
// links lead to.
func TestNamesInTheDocument(t *testing.T) {
	doc := published(t, "docs/operations.md")
	metrics := published(t, "docs/metrics.md")
	for _, m := range regexp.MustCompile(`blockseal_[a-z_]+`).FindAllString(doc, -1) {
		require.Contains(t, metrics, "`"+m+"`", "a metric that docs/metrics.md does not have")
	}
	alerts := published(t, "examples/monitoring/alerts.yml")
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`(Blockseal[A-Za-z]+)`").FindAllStringSubmatch(doc, -1) {
		named[m[1]] = true
		require.Contains(t, alerts, "alert: "+m[1]+"\n")
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(alerts, -1) {
		require.True(t, named[m[1]], "the document does not say what to do about %s", m[1])
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`).FindAllStringSubmatch(doc, -1) {
		target := doc
		if m[1] != "" {
			info, err := os.Stat(filepath.Join("../../../docs", m[1]))
			require.NoError(t, err)
			if info.IsDir() {
				continue
			}
			target = published(t, filepath.Join("docs", m[1]))
		}
		if m[2] != "" {
			require.Contains(t, anchors(target), strings.TrimPrefix(m[2], "#"), "%s%s leads nowhere", m[1], m[2])
		}
	}
}

// anchors returns those of headings, as they are written on the web, and those that
// are set by hand.
func anchors(doc string) (out []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(doc, -1) {
		kept := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(kept, " ", "-"))
	}
	for _, m := range regexp.MustCompile(`<a id="([^"]+)">`).FindAllStringSubmatch(doc, -1) {
		out = append(out, m[1])
	}
	return out
}
