package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fake is a tool that ends with the status that it is told, and says it.
const fake = `#!/usr/bin/env bash
echo "status is $1"
exit "$1"
`

// tries tries a document in which Replica has the text, with the fake tool.
func tries(t *testing.T, text string, match string, verbose bool) (string, error) {
	t.Helper()
	return triesDocument(t, document("Replica", text), match, verbose)
}

func triesDocument(t *testing.T, doc string, match string, verbose bool) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed: no script is run")
	}
	t.Setenv("BLOCKSEAL_VAULT", "/a/vault/of/somebody's")
	books, err := parse(doc)
	require.NoError(t, err)
	root := t.TempDir()
	b := &bench{root: root, bin: filepath.Join(root, "bin")}
	require.NoError(t, b.install(fake))
	var out bytes.Buffer
	err = tryAll(context.Background(), b, books, regexp.MustCompile(match), verbose, &out)
	left, e := os.ReadDir(root)
	require.NoError(t, e)
	for _, f := range left {
		require.NotContains(t, f.Name(), "try-", "a directory is left behind")
	}
	return out.String(), err
}

func sh(script string) string { return "```sh\n" + script + "\n```\n" }

func TestWhatPasses(t *testing.T) {
	for name, text := range map[string]string{
		"statuses":              sh("operator 0\noperator 3 || [ $? = 3 ]\noperator 1 || [ $? = 1 ]"),
		"a block after another": sh("x=1") + "\nwords\n\n" + sh(`[ $x = 1 ]`),
		"what is shown":         sh("operator 0") + "```text\nstatus is 0\n```\n",
		"an environment":        sh(`[ -z "${BLOCKSEAL_VAULT-}" ] && [ -n "$BLOCKSEAL_PASSPHRASE" ]`),
		"a fresh directory":     sh(`[ -z "$(ls)" ] && touch file`),
		"in the background":     sh("operator 0 &\nwait $!"),
	} {
		t.Run(name, func(t *testing.T) {
			out, err := tries(t, text, "Replica|Restore", false)
			require.NoError(t, err, out)
			require.Regexp(t, `(?s)^ok +Restore from a checkpoint +\d+\.\d s\nok +Replica +\d+\.\d s\n$`, out)
		})
	}
}

func TestWhatFails(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"another status":        {sh("operator 2"), "failed, with status 2, in line"},
		"success that must not": {sh("operator 0 || [ $? = 3 ]"), "failed, with status 1"},
		"success, for 1":        {sh("operator 0 || [ $? = 1 ]"), "failed, with status 1"},
		"the wrong failure":     {sh("operator 4 || [ $? = 3 ]"), "failed, with status 1"},
		"early in a pipe":       {sh("operator 1 | cat"), "failed, with status 1"},
		"in a subshell":         {sh("x=$(operator 5)"), "failed, with status 5"},
		"in the background":     {sh("operator 5 &\nwait $!"), "failed, with status 5"},
		"an unset variable":     {sh("echo $nothing"), "nothing: unbound variable"},
		"what was not shown":    {sh("operator 0") + "```text\nstatus is 1\n```\n", "no command wrote: status is 1"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := tries(t, c.text, "", false)
			require.ErrorContains(t, err, fmt.Sprintf("1 of %d runbooks failed", len(required())))
			require.Regexp(t, `(?m)^FAILED +Replica `, out)
			require.Contains(t, out, c.says)
		})
	}
}

// What the set-up writes is nothing that another runbook's commands have shown.
func TestTheSetUpShowsNothing(t *testing.T) {
	shown := "```text\nstatus is 0\n```\n"
	setUp := func(doc string) string {
		begin := "### " + first + "\n\n```sh\n"
		require.Contains(t, doc, begin)
		return strings.Replace(doc, begin, begin+"operator 0\n", 1)
	}
	out, err := triesDocument(t, setUp(document("Replica", sh("true")+shown)), "Replica", true)
	require.ErrorContains(t, err, "1 of 1 runbooks failed")
	require.Contains(t, out, "no command wrote: status is 0")
	out, err = triesDocument(t, setUp(document("Replica", sh("operator 0")+shown)), "Replica", true)
	require.NoError(t, err, out)
	out, err = triesDocument(t, document(first, sh("operator 0")+shown), first, false)
	require.NoError(t, err, out)
}

// The shell's line numbers are the document's.
func TestTheLineThatFails(t *testing.T) {
	out, err := tries(t, sh("true\nfalse"), "Replica", false)
	require.Error(t, err)
	found := regexp.MustCompile(`in line (\d+): false`).FindStringSubmatch(out)
	require.NotNil(t, found, out)
	books, err := parse(document("Replica", sh("true\nfalse")))
	require.NoError(t, err)
	line := 0
	for _, b := range books {
		line = max(line, 1+slices.Index(b.script, "false"))
	}
	require.Equal(t, strconv.Itoa(line), found[1])
}

// What the first runbook does is done before each other one, once.
func TestFirstComesFirst(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed: no script is run")
	}
	books, err := parse(document(first, sh("operator 0\nfirst=1")))
	require.NoError(t, err)
	root := t.TempDir()
	b := &bench{root: root, bin: filepath.Join(root, "bin")}
	require.NoError(t, b.install(fake))
	out, err := b.try(context.Background(), false, books[0].script, books[1].script)
	require.NoError(t, err)
	require.Equal(t, "status is 0\n", out)
}

func TestNothingMatches(t *testing.T) {
	_, err := tries(t, sh("true"), "no such", false)
	require.ErrorContains(t, err, "no runbook matches")
}

func TestVerbose(t *testing.T) {
	out, err := tries(t, sh("operator 0"), "Replica", true)
	require.NoError(t, err)
	require.Contains(t, out, "status is 0\n")
	require.Regexp(t, `(?m)^\d+: operator 0$`, out)
}

func TestTheCommandLine(t *testing.T) {
	require.ErrorContains(t, run(context.Background(), []string{"-run", "("}, &bytes.Buffer{}), "-run: ")
	require.ErrorIs(t, run(context.Background(), []string{"-doc", "no/such/file"}, &bytes.Buffer{}), os.ErrNotExist)
}
