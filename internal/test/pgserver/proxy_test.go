package pgserver

import (
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a proxy is told to do happens to what is sent, and to nothing else.
func TestProxyDoesAsItIsTold(t *testing.T) {
	s := &Server{dir: t.TempDir()}
	l, err := net.Listen("unix", filepath.Join(s.dir, ".s.PGSQL.5432"))
	require.NoError(t, err)
	defer l.Close()
	p, err := NewProxy(s)
	require.NoError(t, err)
	connect := func() (client, server net.Conn) {
		client, err := net.Dial("tcp", p.listener.Addr().String())
		require.NoError(t, err)
		server, err = l.Accept()
		require.NoError(t, err)
		return client, server
	}
	say := func(c net.Conn, text string) {
		_, err := c.Write([]byte(text))
		require.NoError(t, err)
	}
	hear := func(c net.Conn, text string) {
		buf := make([]byte, len(text))
		_, err := io.ReadFull(c, buf)
		require.NoError(t, err)
		require.Equal(t, text, string(buf))
	}
	gone := func(c net.Conn) {
		_, err := c.Read(make([]byte, 1))
		require.Error(t, err)
	}
	client, server := connect()
	say(client, "question")
	hear(server, "question")
	say(server, "answer")
	hear(client, "answer")

	dropped := make(chan string, 1)
	p.Judge(func(toServer bool, chunk []byte) Verdict {
		if toServer {
			return Forward
		}
		dropped <- string(chunk)
		return Drop
	})
	say(server, "lost")
	require.Equal(t, "lost", <-dropped)
	p.Judge(nil)
	say(server, "not lost")
	hear(client, "not lost")

	p.Judge(func(toServer bool, _ []byte) Verdict {
		if toServer {
			return Forward
		}
		return HalfClose
	})
	say(server, "lost")
	gone(client)
	say(client, "the other direction is open")
	hear(server, "the other direction is open")

	another, its := connect()
	p.Judge(func(bool, []byte) Verdict { return Cut })
	say(another, "lost")
	gone(another)
	gone(its)

	p.Judge(nil)
	third, its := connect()
	p.CutAll()
	gone(third)
	gone(its)
	require.NoError(t, p.Close())
	_, err = net.Dial("tcp", p.listener.Addr().String())
	require.Error(t, err)
}
