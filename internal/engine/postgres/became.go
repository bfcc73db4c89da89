package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// xact is a transaction whose commit was perhaps sent. Its number is of one server and timeline:
// after a failover to a standby that was behind, another one may have been given it.
type xact struct {
	id string
	of server
}

// became asks what became of a transaction for which unknown was returned: whether it was made,
// if that can be known. A commit that goes on is waited for until ctx ends.
func (e *Engine) became(ctx context.Context, x xact, unknown error) (made, known bool) {
	if x.id == "" || x.of == (server{}) || errors.Is(unknown, errNotReplicated) {
		return false, false
	}
	for try := 0; ; try++ {
		status := ""
		err := e.read(ctx, func(c *pgxpool.Conn) error {
			if of, _ := c.Conn().PgConn().CustomData()[isFit].(server); of != x.of {
				return errElsewhere
			}
			return c.QueryRow(ctx, e.sql.status, x.id).Scan(&status)
		})
		switch {
		case err != nil:
			return false, false
		case status == "aborted":
			return false, true
		case status == "committed":
			return true, e.flush(ctx, x.of) == nil
		case status != "in progress": // too long ago
			return false, false
		}
		if pause(ctx, try) != nil {
			return false, false
		}
	}
}

// flush returns when all that was committed before on a server is as durable as a commit that was waited for
// is: of one whose connection was lost a synchronous standby may not have heard. That another server answers, or
// a later timeline, says nothing: the standby that has become the primary meanwhile may be the one that had not.
func (e *Engine) flush(ctx context.Context, of server) error {
	return e.writeAgain(ctx, func(c *pgxpool.Conn) error {
		if now, _ := c.Conn().PgConn().CustomData()[isFit].(server); now != of {
			return errElsewhere
		}
		_, err := c.Exec(ctx, e.sql.flush)
		return err
	})
}
