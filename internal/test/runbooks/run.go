package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// limit is how long a runbook may take.
const limit = 2 * time.Minute

// wrapper is what runbooks find as operator: the tool, with a passphrase that costs
// next to nothing to try. The defaults are for people's passphrases, and cost memory
// and time at every command.
const wrapper = `#!/usr/bin/env bash
case "${1-} ${2-}" in
"vault init" | "vault escrow" | "vault passphrase") set -- "$@" --kdf argon2id --kdf-passes 2 --kdf-memory 19456 ;;
esac
exec %q "$@"
`

// head is what every script begins with, in one line, so that line numbers stay.
// A pipe fails when any part of it does, and the command that fails is named.
const head = `set -o pipefail; trap 'echo "failed, with status $?, in line $LINENO: $BASH_COMMAND" >&2' ERR; `

// traced follows it where each command is to be shown with its line.
const traced = `PS4='$LINENO: '; set -x; `

// bench is where runbooks are tried.
type bench struct {
	root string // temporary; holds bin, the tool, and a directory for each runbook
	bin  string
}

// newBench builds the tool.
func newBench(ctx context.Context, pkg string) (*bench, error) {
	root, err := os.MkdirTemp("", "blockseal-runbooks-")
	if err != nil {
		return nil, err
	}
	b := &bench{root: root, bin: filepath.Join(root, "bin")}
	tool := filepath.Join(root, "operator")
	build := exec.CommandContext(ctx, "go", "build", "-o", tool, pkg)
	out, err := build.CombinedOutput()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("go build %s: %w\n%s", pkg, err, out), b.close())
	}
	if err := b.install(fmt.Sprintf(wrapper, tool)); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// install makes script the command operator.
func (b *bench) install(script string) error {
	if err := os.Mkdir(b.bin, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.bin, "operator"), []byte(script), 0o700)
}

func (b *bench) close() error { return os.RemoveAll(b.root) }

// try runs the scripts, one after the other in one shell, in a fresh directory. It
// returns what they wrote.
func (b *bench) try(ctx context.Context, trace bool, scripts ...[]string) (string, error) {
	dir, err := os.MkdirTemp(b.root, "try-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	lines := make([]string, len(scripts[0]))
	for _, s := range scripts {
		for i, text := range s {
			if text != "" {
				lines[i] = text
			}
		}
	}
	script := filepath.Join(b.root, "operations.sh")
	begin := head
	if trace {
		begin += traced
	}
	if err := os.WriteFile(script, []byte(begin+strings.Join(lines, "\n")), 0o600); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-eEu", script)
	cmd.Dir = dir
	cmd.Env = b.env(dir)
	// What a runbook leaves in the background holds the output open; it is not
	// waited for.
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return out.String(), err
}

// env is the environment, with passphrases and without anything of the tool's that
// happens to be set here.
func (b *bench) env(dir string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "BLOCKSEAL_") && !strings.HasPrefix(v, "BASH_ENV=") {
			env = append(env, v)
		}
	}
	return append(env,
		"PATH="+b.bin+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+dir, "LC_ALL=C",
		"BLOCKSEAL_PASSPHRASE=the passphrase of the vault",
		"BLOCKSEAL_ESCROW_PASSPHRASE=the passphrase of the escrow file",
		"BLOCKSEAL_TO_PASSPHRASE=the passphrase of the vault",
		"BLOCKSEAL_FROM_PASSPHRASE=the passphrase of the vault",
		"BLOCKSEAL_NEW_PASSPHRASE=another passphrase of the vault",
	)
}
