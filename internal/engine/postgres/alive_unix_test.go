//go:build unix

package postgres

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A connection that was ended, or on which the last word was said, is not alive; and to ask takes
// nothing from what is there to be read.
func TestAlive(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, tt := range []struct {
		name  string
		does  func(server *net.TCPConn) error
		alive bool
	}{
		{"nothing", func(*net.TCPConn) error { return nil }, true},
		{"says something", func(c *net.TCPConn) error { _, err := c.Write([]byte("N")); return err }, true},
		{"says that it ends", func(c *net.TCPConn) error { _, err := c.Write([]byte("E")); return err }, false},
		{"says so in TLS", func(c *net.TCPConn) error { _, err := c.Write([]byte{alert}); return err }, false},
		{"closes", func(c *net.TCPConn) error { return c.Close() }, false},
		{"closes its direction", func(c *net.TCPConn) error { return c.CloseWrite() }, false},
		{"is gone", func(c *net.TCPConn) error { _ = c.SetLinger(0); return c.Close() }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", l.Addr().String())
			require.NoError(t, err)
			defer c.Close()
			server, err := l.Accept()
			require.NoError(t, err)
			defer server.Close()
			require.True(t, alive(c))
			require.NoError(t, tt.does(server.(*net.TCPConn)))
			require.Eventually(t, func() bool { return alive(c) == tt.alive }, long, short)
			require.Equal(t, tt.alive, alive(tls.Client(c, &tls.Config{})))
			if tt.name == "says something" {
				got := make([]byte, 1)
				_, err := c.Read(got)
				require.NoError(t, err)
				require.Equal(t, "N", string(got))
			}
		})
	}
	c, other := net.Pipe()
	defer other.Close()
	require.True(t, alive(c), "it is no socket: nothing is known")
	closed, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	require.False(t, alive(closed))
}
