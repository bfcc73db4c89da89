//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A second File would make the change that the first is in the middle of, or clear it.
func TestOneFileAtATime(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.f.journal.write(written(1, 'a')))
	_, err := OpenFile(g.ctx, g.dir, g.k, nil)
	require.ErrorIs(t, err, ErrOpen)
	g.check(nil)
	g.reopen()
	g.check(map[uint32]byte{1: 'a'})
}
