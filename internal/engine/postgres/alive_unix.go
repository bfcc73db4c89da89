//go:build unix

package postgres

import (
	"crypto/tls"
	"net"
	"syscall"
)

// alert is how a record of TLS begins that says that there will be no more of them. No message of
// PostgreSQL's begins so.
const alert = 21

// alive reports whether a connection that nothing is asked of has been left open by the server:
// else what is sent over it is lost, and it would not be known whether it was. It waits for
// nothing. The last that a server sends is an error.
func alive(c net.Conn) bool {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	open := true
	err = raw.Control(func(fd uintptr) {
		var first [1]byte
		n, _, err := syscall.Recvfrom(int(fd), first[:], syscall.MSG_PEEK)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
		case err != nil || n <= 0:
			open = false
		default:
			open = first[0] != 'E' && first[0] != alert
		}
	})
	return err == nil && open
}
