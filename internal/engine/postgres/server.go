package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/blockseal/blockseal/internal/engine"
)

// server is which server a connection is of, as far as the server says. The zero server is one that
// says nothing of that.
//
// The system identifier is given by initdb: a standby, a base backup and a snapshot of a volume
// have that of their source, and a database that was restored from a dump, or upgraded by pg_upgrade,
// has another. The timeline is another, and higher, after each promotion of a standby and each
// recovery to a point in time.
type server struct {
	system   string
	timeline uint32
}

func (s server) String() string { return fmt.Sprintf("system %s, timeline %d", s.system, s.timeline) }

// older reports whether s is of before a promotion that known was seen after.
func (s server) older(known server) bool {
	return s.system == known.system && s.timeline < known.timeline
}

// errElsewhere says that a connection is to another server than the one that the engine has known.
var errElsewhere = errors.New("engine: the server is not the one that this engine has known")

// identify asks a connection which server it is of. pg_control_checkpoint would say the timeline
// of the last checkpoint, which after a promotion is for a while the one of before.
func identify(ctx context.Context, c *pgxpool.Conn) (s server, err error) {
	var timeline string
	err = c.QueryRow(ctx, `SELECT system_identifier::text, left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()`).Scan(&s.system, &timeline)
	if refusedBy(err) != nil {
		return server{}, nil // a managed server may have taken the right away
	}
	if err != nil {
		return server{}, err
	}
	n, err := strconv.ParseUint(timeline, 16, 32)
	if err != nil || n == 0 {
		return server{}, nil
	}
	s.timeline = uint32(n)
	return s, nil
}

// admit refuses a server that is not the one of before, and notes a later timeline of that.
func (e *Engine) admit(now server) error {
	for {
		known := e.server.Load()
		switch {
		case known != nil && *known == now, now == (server{}):
			return nil
		case known != nil && known.system != now.system:
			return fmt.Errorf("%w: that was of %v, and this one is of %v: a restored or upgraded database, or another one at its address; "+
				"close the DB, and open it again if this is the one", errElsewhere, known, now)
		case known != nil && now.older(*known):
			return fmt.Errorf("%w: it is on timeline %d, and timeline %d was seen: it is the primary of before a failover, and must take no writes; "+
				"stop it, and bring it back as a standby (pg_rewind)", errElsewhere, now.timeline, known.timeline)
		}
		if e.server.CompareAndSwap(known, &now) {
			if known != nil && e.logger != nil {
				e.logger.Warn("the database has failed over: an acknowledged write is missing if the standby was behind",
					"schema", e.schema, "system", now.system, "from_timeline", known.timeline, "timeline", now.timeline)
			}
			return nil
		}
	}
}

// ofBefore reports whether a connection is to a server of which a later timeline was seen since.
func (e *Engine) ofBefore(c *pgx.Conn) bool {
	of, ok := c.PgConn().CustomData()[isFit].(server)
	known := e.server.Load()
	return ok && known != nil && of.older(*known)
}

// The engine's own meta record says on which server it was opened last. Partitions are not negative.
const (
	ownPart    = -1
	serverName = "server"
)

// tellOfAnother says if the database was on another server when it was opened last, and notes the
// one of now, if the role may. It is told, and not refused: a failover and pg_upgrade look the same as a copy.
func (e *Engine) tellOfAnother(ctx context.Context) {
	now := e.server.Load()
	if now == nil {
		return
	}
	was, rev, err := e.load(ctx, ownPart, serverName)
	if err != nil && !errors.Is(err, engine.ErrNotFound) || string(was) == now.String() {
		return
	}
	if rev != 0 && e.logger != nil {
		e.logger.Warn("the database was opened last on another server, or on another timeline of it: it has failed over, was upgraded, or is a copy; "+
			"if what it is a copy of still serves, rotate the epoch of each store in both",
			"schema", e.schema, "was", string(was), "is", now.String())
	}
	if e.noNote {
		return
	}
	// Whoever was first has noted the same.
	_, _ = (&partition{e: e, number: ownPart}).SwapMeta(ctx, engine.Swap{Name: serverName, Revision: rev, Value: []byte(now.String())})
}
