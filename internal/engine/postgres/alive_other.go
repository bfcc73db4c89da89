//go:build !unix

package postgres

import "net"

// alive would report whether a connection was left open by the server; here it is not known
// before something is sent.
func alive(net.Conn) bool { return true }
