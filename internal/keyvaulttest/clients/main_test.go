package main

import (
	"flag"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the program demands of the flows is what they have.
func TestFlowsHaveEveryStep(t *testing.T) {
	for name, flow := range map[string][]byte{"flow.mjs": flowJS, "flow.py": flowPy} {
		var have []string
		for _, m := range regexp.MustCompile(`(?m)^(?:await |@)step\("([^"]+)"`).FindAllStringSubmatch(string(flow), -1) {
			have = append(have, m[1])
		}
		require.Equal(t, steps, have, name)
	}
}

// A client that leaves a step out, or fails in one, is told of.
func TestTheProgramFails(t *testing.T) {
	if _, err := exec.LookPath("false"); err != nil {
		t.Skip("there is no program to stand for a client: ", err)
	}
	dir := t.TempDir()
	var out strings.Builder
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, &out), flag.ErrHelp)
	require.NoError(t, run(t.Context(), []string{"-node", "", "-python", ""}, &out), "no client, nothing wrong")
	err := flow(t.Context(), dir, &out, "Nothing", "echo", "ok create")
	require.ErrorContains(t, err, `Nothing went through ["create"]`)
	err = flow(t.Context(), dir, &out, "Nothing", "false", "")
	require.ErrorContains(t, err, `Nothing, at "a wrong secret is refused"`)
	err = flow(t.Context(), dir, &out, "Nothing", "no-such-program", "")
	require.ErrorContains(t, err, "leave the client out")
}
