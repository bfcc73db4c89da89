package pgserver

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// Verdict is what a Proxy does with what it was given to pass on.
type Verdict int

const (
	Forward   Verdict = iota
	Drop              // it is lost, and the connection stays
	Cut               // it is lost, and the connection ends in both directions
	HalfClose         // it is lost, and the connection ends in its direction
)

// Proxy stands between clients and a server, on a port of this machine.
type Proxy struct {
	s        *Server
	listener net.Listener
	judge    atomic.Pointer[func(toServer bool, chunk []byte) Verdict]
	pumps    sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool // nil once it was closed
}

// NewProxy returns a proxy that passes everything on. Close it.
func NewProxy(s *Server) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{s: s, listener: l, open: map[net.Conn]bool{}}
	p.Judge(nil)
	p.pumps.Add(1)
	go p.accept()
	return p, nil
}

// Conn is [Server.Conn] through the proxy.
func (p *Proxy) Conn(user string, parameters ...string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres sslmode=disable %s",
		p.listener.Addr().(*net.TCPAddr).Port, user, strings.Join(parameters, " "))
}

// Judge has f decide from now on what becomes of what is sent in either direction; it may take its
// time, and is called by several goroutines at once. nil passes everything on.
func (p *Proxy) Judge(f func(toServer bool, chunk []byte) Verdict) {
	if f == nil {
		f = func(bool, []byte) Verdict { return Forward }
	}
	p.judge.Store(&f)
}

// CutAll ends the connections that there are.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
}

// Close ends all connections, takes no more, and waits until nothing is passed on.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.CutAll()
	p.mu.Lock()
	p.open = nil
	p.mu.Unlock()
	p.pumps.Wait()
	return err
}

// keep notes a connection, unless the proxy was closed meanwhile.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.open == nil {
			_ = c.Close()
			continue
		}
		p.open[c] = true
	}
	return p.open != nil
}

func (p *Proxy) accept() {
	defer p.pumps.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.s.Socket())
		if err != nil {
			_ = client.Close()
			continue
		}
		if !p.keep(client, server) {
			continue
		}
		p.pumps.Add(1)
		go func() {
			defer p.pumps.Done()
			var both sync.WaitGroup
			both.Add(2)
			go func() { defer both.Done(); p.pump(client, server, true) }()
			go func() { defer both.Done(); p.pump(server, client, false) }()
			both.Wait()
			p.mu.Lock()
			delete(p.open, client)
			delete(p.open, server)
			p.mu.Unlock()
			_, _ = client.Close(), server.Close()
		}()
	}
}

// pump passes on what comes from one side.
func (p *Proxy) pump(from, to net.Conn, toServer bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		v := Forward
		if n > 0 {
			v = (*p.judge.Load())(toServer, buf[:n])
		}
		switch {
		case v == Cut:
			_, _ = from.Close(), to.Close()
			return
		case v == Forward && n > 0:
			if _, e := to.Write(buf[:n]); e != nil {
				err = e
			}
		}
		if err != nil || v == HalfClose {
			if c, ok := to.(interface{ CloseWrite() error }); ok {
				_ = c.CloseWrite()
			}
			return
		}
	}
}
