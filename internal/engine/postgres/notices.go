package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/blockseal/blockseal/internal/engine"
)

// A change of the floor, and a swap that says Tell, is told of by NOTIFY in the transaction that makes
// it. A notice may be lost, and says nothing but that it is worth while to look: what is promised
// rests on looking. Blocks are never told of: a commit that notifies waits for every other one that does.

// notices are what an engine hears of, over a connection of its own that is none of the pool's: so
// it neither takes one from those who read and write nor waits for one of them. A pooler in
// transaction mode gives it to nobody for certain.
type notices struct {
	sender string // of this engine, which needs no word of itself

	mu      sync.Mutex
	hearers map[int64]map[*func()]bool // by partition
	stop    context.CancelFunc         // nil: nobody has listened yet
	ended   chan struct{}
}

// channel is the name of that which processes tell each other on: a schema's name may be longer
// than a channel's.
func channel(schema string) string {
	sum := sha256.Sum256([]byte("blockseal notices\x00" + schema))
	return "blockseal_" + hex.EncodeToString(sum[:16])
}

// notice is what is told of a partition.
func (p *partition) notice() string {
	return strconv.FormatInt(p.number, 10) + " " + p.e.notices.sender
}

// Hear implements [engine.Hearer].
func (p *partition) Hear(f func()) (stop func()) {
	n := &p.e.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hearers[p.number] == nil {
		if n.hearers == nil {
			n.hearers = map[int64]map[*func()]bool{}
		}
		n.hearers[p.number] = map[*func()]bool{}
	}
	key := &f
	n.hearers[p.number][key] = true
	if n.stop == nil && !p.e.noListen && !p.e.closed.Load() {
		var ctx context.Context
		ctx, n.stop = context.WithCancel(context.Background())
		n.ended = make(chan struct{})
		go p.e.listen(ctx, n.ended)
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if delete(n.hearers[p.number], key); len(n.hearers[p.number]) == 0 {
			delete(n.hearers, p.number)
		}
	}
}

// LookAtFloor implements [engine.Hearer].
func (p *partition) LookAtFloor(ctx context.Context) (engine.Floor, error) {
	if err := p.e.ready(ctx); err != nil {
		return engine.Floor{}, err
	}
	return p.lookAtFloor(ctx, false)
}

// close ends listening, and has the connection closed when it returns.
func (n *notices) close() {
	n.mu.Lock()
	stop, ended := n.stop, n.ended
	n.mu.Unlock()
	if stop != nil {
		stop()
		<-ended
	}
}

// heard calls those who hear of a partition; everyone if it is "".
func (n *notices) heard(payload string) {
	part, sender, _ := strings.Cut(payload, " ")
	if sender == n.sender {
		return
	}
	number, err := strconv.ParseInt(part, 10, 64)
	if payload != "" && err != nil {
		return // somebody else's, on our channel
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for of, hearers := range n.hearers {
		if payload == "" || of == number {
			for f := range hearers {
				(*f)()
			}
		}
	}
}

const (
	listenTime   = 30 * time.Second // for a connection to be made, and to be asked whether it is there
	silence      = time.Minute      // after which it is asked
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = time.Minute
)

// listen hears notices until ctx ends, and connects again whenever it has to.
func (e *Engine) listen(ctx context.Context, ended chan<- struct{}) {
	defer close(ended)
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		if e.hear(ctx) {
			wait = firstBackoff
		}
		next := make(chan struct{})
		stop := e.afterFunc(wait, func() { close(next) })
		select {
		case <-next:
		case <-ctx.Done():
			stop()
			return
		}
	}
}

// hear hears notices until the connection, or ctx, ends, and reports whether there was one. What was
// told before it listened nobody has heard of.
func (e *Engine) hear(ctx context.Context) (listened bool) {
	c, err := e.listener(ctx)
	if err != nil {
		return false
	}
	defer closeNow(c)
	e.notices.heard("")
	for {
		quiet, cancel := context.WithTimeout(ctx, silence)
		n, err := c.WaitForNotification(quiet)
		over := quiet.Err() != nil
		cancel()
		switch {
		case err == nil:
			e.notices.heard(n.Payload)
		case ctx.Err() != nil || !over || c.IsClosed():
			return true
		default: // it may be gone without a word
			bounded, cancel := context.WithTimeout(ctx, listenTime)
			err := c.Ping(bounded)
			if cancel(); err != nil {
				return true
			}
		}
	}
}

// listener returns a connection that listens, made as the pool's are.
func (e *Engine) listener(ctx context.Context) (_ *pgx.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, listenTime)
	defer cancel()
	o := e.pool.Config()
	if o.BeforeConnect != nil {
		if err := o.BeforeConnect(ctx, o.ConnConfig); err != nil {
			return nil, err
		}
	}
	o.ConnConfig.OnNotification = nil // else the pool's owner would hear them
	c, err := pgx.ConnectConfig(ctx, o.ConnConfig)
	if err != nil {
		return nil, err
	}
	if o.AfterConnect != nil {
		err = o.AfterConnect(ctx, c)
	}
	if err == nil {
		_, err = c.Exec(ctx, e.sql.listen, pgx.QueryExecModeSimpleProtocol)
	}
	if err != nil {
		closeNow(c)
		return nil, fmt.Errorf("engine: listen: %w", err)
	}
	return c, nil
}

// closeNow closes a connection and waits for no server.
func closeNow(c *pgx.Conn) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Close(ended)
	<-c.PgConn().CleanupDone()
}
