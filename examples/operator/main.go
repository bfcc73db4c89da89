// Operator is one command-line tool for both sides of a store's keys: who owns the
// vault, and who runs the stores.
//
//	go build -o operator ./examples/operator
//	operator --help
//
// It works on file vaults (package vault/local), Azure Key Vaults and managed HSMs (package
// vault/azure), and on stores (package block) in directories, one command a process, and does by hand what a program that embeds
// blockseal does by itself. `operator help flow` explains in which order the
// commands are used, and README.md beside this file shows it; life.sh drives a
// key's whole life through the tool, keyvault.sh a store's on a Key Vault.
//
// Read root.go first: the commands and what they share. keyvault.go is in what a Key
// Vault differs from a file vault. vault.go, key*.go,
// grant.go, audit.go and store*.go are the commands, inuse.go is what keeps a key
// that a store needs from being taken away by mistake, exit.go the exit statuses.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv,
		width:  func() int { n, _, _ := term.GetSize(int(os.Stdout.Fd())); return n }, // 0 where there is no terminal
		prompt: func(label string) ([]byte, error) { return promptTerminal(ctx, label) },
	}))
}
