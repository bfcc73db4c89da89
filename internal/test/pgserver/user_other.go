//go:build !unix

package pgserver

import "os/exec"

func asOther(*exec.Cmd) {}

func passable(string) bool { return true }

// giveAway refuses: there are no sockets in directories for the server here.
func giveAway(string) error { return ErrNone }
